"""Places on the sky as HEALPix numbers: order 16, NESTED (pixels of 3.2 arcsec), and cones as ranges of them."""

from __future__ import annotations

import hpgeom
import numpy as np

ORDER = 16
NSIDE = 1 << ORDER
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


def disc_pixels(ra: float, dec: float, radius_arcsec: float) -> np.ndarray:
    """Every pixel that a small disc touches (meant for radii of a few pixels)."""
    return hpgeom.query_circle(NSIDE, ra % 360.0, dec, radius_arcsec / 3600.0, inclusive=True, fact=8)


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
    haversine = (f"power(sin(radians({column_dec} - {float(dec)!r}) / 2), 2) + cos(radians({column_dec})) * {np.cos(np.radians(float(dec))):.17g}"
                 f" * power(sin(radians({column_ra} - {float(ra)!r}) / 2), 2)")
    return f"(({ranges}) and {haversine} <= {limit:.17g})"
