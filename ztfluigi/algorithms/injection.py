"""Synthetic sources in calibrated images: where they go, their light with its noise, and what became of them in the events."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.spatial import cKDTree

from ztfluigi.algorithms.noise import pixel_sigma
from ztfluigi.algorithms.subtract import Difference
from ztfluigi.model.columns import Column, dtype_of
from ztfluigi.model.config.injection import InjectionConfig
from ztfluigi.model.errors import NoWork
from ztfluigi.model.images import Calibrated
from ztfluigi.model.maskbits import UNUSABLE, Mask
from ztfluigi.model.psf import PsfModel

PLACES = ("blank", "host", "star")
"""On empty sky, off the centre of an extended source of the reference, on a point source of it."""
SHARES = (0.5, 0.25, 0.25)
SOURCE = (
    Column("place", "U5", "", "blank, host or star"), Column("xpos", "f8", "pix", "true x, FITS pixels"),
    Column("ypos", "f8", "pix", "true y, FITS pixels"), Column("mag", "f8", "mag", "true magnitude"),
    Column("flux", "f8", "DN", "true PSF flux"), Column("magnr", "f4", "mag", "magnitude of the source it was put on, NaN on blank sky"),
    Column("snr", "f4", "", "S/N of an ideal fit: PSF, noise of the difference and own photons"),
    Column("found", "?", "", "an event of the same sign lies there"), Column("passed", "?", "", "that event passes the light filter"),
    Column("rb", "f4", "", "its scores, where it passes"), Column("drb", "f4", "", "likewise"),
    Column("fitflux", "f4", "DN", "its PSF-fit flux, NaN where not found"), Column("sigflux", "f4", "DN", "1-sigma uncertainty of fitflux"),
    Column("dx", "f4", "pix", "fitted minus true x"), Column("dy", "f4", "pix", "fitted minus true y"),
)
"""One row a synthetic source: truth, and what was found there."""
EDGE_PIX = 16.0
BLANK_PIX, FAINT_SNR = 8.0, 5.0
"""Blank sky is this far from every reference source of that S/N in one science image, farther from bright ones."""
STAMP = 25
MATCH_PIX = 2.0
EVENT_PIX = 8.0
BINS = np.array([3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 10.0, 15.0, 30.0])
"""Edges of the bins of true S/N."""
HOST_SHARP = 0.3
"""An extended source exceeds the PSF's second moment by this share."""
FULL_PIXELS, FEWEST = 3072 * 3080, 60
PULL_SNR, POSITION_SNR = 7.0, 20.0


def place(image: Calibrated, psf: PsfModel, magzp: float, noise_mag: float, refcat: np.ndarray, reference_magzp: float, *, seed: int,
          events: np.ndarray | None = None, config: InjectionConfig = InjectionConfig()) -> np.ndarray:
    """Rows SOURCE (truth only) of synthetic sources, at most `config.number` for a full-size quadrant.

    image : science image, with wcs. noise_mag : its magnitude of S/N 1 on empty sky. refcat : PSF catalogue of the reference (PSFCAT,
    uncalibrated magnitudes). events : zero-based (n, 2), what the plain difference shows: sources keep `EVENT_PIX` from it, since the light
    of a variable star is none of theirs. Raises NoWork where nothing fits in.
    """
    rng = np.random.default_rng(seed)
    ny, nx = image.data.shape
    number = int(max(FEWEST, round(config.number * ny * nx / FULL_PIXELS)))
    x, y = image.wcs.pixel(refcat["ra"], refcat["dec"])
    on = np.isfinite(x) & np.isfinite(y)
    cat, x, y = refcat[on], x[on], y[on]
    mag = cat["mag"] + reference_magzp
    snr = 10.0 ** (-0.4 * (mag - noise_mag))
    moment = psf.fwhm() ** 2 / (8.0 * np.log(2.0))
    clean = (cat["flags"].astype(np.int64) & UNUSABLE) == 0
    extended = clean & (snr > 2 * FAINT_SNR) & (cat["chi"] > 1.3) & (cat["sharp"] > HOST_SHARP * moment)
    pointlike = clean & (snr > 2 * FAINT_SNR) & (np.abs(cat["sharp"]) < 0.5 * HOST_SHARP * moment) & (cat["chi"] < 2.0)
    spread = rng.normal(0.0, 1.0, (len(cat), 2))
    taken = _Taken(image, config.separation_pix, np.empty((0, 2)) if events is None else events)
    parts = []
    wanted = [round(number * share) for share in SHARES]
    for name, chosen, jitter, most in (("host", extended, 1.0, wanted[1]), ("star", pointlike, 0.2, wanted[2])):
        rows = np.flatnonzero(chosen)
        rows = rows[rng.permutation(len(rows))]
        px, py = x[rows] + jitter * spread[rows, 0], y[rows] + jitter * spread[rows, 1]
        keep = taken.take(px, py, most)
        parts.append(_rows(name, px[keep], py[keep], mag[rows][keep]))
    px, py = rng.uniform(EDGE_PIX, nx - EDGE_PIX, 20 * number), rng.uniform(EDGE_PIX, ny - EDGE_PIX, 20 * number)
    empty = _far_from(px, py, x, y, snr)
    px, py = px[empty], py[empty]
    keep = taken.take(px, py, number - sum(len(part) for part in parts))
    parts.append(_rows("blank", px[keep], py[keep], np.full(len(keep), np.nan)))
    sources = np.concatenate(parts)
    if not len(sources):
        raise NoWork("no place for synthetic sources: no usable pixels away from the edges")
    wanted_snr = np.exp(rng.uniform(np.log(config.min_snr), np.log(config.max_snr), len(sources)))
    sources["mag"] = noise_mag - 2.5 * np.log10(wanted_snr)
    sources["flux"] = 10.0 ** (-0.4 * (sources["mag"] - magzp))
    return sources


