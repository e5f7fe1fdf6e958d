"""Places on the sky as HEALPix numbers: order 16, NESTED (pixels of 3.2 arcsec), and cones as ranges of them."""

from __future__ import annotations

import hpgeom
import numpy as np

ORDER = 16
NSIDE = 1 << ORDER
CELL_ORDER = 7
"""Order of the coarse cells (0.46 deg) by which images and sets of events are found."""
ARCSEC_PER_RADIAN = 206264.80624709636


def index(ra, dec) -> np.ndarray:
    """int64 pixel numbers of positions [deg]; -1 where a coordinate is not finite."""
    ra, dec = np.broadcast_arrays(np.asarray(ra, float), np.asarray(dec, float))
    good = np.isfinite(ra) & np.isfinite(dec)
    pixels = np.full(ra.shape, -1, np.int64)
    pixels[good] = hpgeom.angle_to_pixel(NSIDE, ra[good] % 360.0, dec[good])
    return pixels


def separation_arcsec(ra1, dec1, ra2, dec2) -> np.ndarray:
    """Great-circle distance [arcsec] of positions [deg] (haversine: exact for the smallest angles)."""
    ra1, dec1, ra2, dec2 = (np.radians(a) for a in (ra1, dec1, ra2, dec2))
    h = np.sin((dec2 - dec1) / 2) ** 2 + np.cos(dec1) * np.cos(dec2) * np.sin((ra2 - ra1) / 2) ** 2
    return 2 * ARCSEC_PER_RADIAN * np.arcsin(np.sqrt(np.minimum(h, 1)))


def unit_vectors(ra, dec) -> np.ndarray:
    """(n, 3) unit vectors of positions [deg]."""
    ra, dec = np.radians(np.atleast_1d(ra).astype(float)), np.radians(np.atleast_1d(dec).astype(float))
    return np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=-1)


def disc_pixels(ra, dec, radius_arcsec: float) -> tuple[np.ndarray, np.ndarray]:
    """Every pixel that small discs touch: (position index, pixel), both (n,); radius at most 2 arcsec (one pixel's width)."""
    if radius_arcsec > 2.0:
        raise ValueError(f"disc_pixels is for radii up to 2 arcsec, not {radius_arcsec}")
    centre = np.atleast_1d(index(ra, dec))
    around = np.column_stack([centre, hpgeom.neighbors(NSIDE, centre)])
    position, column = np.nonzero(around >= 0)
    return position, around[position, column]


def cells(pixels, order: int = CELL_ORDER) -> np.ndarray:
    """Sorted coarse cells that hold order-16 pixels."""
    return np.unique(np.asarray(pixels, np.int64) >> 2 * (ORDER - order))


def polygon_cells(ra, dec) -> np.ndarray:
    """Coarse cells that a convex polygon of corners [deg], in order around, touches."""
    return np.sort(hpgeom.query_polygon(1 << CELL_ORDER, np.asarray(ra, float) % 360.0, np.asarray(dec, float), inclusive=True, fact=16))


def inside_quads(ra, dec, corners_ra, corners_dec) -> np.ndarray:
    """(positions, quads) bool: which positions [deg] lie in which quadrangles, corners (n, 4) [deg] in order around, either way."""
    points = unit_vectors(ra, dec)
    corners = unit_vectors(np.ravel(corners_ra), np.ravel(corners_dec)).reshape(-1, 4, 3)
    sides = np.cross(corners, np.roll(corners, -1, axis=1))
    towards = np.einsum("pk,qsk->pqs", points, sides)
    near = points @ corners.sum(axis=1).T > 0  # not the antipode
    return near & ((towards >= 0).all(axis=2) | (towards <= 0).all(axis=2))


def quad_fractions(ra, dec, corners_ra, corners_dec) -> tuple[np.ndarray, np.ndarray]:
    """(u, v) (n,) of positions [deg] in quadrangles, one each: corners (n, 4) [deg] lower left, lower right, upper right, upper left.

    0 to 1 along the lower and the left side, to some 0.1 % of an image's side; the bent of a distorted image is left out.
    """
    points, corners = unit_vectors(ra, dec), unit_vectors(np.ravel(corners_ra), np.ravel(corners_dec)).reshape(-1, 4, 3)
    along = 0.5 * (corners[:, 1] - corners[:, 0] + corners[:, 2] - corners[:, 3])
    up = 0.5 * (corners[:, 3] - corners[:, 0] + corners[:, 2] - corners[:, 1])
    off = points - corners.mean(axis=1)
    (aa, uu, au, oa, ou) = (np.einsum("nk,nk->n", p, q) for p, q in ((along, along), (up, up), (along, up), (off, along), (off, up)))
    det = aa * uu - au**2
    return 0.5 + (oa * uu - ou * au) / det, 0.5 + (ou * aa - oa * au) / det


def cone_ranges(ra: float, dec: float, radius_arcsec: float) -> np.ndarray:
    """(n, 2) half-open ranges [first, end) of pixels that cover a cone; a few to some ten ranges whatever the radius."""
    order = int(np.clip(np.floor(np.log2(np.sqrt(np.pi / 3) * ARCSEC_PER_RADIAN / max(radius_arcsec, 0.1))), 0, ORDER))
    pixels = np.sort(hpgeom.query_circle(1 << order, ra % 360.0, dec, radius_arcsec / 3600.0, inclusive=True, fact=8))
    breaks = np.flatnonzero(np.diff(pixels) > 1)
    first = pixels[np.concatenate([[0], breaks + 1])]
    last = pixels[np.concatenate([breaks, [len(pixels) - 1]])]
    shift = 2 * (ORDER - order)
    return np.stack([first << shift, (last + 1) << shift], axis=-1)


def cone_condition(ra: float, dec: float, radius_arcsec: float, *, hpx: str = "hpx", column_ra: str = "ra", column_dec: str = "dec") -> str:
    """SQL condition of a cone search: index ranges, then the exact haversine. Built from numbers only, so it needs no arguments."""
    ranges = " or ".join(f"({hpx} >= {a} and {hpx} < {b})" for a, b in cone_ranges(ra, dec, radius_arcsec))
    limit = np.sin(np.radians(radius_arcsec / 3600.0) / 2) ** 2
    ra, dec = float(ra), float(dec)
    haversine = (f"power(sin(radians({column_dec} - {dec!r}) / 2), 2) + cos(radians({column_dec})) * {np.cos(np.radians(dec)):.17g}"
                 f" * power(sin(radians({column_ra} - {ra!r}) / 2), 2)")
    return f"(({ranges}) and {haversine} <= {limit:.17g})"
