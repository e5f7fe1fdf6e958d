"""Zero point and colour term of one quadrant against Pan-STARRS 1 (paper 3.5.2).

m_PS1 - m_inst = MAGZP + CLRCOEFF * colour_PS1, with colour g - r, g - r, r - i in the filters g, r, i.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from ztfluigi.model.config.zero_point import ZeroPointConfig
from ztfluigi.model.errors import NoSolution, TooFewCalibrators
from ztfluigi.model.maskbits import UNUSABLE
from ztfluigi.model.wcs import project

NOT_POSSIBLE, FEW_CALIBRATORS, FEW_MATCHES = 1 << 8, 1 << 9, 1 << 10
RESIDUAL = np.dtype([("x", "f4"), ("y", "f4"), ("ra", "f8"), ("dec", "f8"), ("mag_ps1", "f4"), ("colour", "f4"), ("mag_inst", "f4"),
                     ("residual", "f4"), ("uncertainty", "f4"), ("used", "?")])


@dataclass(frozen=True)
class _Band:
    band: str
    blue: str
    red: str
    text: str
    colour_range: tuple[float, float]


#: Calibrated band, colour, its card text, and the colours in which one straight line holds (no M dwarfs, no white dwarfs or quasars).
BANDS = {"zg": _Band("g", "g", "r", "g - R", (0.0, 1.2)), "zr": _Band("r", "g", "r", "g - R", (0.0, 1.2)),
         "zi": _Band("i", "r", "i", "R - i", (-0.1, 0.9))}

_HUBER = 1.5
_MAX_MAGNITUDE_DIFFERENCE = 3.0  # a neighbour this much fainter than the calibrator cannot disturb it
_CHI_SPREADS = 5.0
_BINS = 6


@dataclass(frozen=True)
class ZeroPoint:
    """Result of the photometric calibration.

    magzp, magzpunc : zero point and its formal 1-sigma uncertainty [mag]. magzprms : RMS of the residuals of the calibrators used [mag].
    clrcoeff, clrcounc : colour coefficient and its formal 1-sigma. zpclrcov : their covariance [mag^2]. nmatches : calibrators used.
    zpmed, zpavg, zprmsall : median, mean and RMS about it of m_PS1 - m_inst of all matched calibrators, no colour term [mag].
    clrmed, clravg, clrrms : the same of the calibrators' colour [mag]. pcolor : the colour as the header names it.
    residuals : `RESIDUAL` rows of all matched calibrators; residual = m_PS1 - m_inst - magzp - clrcoeff * colour [mag].
    metrics : calibrators (PS1 stars fit for use in the frame), matches, faint_limit [mag], extra_scatter [mag].
    """

    magzp: float
    magzpunc: float
    magzprms: float
    clrcoeff: float
    clrcounc: float
    zpclrcov: float
    nmatches: int
    zpmed: float
    zpavg: float
    zprmsall: float
    clrmed: float
    clravg: float
    clrrms: float
    pcolor: str
    residuals: np.ndarray
    metrics: dict

    def cards(self) -> dict[str, float | int | str]:
        """The header cards of science.md 1."""
        names = ("nmatches", "magzp", "magzpunc", "magzprms", "clrcoeff", "clrcounc", "zpclrcov", "pcolor",
                 "zpmed", "zpavg", "zprmsall", "clrmed", "clravg", "clrrms")
        return {name.upper(): getattr(self, name) for name in names}


def fit_zero_point(psfcat, ps1, *, filter_code: str, shape, config: ZeroPointConfig = ZeroPointConfig()) -> ZeroPoint:
    """Fit zero point and colour coefficient.

    Parameters
    ----------
    psfcat : structured array with the columns of `PSFCAT` (flags, chi and sharp are used when finite).
    ps1 : structured array with the columns of `PS1`; -999 or NaN is unknown, and such a star is no calibrator.
    filter_code : `zg`, `zr` or `zi`. shape : (ny, nx) of the image.

    Calibrators are chosen by what PS1 says about them; the faint limit too is a PS1 magnitude, because a cut on the measured
    signal-to-noise would keep stars scattered bright and drop those scattered faint, and so shift the zero point.

    Raises TooFewCalibrators (bits 8 to 10) or NoSolution (bit 8) with the numbers.
    """
    band = BANDS[filter_code]
    catalogue = _calibrators(ps1, band, config)
    stars = _stars(psfcat)
    i, j = _match(stars, catalogue, config)
    _require(i.size, "photometric matches", config)
    limit = _faint_limit(stars, catalogue, i, j, config)
    keep = (catalogue["mag"][j] <= limit) & _is_sound(stars, i, shape, config)
    i, j = i[keep], j[keep]
    _require(i.size, "photometric calibrators", config)
    difference = catalogue["mag"][j] - stars["mag"][i]
    colour = catalogue["colour"][j]
    errors = (stars["sigmag"][i].astype(float) ** 2, catalogue["mag_err"][j] ** 2, catalogue["other_err"][j] ** 2)
    fit = _robust_line(difference, colour, errors, band, config)
    if fit is None or fit.used.sum() < config.min_matches:
        raise NoSolution("the photometric fit keeps too few calibrators", infobits=NOT_POSSIBLE | FEW_CALIBRATORS, matches=int(i.size))
    residual = difference - fit.value[0] - fit.value[1] * colour
    rows = np.zeros(i.size, RESIDUAL)
    for name, values in (("x", stars["xpos"][i] - 1), ("y", stars["ypos"][i] - 1), ("ra", stars["ra"][i]), ("dec", stars["dec"][i]),
                         ("mag_ps1", catalogue["mag"][j]), ("colour", colour), ("mag_inst", stars["mag"][i]), ("residual", residual),
                         ("uncertainty", np.sqrt(fit.variance)), ("used", fit.used)):
        rows[name] = values
    return ZeroPoint(
        magzp=float(fit.value[0]), magzpunc=float(np.sqrt(fit.covariance[0, 0])),
        magzprms=float(np.sqrt(np.mean(residual[fit.used] ** 2))), clrcoeff=float(fit.value[1]),
        clrcounc=float(np.sqrt(fit.covariance[1, 1])), zpclrcov=float(fit.covariance[0, 1]), nmatches=int(fit.used.sum()),
        zpmed=float(np.median(difference)), zpavg=float(np.mean(difference)), zprmsall=float(np.std(difference)),
        clrmed=float(np.median(colour)), clravg=float(np.mean(colour)), clrrms=float(np.std(colour)), pcolor=band.text, residuals=rows,
        metrics={"calibrators": int(catalogue["mag"].size), "matches": int(i.size), "faint_limit": float(limit),
                 "extra_scatter": float(fit.scatter)})


def _require(count: int, what: str, config) -> None:
    if count < config.min_matches:
        raise TooFewCalibrators(what, found=int(count), needed=config.min_matches, nmatches=int(count),
                                infobits=NOT_POSSIBLE | FEW_CALIBRATORS | FEW_MATCHES)


def _calibrators(ps1, band: _Band, config) -> dict[str, np.ndarray]:
    # Stars with sound, precise magnitudes, of ordinary colour, bright but unsaturated in PS1, alone within the isolation radius.
    def column(name):
        values = ps1[name].astype(float)
        return np.where(values > -900.0, values, np.nan)

    mag, blue, red = (column(f"{b}MeanPSFMag") for b in (band.band, band.blue, band.red))
    other = band.red if band.band == band.blue else band.blue
    mag_err, other_err = column(f"{band.band}MeanPSFMagErr"), column(f"{other}MeanPSFMagErr")
    ra, dec = ps1["raMean"].astype(float), ps1["decMean"].astype(float)
    colour = blue - red
    with np.errstate(invalid="ignore"):
        good = (mag >= config.bright_limit) & (mag_err <= config.max_catalogue_error) & (other_err <= config.max_catalogue_error)
        good &= (colour >= band.colour_range[0]) & (colour <= band.colour_range[1]) & (ps1["sgscore"] >= config.min_sgscore)
    good &= np.isfinite(ra + dec)
    index = np.flatnonzero(good)
    if index.size and config.isolation_arcsec > 0:
        # Neighbours are looked for in the whole table, galaxies and faint stars included.
        known = np.flatnonzero(np.isfinite(ra + dec))
        plane = np.column_stack(project(ra[known], dec[known], ra[index[0]], dec[index[0]])) * 3600.0
        seen = np.isfinite(plane).all(axis=1)
        known, plane = known[seen], plane[seen]
        own = np.searchsorted(known, index[np.isin(index, known)])
        _, neighbour = cKDTree(plane).query(plane[own], k=[2, 3, 4], distance_upper_bound=config.isolation_arcsec)
        # An object without magnitude in this band is taken as too faint to matter.
        neighbour_mag = np.append(np.nan_to_num(mag[known], nan=np.inf), np.inf)[neighbour]
        index = known[own[np.all(neighbour_mag > mag[known[own]][:, None] + _MAX_MAGNITUDE_DIFFERENCE, axis=1)]]
    values = {"ra": ra, "dec": dec, "mag": mag, "colour": colour, "mag_err": mag_err, "other_err": other_err}
    return {name: value[index] for name, value in values.items()}


def _stars(psfcat) -> np.ndarray:
    good = np.isfinite(psfcat["mag"]) & np.isfinite(psfcat["sigmag"]) & np.isfinite(psfcat["ra"] + psfcat["dec"]) & (psfcat["flux"] > 0)
    return psfcat[good]


def _match(stars, catalogue, config):
    # Mutual nearest pairs.
    if not stars.size or not catalogue["ra"].size:
        return np.zeros(0, int), np.zeros(0, int)
    origin = catalogue["ra"][0], catalogue["dec"][0]
    a = np.column_stack(project(stars["ra"], stars["dec"], *origin)) * 3600.0
    b = np.column_stack(project(catalogue["ra"], catalogue["dec"], *origin)) * 3600.0
    i_ok, j_ok = np.flatnonzero(np.isfinite(a).all(axis=1)), np.flatnonzero(np.isfinite(b).all(axis=1))
    if not i_ok.size or not j_ok.size:
        return np.zeros(0, int), np.zeros(0, int)
    tree_a, tree_b = cKDTree(a[i_ok]), cKDTree(b[j_ok])
    distance, nearest = tree_a.query(b[j_ok], distance_upper_bound=config.match_radius_arcsec)
    j = np.flatnonzero(nearest < i_ok.size)
    _, back = tree_b.query(a[i_ok[nearest[j]]])
    mutual = back == j
    return i_ok[nearest[j[mutual]]], j_ok[j[mutual]]


def _faint_limit(stars, catalogue, i, j, config) -> float:
    # PS1 magnitude at which the typical star reaches the wanted signal-to-noise: sky noise of the faint half gives it.
    zero = np.median(catalogue["mag"][j] - stars["mag"][i])
    faint = stars["mag"][i] >= np.median(stars["mag"][i])
    noise = float(np.median(stars["sigflux"][i[faint]]))
    return float(zero - 2.5 * np.log10(config.min_expected_snr * noise))


def _is_sound(stars, i, shape, config) -> np.ndarray:
    x, y = stars["xpos"][i] - 1.0, stars["ypos"][i] - 1.0
    sound = (np.minimum(x, shape[1] - 1 - x) >= config.edge_pix) & (np.minimum(y, shape[0] - 1 - y) >= config.edge_pix)
    sound &= (stars["flags"][i].astype(np.int64) & UNUSABLE) == 0
    chi, sharp = stars["chi"][i].astype(float), stars["sharp"][i].astype(float)
    # Shape cuts are relative to stars of like brightness: a fixed cut on chi would select by flux.
    order = np.argsort(stars["mag"][i], kind="stable")
    for rows in np.array_split(order, min(_BINS, max(1, i.size // 20))):
        for values in (chi, sharp):
            middle = values[rows]
            if np.isfinite(middle).sum() < 5:
                continue
            centre = np.nanmedian(middle)
            spread = 1.4826 * np.nanmedian(np.abs(middle - centre)) + 0.02
            with np.errstate(invalid="ignore"):
                sound[rows] &= ~(np.abs(middle - centre) > _CHI_SPREADS * spread)
    return sound


@dataclass(frozen=True)
class _Line:
    value: np.ndarray
    covariance: np.ndarray
    variance: np.ndarray
    scatter: float
    used: np.ndarray


def _robust_line(difference, colour, errors, band: _Band, config) -> _Line | None:
    # Huber-weighted, clipped line with an intrinsic scatter added in quadrature so that the core has unit chi-square.
    instrument, own, other = errors
    pivot = float(np.median(colour))
    design = np.column_stack([np.ones_like(colour), colour - pivot])
    value = np.array([np.median(difference), 0.0])
    sign = 1.0 if band.band == band.blue else -1.0
    used = np.ones(difference.size, bool)
    scatter = 0.0
    for _ in range(12):
        residual = difference - design @ value
        formal = instrument + (1.0 - sign * value[1]) ** 2 * own + value[1] ** 2 * other
        spread = 1.4826 * np.median(np.abs(residual[used] - np.median(residual[used])))
        scatter = _intrinsic_scatter(residual[used], formal[used], spread)
        variance = formal + scatter**2
        pull = np.abs(residual) / np.sqrt(variance)
        now_used = pull <= config.clip_sigma
        if now_used.sum() < config.min_matches:
            return None
        weight = np.where(now_used, np.minimum(1.0, _HUBER / np.maximum(pull, 1e-9)) / variance, 0.0)
        normal, right = design.T @ (weight[:, None] * design), design.T @ (weight * difference)
        if np.linalg.cond(normal / normal[0, 0]) > 1e8:
            return None
        # The colour has the catalogue's errors too, and shares that of the band with the magnitude: both would tilt the line.
        spread_by_error = min(float(np.sum(weight * (own + other))), 0.5 * normal[1, 1])
        normal[1, 1] -= spread_by_error
        right[1] -= sign * float(np.sum(weight * own))
        update = np.linalg.solve(normal, right)
        settled = np.array_equal(now_used, used) and np.allclose(update, value, rtol=0, atol=1e-7)
        value, used = update, now_used
        if settled:
            break
    inverse = np.linalg.inv(design[used].T @ (design[used] / variance[used, None]))
    # From the pivot colour to colour 0, where MAGZP is defined.
    turn = np.array([[1.0, -pivot], [0.0, 1.0]])
    return _Line(turn @ value, turn @ inverse @ turn.T, variance, scatter, used)


def _intrinsic_scatter(residual, formal, spread: float) -> float:
    # Scatter s for which the median of r^2 / (formal + s^2) is that of a unit normal, by bisection.
    low, high = 0.0, max(3.0 * spread, 1e-4)
    squares = residual**2
    for _ in range(25):
        middle = 0.5 * (low + high)
        if np.median(squares / (formal + middle**2)) > 0.4549:
            low = middle
        else:
            high = middle
    return 0.5 * (low + high) if low > 0 else 0.0