class _Taken:
    """Places so far, each on usable pixels, apart from the others and from events."""

    def __init__(self, image: Calibrated, separation: float, events: np.ndarray):
        self.usable = (image.mask & np.uint16(UNUSABLE)) == 0
        ny, nx = self.usable.shape
        reach = int(np.ceil(EVENT_PIX))
        disc = np.hypot(*np.mgrid[-reach:reach + 1, -reach:reach + 1]) < EVENT_PIX
        self.quiet = np.ones(self.usable.shape, bool)
        for i, j in np.rint(events).astype(int):
            x0, x1, y0, y1 = max(0, i - reach), min(nx, i + reach + 1), max(0, j - reach), min(ny, j + reach + 1)
            self.quiet[y0:y1, x0:x1] &= ~disc[y0 - j + reach:y1 - j + reach, x0 - i + reach:x1 - i + reach]
        self.separation = separation
        self.points = np.empty((0, 2))

    def take(self, x: np.ndarray, y: np.ndarray, most: int) -> list[int]:
        """Indices of the first places, in order, that are free: `most` at most; they are taken then."""
        kept: list[int] = []
        ny, nx = self.usable.shape
        for n, (px, py) in enumerate(zip(x, y, strict=True)):
            if len(kept) >= most:
                break
            if not (EDGE_PIX <= px < nx - EDGE_PIX and EDGE_PIX <= py < ny - EDGE_PIX):
                continue
            i, j = round(px), round(py)
            if not (self.quiet[j, i] and self.usable[j - 2:j + 3, i - 2:i + 3].all()):
                continue
            if len(self.points) and np.hypot(*(self.points - (px, py)).T).min() < self.separation:
                continue
            self.points = np.vstack([self.points, (px, py)])
            kept.append(n)
        return kept


def _far_from(px, py, x, y, snr) -> np.ndarray:
    """Whether places are far from every source: farther from brighter ones."""
    far = np.ones(len(px), bool)
    tree = cKDTree(np.column_stack([px, py]))
    seen = snr > FAINT_SNR
    reach = BLANK_PIX * (1.0 + np.clip(np.log10(snr[seen] / 50.0), 0.0, None))
    for sx, sy, radius in zip(x[seen], y[seen], reach, strict=True):
        far[tree.query_ball_point([sx, sy], radius)] = False
    return far


def _rows(name: str, x, y, magnr) -> np.ndarray:
    rows = np.zeros(len(x), dtype_of(SOURCE))
    rows["place"], rows["xpos"], rows["ypos"], rows["magnr"] = name, x + 1.0, y + 1.0, magnr
    for column in ("snr", "rb", "drb", "fitflux", "sigflux", "dx", "dy"):
        rows[column] = np.nan
    return rows


def add(image: Calibrated, psf: PsfModel, sources: np.ndarray, *, seed: int) -> Calibrated:
    """A copy of the image with the sources' light, Poisson noise of their own included; pixels driven into saturation say so.

    The PSF is the image's own at each place; sources : rows SOURCE.
    """
    rng = np.random.default_rng([seed, 1])
    data, mask = image.data.copy(), image.mask.copy()
    ny, nx = data.shape
    half = STAMP // 2
    for row in sources:
        x, y = row["xpos"] - 1.0, row["ypos"] - 1.0
        i, j = round(x), round(y)
        light = row["flux"] * psf.render(x, y, STAMP, x - i, y - j)
        noisy = rng.poisson(np.maximum(light, 0.0) * image.gain) / image.gain + np.minimum(light, 0.0)
        x0, x1, y0, y1 = max(0, i - half), min(nx, i + half + 1), max(0, j - half), min(ny, j + half + 1)
        data[y0:y1, x0:x1] += noisy[y0 - j + half:y1 - j + half, x0 - i + half:x1 - i + half].astype(np.float32)
    full = (data > image.saturate) & (data != image.data)
    data[full] = np.float32(image.saturate)
    mask[full] |= np.uint16(Mask.SATURATED)
    return replace(image, data=data, sigma=pixel_sigma(data, image.gain, image.read_noise), mask=mask)


