"""Stars, galaxies and variables of a seeded sky, and the calibrator catalogues another survey would have made of them.

The sphere is cut into tiles with random numbers of their own, so that any footprint, at any time, sees the same sky.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ztfluigi.model.columns import GAIA, PS1, dtype_of
from ztfluigi.model.wcs import deproject, project
from ztfluigi.simulate.kernels import draw_by_id
from ztfluigi.simulate.seeds import generator

SOURCE = np.dtype([("id", "i8"), ("ra", "f8"), ("dec", "f8"), ("pmra", "f8"), ("pmdec", "f8"), ("parallax", "f4"), ("g", "f8"), ("r", "f8"),
                   ("i", "f8"), ("galaxy", "?"), ("radius_arcsec", "f4"), ("axis_ratio", "f4"), ("angle", "f4"), ("bulge", "f4"),
                   ("variable", "i2"), ("amplitude", "f4"), ("period", "f8"), ("phase", "f8")])
"""Truth of one object: ICRS position at 2015.5 [deg], motion [mas/yr], mean AB magnitudes; `variable` is 0 or a row of VARIABLES."""
VARIABLES = ("constant", "pulsating", "eclipsing", "irregular")
EPOCH = 2015.5
TILE_DEG = 0.25
FAINT_LIMIT = 22.7
BRIGHT_LIMIT = 10.0


@dataclass(frozen=True)
class Density:
    """Numbers per square degree brighter than r = 21, and the slopes of log N(<r) below and above r = 16."""

    stars: float
    galaxies: float
    bright_slope: float
    faint_slope: float


DENSITIES = {"high-lat": Density(4020.0, 2680.0, 0.25, 0.18), "plane": Density(52600.0, 1000.0, 0.28, 0.25)}
_GALAXY_SLOPE = 0.40


@dataclass(frozen=True)
class Sky:
    """One seeded universe. `boost` multiplies the numbers, so that a small quadrant still holds enough calibrators."""

    seed: int
    density: str = "high-lat"
    boost: float = 1.0

    def around(self, ra: float, dec: float, half_width_deg: float, half_height_deg: float | None = None) -> np.ndarray:
        """SOURCE rows of a rectangle on the tangent plane of (ra, dec), sorted by id."""
        half_height_deg = half_width_deg if half_height_deg is None else half_height_deg
        reach = np.hypot(half_width_deg, half_height_deg)
        tables = []
        for band in range(int(np.floor((dec - reach + 90) / TILE_DEG)), int(np.floor((dec + reach + 90) / TILE_DEG)) + 1):
            if not 0 <= band < 180 / TILE_DEG:
                continue
            cells = _cells(band)
            low, high = band * TILE_DEG - 90, (band + 1) * TILE_DEG - 90
            widest = np.cos(np.radians(min(max(abs(low), abs(high)), 89.9)))
            near = range(cells) if reach / widest > 90 else range(int(np.floor((ra - reach / widest) / 360 * cells)),
                                                                  int(np.floor((ra + reach / widest) / 360 * cells)) + 1)
            tables += [self._tile(band, cell % cells) for cell in near]
        table = np.concatenate(tables)
        xi, eta = project(table["ra"], table["dec"], ra, dec)
        table = table[(np.abs(xi) <= half_width_deg) & (np.abs(eta) <= half_height_deg)]
        return table[np.argsort(table["id"])]

    def _tile(self, band: int, cell: int) -> np.ndarray:
        rng = generator(self.seed, "sky", self.density, band, cell)
        density, cells = DENSITIES[self.density], _cells(band)
        low, high = np.sin(np.radians([band * TILE_DEG - 90, (band + 1) * TILE_DEG - 90]))
        area = (high - low) * (2 * np.pi / cells) * (180 / np.pi) ** 2
        stars = self._magnitudes(rng, area, density.stars, density.bright_slope, density.faint_slope)
        galaxies = self._magnitudes(rng, area, density.galaxies, _GALAXY_SLOPE, _GALAXY_SLOPE)
        galaxies = galaxies[(galaxies > 14.5) & (galaxies < 22.4)]
        table = np.zeros(len(stars) + len(galaxies), SOURCE)
        table["id"] = (band * 10000 + cell) * 1000000 + np.arange(len(table))
        table["ra"] = (cell + rng.random(len(table))) * 360.0 / cells
        table["dec"] = np.degrees(np.arcsin(low + (high - low) * rng.random(len(table))))
        table["r"] = np.concatenate([stars, galaxies])
        table["galaxy"][len(stars):] = True
        _fill_stars(table[:len(stars)], rng)
        _fill_galaxies(table[len(stars):], rng)
        return table

    def _magnitudes(self, rng, area: float, number: float, bright_slope: float, faint_slope: float) -> np.ndarray:
        counts = _cumulative(np.array([BRIGHT_LIMIT, FAINT_LIMIT]), number, bright_slope, faint_slope)
        n = rng.poisson((counts[1] - counts[0]) * area * self.boost)
        grid = np.linspace(BRIGHT_LIMIT, FAINT_LIMIT, 400)
        cumulative = _cumulative(grid, number, bright_slope, faint_slope)
        return np.interp(counts[0] + rng.random(n) * (counts[1] - counts[0]), cumulative, grid)


def _cells(band: int) -> int:
    return max(1, int(np.ceil(360.0 / TILE_DEG * np.cos(np.radians((band + 0.5) * TILE_DEG - 90)))))


def _cumulative(mag, number: float, bright_slope: float, faint_slope: float) -> np.ndarray:
    at_break = number * 10 ** (faint_slope * (16.0 - 21.0))
    return np.where(mag > 16.0, number * 10 ** (faint_slope * (mag - 21.0)), at_break * 10 ** (bright_slope * (mag - 16.0)))


def _fill_stars(table: np.ndarray, rng) -> None:
    n, r = len(table), table["r"]
    red = rng.random(n) < np.clip(0.08 * (r - 13.0), 0.05, 0.6)
    g_r = np.where(red, rng.normal(1.35, 0.12, n), np.clip(rng.normal(0.52, 0.16, n), -0.2, 1.2))
    r_i = np.where(red, 0.55 + np.abs(rng.normal(0.0, 0.35, n)), 0.40 * g_r - 0.02 + rng.normal(0.0, 0.02, n))
    table["g"], table["i"] = r + g_r, r - r_i
    speed = 7.0 * 10 ** (-0.08 * (r - 15.0)) * np.where(rng.random(n) < 0.02, 8.0, 1.0)
    table["pmra"], table["pmdec"] = rng.normal(0, 1, n) * speed, rng.normal(0, 1, n) * speed
    table["parallax"] = np.hypot(table["pmra"], table["pmdec"]) / 10.0
    table["axis_ratio"] = 1.0
    kind = np.where((rng.random(n) < 0.025) & (r > 13.5) & (r < 20.0), rng.integers(1, len(VARIABLES), n), 0)
    table["variable"] = kind
    table["amplitude"] = np.where(kind > 0, rng.uniform(0.15, 0.9, n), 0.0)
    table["period"] = 10 ** rng.uniform(-0.5, 0.7, n)
    table["phase"] = rng.random(n)


def _fill_galaxies(table: np.ndarray, rng) -> None:
    n, r = len(table), table["r"]
    table["g"] = r + np.clip(rng.normal(0.75, 0.25, n), 0.0, 1.6)
    table["i"] = r - np.clip(rng.normal(0.36, 0.10, n), 0.0, 0.8)
    table["radius_arcsec"] = np.clip(1.3 * 10 ** (-0.12 * (r - 20.0)) * 10 ** rng.normal(0.0, 0.18, n), 0.3, 12.0)
    table["axis_ratio"] = rng.uniform(0.3, 1.0, n)
    table["angle"] = rng.uniform(0.0, np.pi, n)
    table["period"] = 1.0
    table["bulge"] = np.clip(rng.normal(0.3, 0.25, n), 0.0, 1.0)


def positions(table: np.ndarray, year: float) -> tuple[np.ndarray, np.ndarray]:
    """(ra, dec) [deg] at a Julian year, proper motion applied."""
    step = (year - EPOCH) / 3.6e6
    return deproject(table["pmra"] * step, table["pmdec"] * step, table["ra"], table["dec"])


def brightening(table: np.ndarray, mjd: float) -> np.ndarray:
    """Magnitudes to add to the mean ones at a time: 0 for constant objects; the mean magnitude over time is kept to a few percent."""
    turn = 2.0 * np.pi * (mjd / table["period"] + table["phase"])
    fold = np.mod(turn / (2.0 * np.pi), 1.0)
    pulse = np.where(fold < 0.2, 0.5 - 5.0 * fold, -0.5 + 1.25 * (fold - 0.2))
    dips = np.exp(-0.5 * ((fold - 0.5) / 0.05) ** 2) + 0.5 * np.exp(-0.5 * (np.minimum(fold, 1.0 - fold) / 0.05) ** 2) - 0.19
    slow = 0.35 * (np.sin(turn / 7.0) + np.sin(turn / 4.3 + 2.0 * table["phase"]))
    return table["amplitude"] * np.choose(table["variable"], [np.zeros(len(table)), pulse, dips, slow])


def gaia_table(table: np.ndarray, seed: int) -> np.ndarray:
    """What Gaia DR2 would list of these objects (columns GAIA), with its errors drawn."""
    g_r = table["g"] - table["r"]
    g_mag = table["r"] - 0.05 - 0.09 * g_r
    seen = (g_mag < 20.7) & (~table["galaxy"] | (table["radius_arcsec"] < 0.4))
    stars, g_mag, g_r = table[seen], g_mag[seen], g_r[seen]
    noise = draw_by_id(stars["id"], seed, 8)
    gaia = np.zeros(len(stars), dtype_of(GAIA))
    error = np.clip(0.03 * 10 ** (0.2 * (g_mag - 15.0)), 0.03, 2.0)
    gaia["source_id"] = stars["id"] + 10**15
    gaia["ra"], gaia["dec"] = deproject(noise[:, 0] * error / 3.6e6, noise[:, 1] * error / 3.6e6, stars["ra"], stars["dec"])
    gaia["ra_error"], gaia["dec_error"], gaia["ref_epoch"] = error, error, EPOCH
    gaia["parallax"] = stars["parallax"] + noise[:, 2] * error
    gaia["pmra"], gaia["pmdec"] = stars["pmra"] + noise[:, 3] * 2 * error, stars["pmdec"] + noise[:, 4] * 2 * error
    gaia["phot_g_mean_mag"] = g_mag + 0.002 * noise[:, 5]
    gaia["phot_bp_mean_mag"] = g_mag + 0.15 + 0.45 * g_r + 0.01 * noise[:, 6]
    gaia["phot_rp_mean_mag"] = g_mag - 0.25 - 0.35 * g_r + 0.01 * noise[:, 7]
    two = g_mag > 20.2  # the faintest have positions only
    for name in ("parallax", "pmra", "pmdec"):
        gaia[name][two] = np.nan
    return gaia


def ps1_table(table: np.ndarray, seed: int) -> np.ndarray:
    """What the PS1 mean-object catalogue would list (columns PS1), with its errors drawn."""
    seen = (table["r"] < 22.0) & (table["r"] > 13.0)
    rows = table[seen]
    noise = draw_by_id(rows["id"], seed + 1, 8)
    ps1 = np.zeros(len(rows), dtype_of(PS1))
    ps1["objID"] = rows["id"] + 10**16
    place = np.hypot(4.0, 20.0 * 10 ** (0.2 * (rows["r"] - 21.0))) / 3.6e6
    ra, dec = positions(rows, 2012.5)
    ps1["raMean"], ps1["decMean"] = deproject(noise[:, 0] * place, noise[:, 1] * place, ra, dec)
    mags = {"g": rows["g"], "r": rows["r"], "i": rows["i"], "z": rows["i"] - 0.5 * (rows["r"] - rows["i"])}
    lost = np.where(rows["galaxy"], 1.2 * np.log10(1.0 + rows["radius_arcsec"]), 0.0)  # light outside the PSF
    for n, (band, mag) in enumerate(mags.items()):
        error = np.hypot(0.004, 0.03 * 10 ** (0.35 * (mag - 21.0)))
        ps1[f"{band}MeanPSFMag"] = mag + lost + error * noise[:, 2 + n]
        ps1[f"{band}MeanPSFMagErr"] = error
    ps1["nDetections"] = np.clip(60 - 6 * np.clip(rows["r"] - 19.0, 0, None) + 3 * noise[:, 6], 2, None).astype(int)
    ps1["sgscore"] = np.clip(np.where(rows["galaxy"], 0.06, 0.96) + 0.03 * noise[:, 7], 0.0, 1.0)
    return ps1