def recover(sources: np.ndarray, psf: PsfModel, difference: Difference, events: np.ndarray, passed: np.ndarray, rb: np.ndarray,
            drb: np.ndarray) -> np.ndarray:
    """The sources with what was found: the nearest event of their sign (EVENT) within two pixels.

    passed, rb, drb : of the events, scores NaN where there are none. The ideal S/N takes the science PSF and the noise of the difference,
    which counts the photons of the source and of static light; sources on pixels unusable in the difference (by the reference) are dropped.
    """
    ny, nx = difference.data.shape
    column = np.clip(np.rint(sources["xpos"] - 1).astype(int), 0, nx - 1)
    row = np.clip(np.rint(sources["ypos"] - 1).astype(int), 0, ny - 1)
    out = sources[(difference.mask[row, column] & np.uint16(UNUSABLE)) == 0].copy()
    half = STAMP // 2
    sigma = np.pad(difference.sigma, half, mode="edge")
    for one in out:
        x, y = one["xpos"] - 1.0, one["ypos"] - 1.0
        i, j = round(x), round(y)
        light = one["flux"] * psf.render(x, y, STAMP, x - i, y - j)
        one["snr"] = np.sqrt(np.sum((light / sigma[j:j + STAMP, i:i + STAMP]) ** 2))
    positive = np.flatnonzero(events["isdiffpos"] == "t")
    if len(positive) and len(out):
        found = events[positive]
        distance, nearest = cKDTree(np.column_stack([found["xpos"], found["ypos"]])).query(np.column_stack([out["xpos"], out["ypos"]]))
        out["found"] = distance < MATCH_PIX
        hit = np.flatnonzero(out["found"])
        which = nearest[hit]
        out["passed"][hit] = passed[positive][which]
        for name, values in (("rb", rb[positive]), ("drb", drb[positive]), ("fitflux", found["flux"]), ("sigflux", found["sigflux"]),
                             ("dx", found["xpos"]), ("dy", found["ypos"])):
            out[name][hit] = values[which]
        out["dx"][hit] -= out["xpos"][hit]
        out["dy"][hit] -= out["ypos"][hit]
    return out


def summarise(sources: np.ndarray, pixel_scale_arcsec: float) -> dict:
    """QA numbers by place: `n`, found and passed shares in `BINS` of true S/N (None in empty bins), S/N of half completeness, bias and
    width of the flux pull above S/N 7, position error per axis above S/N 20 [mas], share of scores above 0.5 among those scored.
    """
    numbers: dict = {"snr_bins": BINS.tolist(), "n_injected": len(sources)}
    for name in PLACES:
        rows = sources[sources["place"] == name]
        bin_of = np.digitize(rows["snr"], BINS) - 1
        groups = [rows[bin_of == k] for k in range(len(BINS) - 1)]
        pull = ((rows["fitflux"] - rows["flux"]) / rows["sigflux"])[rows["found"] & (rows["snr"] > PULL_SNR)]
        bright = rows[rows["found"] & (rows["snr"] > POSITION_SNR)]
        offsets = 1e3 * pixel_scale_arcsec * np.concatenate([bright["dx"], bright["dy"]])
        low, middle, high = np.percentile(pull, (15.87, 50.0, 84.13)) if len(pull) > 2 else (np.nan,) * 3
        scored = rows[rows["passed"]]
        values = {"n": len(rows), "in_bin": [len(group) for group in groups], "complete": [_share(group["found"]) for group in groups],
                  "passed": [_share(group["passed"]) for group in groups], "snr_half": _half(groups), "pull_bias": middle,
                  "pull_width": 0.5 * (high - low), "position_mas": _width(offsets), "rb_kept": _share(scored["rb"] > 0.5),
                  "drb_kept": _share(scored["drb"] > 0.5)}
        numbers |= {f"{name}_{key}": _plain(value) for key, value in values.items()}
    return numbers


def _share(values: np.ndarray) -> float | None:
    return float(np.mean(values)) if len(values) else None


def _width(values: np.ndarray) -> float:
    return 0.5 * float(np.subtract(*np.percentile(values, (84.13, 15.87)))) if len(values) > 4 else float("nan")


def _half(groups: list[np.ndarray]) -> float:
    """S/N at which completeness passes a half, linear between the means of the bins; NaN where it does not."""
    full = [group for group in groups if len(group) >= 3]
    middle, complete = np.array([group["snr"].mean() for group in full]), np.array([group["found"].mean() for group in full])
    above = np.flatnonzero(complete >= 0.5)
    if not len(above) or above[0] == 0:
        return float("nan")
    k = above[0]
    return float(np.interp(0.5, complete[k - 1:k + 1], middle[k - 1:k + 1]))


def _plain(value):
    if isinstance(value, (float, np.floating)):
        return round(float(value), 4) if np.isfinite(value) else None
    return [None if item is None else round(item, 4) for item in value] if isinstance(value, list) else value
