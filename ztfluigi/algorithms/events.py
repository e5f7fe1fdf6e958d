"""Events on a difference image: detection on the score of both signs, photometry, features, light filter (paper 3.6)."""

from __future__ import annotations

import numpy as np
from numba import njit
from scipy.spatial import cKDTree

from ztfluigi.algorithms import features
from ztfluigi.algorithms.resample import kernel_table
from ztfluigi.algorithms.subtract import Difference
from ztfluigi.model.columns import dtype_of
from ztfluigi.model.config.difference import EventConfig, EventFilterConfig
from ztfluigi.model.event_columns import EVENT
from ztfluigi.model.maskbits import UNUSABLE
from ztfluigi.model.wcs import TpvWcs, separation_arcsec

#: Radii of the two apertures [pix].
APERTURE_RADIUS, BIG_APERTURE_RADIUS = 7.0, 9.0
#: seeratio is clipped here.
MAX_SEERATIO = 2.0
#: A pixel holds at least this share of the peak of a score that lies between pixels.
PIXEL_SHARE = 0.85
#: Largest logarithm of what a peak gains along an axis: that of the sharpest PSF, half a pixel from the centre.
MOST_GAIN = 0.15
#: Relative error of the PSF of the difference that the chi-square of a true source may show.
PSF_ERROR = 0.05
#: How much the square of the score of a peak exceeds that of the source's true S/N of about 5, on average: by 2 for the freedom of its two
#: coordinates, by the rest since the score leaves the source's own photons out of the noise.
FREE = 2.75
#: A few pixels in a row are a cosmic ray above this S/N over the PSF fit; the error of the PSF is allowed for.
MAX_HITSNR = 3.6
#: Noise of the smaller aperture over that of the PSF fit on empty sky, for events whose aperture has no error.
APERTURE_NOISE = 3.5
#: Aperture and PSF-fit flux of an event differ only when they do by this many sigmas.
MAGDIFF_SIGMAS = 3.0
#: An event is part of a dipole when one of the other sign, at least half as high, lies within this distance [pix].
DIPOLE_REACH, DIPOLE_SHARE = 4.0, 0.5


def extract(difference: Difference, *, wcs: TpvWcs, psfcat_ref: np.ndarray, reference_magzp: float,
            config: EventConfig = EventConfig()) -> np.ndarray:
    """Events with |score| >= threshold and their features: structured array EVENT, positive ones first, rows in reading order.

    The score of an event is that of its peak between the pixels: the threshold is the same wherever a source falls on them.
    wcs : of the science grid. psfcat_ref : catalogue of the reference (dtype PSFCAT), calibrated with reference_magzp [mag].
    At most `max_events`, the highest of either sign: more only say that the difference failed, and their number is bounded in time and rows.
    Peaks on unusable pixels are no events (their score is 0); peaks whose fits meet within a pixel are one event.
    """
    x, y, sign = find_peaks(difference.scorr, PIXEL_SHARE * config.threshold, config.separation_pix)
    height = peak_heights(difference.scorr, x, y, sign)
    high = np.flatnonzero(height >= config.threshold)
    if len(high) > config.max_events:
        high = np.sort(high[np.argsort(-height[high], kind="stable")[:config.max_events]])
    x, y, sign, height = x[high], y[high], sign[high], height[high]
    psfs = difference.psf_grid.reshape(-1, *difference.psf_grid.shape[2:])
    j, i = difference.tiles.index(x, y)
    unusable = (difference.mask & np.uint16(UNUSABLE)) != 0
    which = j * difference.psf_grid.shape[1] + i
    flux, error, chi2, fx, fy = features.fit_psf(difference.data, difference.sigma, unusable, psfs, which, x, y, sign,
                                                 config.fit_radius_pix, config.max_shift_pix, kernel_table(4))
    keep = _merge(fx, fy, sign, height)
    x, y, sign, height, flux, error, chi2, fx, fy = (v[keep] for v in (x, y, sign, height, flux, error, chi2, fx, fy))
    events = np.zeros(len(x), dtype_of(EVENT))
    events["isdiffpos"] = np.where(sign > 0, "t", "f")
    for s in (1.0, -1.0):
        events["tblid"][sign == s] = np.arange(np.count_nonzero(sign == s))
    events["xpos"], events["ypos"] = fx + 1.0, fy + 1.0
    events["ra"], events["dec"] = wcs.sky(fx, fy)
    events["flux"], events["sigflux"], events["chipsf"] = flux, error, chi2
    events["scorr"], events["ssnrms"] = height, sign * difference.score[y, x]
    events["dsnrms"] = sign * difference.data[y, x] / max(difference.metrics["noise"], 1e-30)
    events["dsdiff"] = events["dsnrms"] - events["ssnrms"]
    events["diffmaglim"] = difference.diffmaglim
    events["hitsnr"] = features.hit_snr(difference.data, difference.sigma, unusable, psfs, which[keep], fx, fy, sign, kernel_table(4))
    _photometry(events, difference, fx, fy, sign)
    _shape(events, difference, unusable, fx, fy, sign)
    _nearest_reference(events, psfcat_ref, reference_magzp, wcs, fx, fy)
    return events


def find_peaks(score: np.ndarray, threshold: float, separation: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Local extremes with |score| >= threshold, highest of their sign within `separation` pixels along both axes.

    Returns zero-based (x, y) int64 and sign (+1, -1) float64: positive ones first, each sign in reading order.
    """
    found = [np.array(_peaks(score, threshold, separation, s)).reshape(-1, 2) for s in (1.0, -1.0)]
    sign = np.repeat([1.0, -1.0], [len(f) for f in found])
    both = np.concatenate(found).astype(np.int64)
    return both[:, 0], both[:, 1], sign


def light_filter(events: np.ndarray, *, config: EventFilterConfig = EventFilterConfig()) -> np.ndarray:
    """Why each event (EVENT) does not become a packet, or '': the first cut it fails, with its numbers; then the limit on their number.

    An undefined (NaN) feature fails its cut; but an aperture flux that noise alone can have made, positive or not, passes.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        snr = events["flux"] / events["sigflux"]
    cuts = (("nbad", events["nbad"], config.max_nbad, -1),
            ("scorr", events["scorr"], np.sqrt(config.min_snr**2 + FREE), 1), ("PSF S/N", snr, config.min_snr, 1),
            ("dipole", _dipoles(events), 0, -1), ("nneg", events["nneg"], config.max_nneg, -1),
            ("elong", events["elong"], config.max_elong, -1), ("|magdiff|", _significant_magdiff(events, snr), config.max_magdiff, -1),
            ("sumrat", events["sumrat"], config.min_sumrat, 1), ("fwhm", events["fwhm"], config.max_fwhm, -1),
            ("hitsnr", np.sqrt(np.maximum(events["hitsnr"].astype(float) ** 2 - (PSF_ERROR * snr) ** 2, 0.0)), MAX_HITSNR, -1),
            ("chipsf", events["chipsf"] - (PSF_ERROR * snr) ** 2, config.max_chipsf, -1))
    fate = np.full(len(events), "", dtype="U64")
    for name, values, limit, direction in cuts:
        failed = (fate == "") & ~(direction * values.astype(float) >= direction * limit)
        fate[failed] = [f"{name} {v:.4g} {'below' if direction > 0 else 'above'} {limit:.3g}" if np.isfinite(v) else f"{name} undefined"
                        for v in values[failed]]
    left = np.flatnonzero(fate == "")
    if len(left) > config.max_events:
        order = left[np.argsort(-events["scorr"][left], kind="stable")]
        fate[order[config.max_events:]] = f"over the limit of {config.max_events} events"
    return fate


def _dipoles(events: np.ndarray) -> np.ndarray:
    """1 for each event with one of the other sign close by that is at least half as high, else 0."""
    out = np.zeros(len(events))
    place = np.column_stack([events["xpos"], events["ypos"]])
    positive = events["isdiffpos"] == "t"
    if positive.any() and not positive.all():
        trees = cKDTree(place[positive]), cKDTree(place[~positive])
        first, second = np.flatnonzero(positive), np.flatnonzero(~positive)
        for k, near in enumerate(trees[0].query_ball_tree(trees[1], DIPOLE_REACH)):
            for other in second[near]:
                low, high = sorted((first[k], other), key=lambda n: events["scorr"][n])
                out[low] = 1
                out[high] = max(out[high], events["scorr"][low] >= DIPOLE_SHARE * events["scorr"][high])
    return out


def _significant_magdiff(events: np.ndarray, snr: np.ndarray) -> np.ndarray:
    """|magdiff|, 0 where the two fluxes differ by less than `MAGDIFF_SIGMAS`; NaN where the PSF-fit flux is not positive."""
    magdiff, sigma = events["magdiff"].astype(float), events["sigmagap"].astype(float)
    known = np.isfinite(magdiff) & np.isfinite(sigma)
    ratio = np.where(known, 10.0 ** (-0.4 * np.where(known, magdiff, 0.0)), 0.0)
    error = np.where(known, ratio * np.where(known, sigma, 0.0) * np.log(10.0) / 2.5, APERTURE_NOISE / np.maximum(snr, 1e-6))
    return np.where((np.abs(1.0 - ratio) < MAGDIFF_SIGMAS * error) & (snr > 0), 0.0, np.abs(magdiff))


def _photometry(events, difference: Difference, x, y, sign) -> None:
    zero_point = difference.magzp
    small = features.apertures(difference.data, difference.sigma, x, y, sign, APERTURE_RADIUS)
    big = features.apertures(difference.data, difference.sigma, x, y, sign, BIG_APERTURE_RADIUS)
    flux = events["flux"].astype(float), events["sigflux"].astype(float)
    for (value, error), mag, sigma in ((flux, "magpsf", "sigmapsf"), (small, "magap", "sigmagap"), (big, "magapbig", "sigmagapbig")):
        good = value > 0
        events[mag], events[sigma] = np.nan, np.nan
        events[mag][good] = zero_point - 2.5 * np.log10(value[good])
        events[sigma][good] = 2.5 / np.log(10.0) * error[good] / value[good]
    events["magdiff"] = events["magap"] - events["magpsf"]
    events["magfromlim"] = difference.diffmaglim - events["magap"]
    events["sky"] = sign * features.local_sky(difference.data, x, y)


def _shape(events, difference: Difference, unusable, x, y, sign) -> None:
    ny, nx = difference.data.shape
    psf_fwhm = difference.metrics["fwhm_difference"]
    events["fwhm"] = features.gaussian_fwhm(difference.data, x, y, sign, features.WIDTHS, 7.0)
    events["aimage"], events["bimage"] = features.windowed_axes(difference.data, x, y, sign, psf_fwhm / 2.3548)
    events["classtar"] = features.star_class(events["fwhm"], psf_fwhm)
    events["seeratio"] = np.minimum(psf_fwhm / events["fwhm"], MAX_SEERATIO)
    events["aimagerat"], events["bimagerat"] = events["aimage"] / events["fwhm"], events["bimage"] / events["fwhm"]
    events["elong"] = events["aimage"] / events["bimage"]
    events["nneg"], events["nbad"], events["sumrat"] = features.stamp_counts(difference.data, unusable, x, y, sign)
    events["mindtoedge"] = np.minimum(np.minimum(x + 0.5, y + 0.5), np.minimum(nx - 0.5 - x, ny - 0.5 - y))


def _nearest_reference(events, psfcat_ref, magzp: float, wcs: TpvWcs, x, y) -> None:
    columns = ("distnr", "magnr", "sigmagnr", "chinr", "sharpnr", "ranr", "decnr")
    place = np.column_stack(wcs.pixel(psfcat_ref["ra"], psfcat_ref["dec"])) if len(psfcat_ref) else np.empty((0, 2))
    rows = np.flatnonzero(np.isfinite(place).all(axis=1))
    if len(rows) == 0 or len(events) == 0:
        for name in columns:
            events[name] = np.nan
        return
    near = psfcat_ref[rows[cKDTree(place[rows]).query(np.column_stack([x, y]))[1]]]
    events["ranr"], events["decnr"] = near["ra"], near["dec"]
    events["distnr"] = separation_arcsec(events["ra"], events["dec"], near["ra"], near["dec"]) / wcs.pixel_scale_arcsec
    events["magnr"], events["sigmagnr"] = near["mag"] + magzp, near["sigmag"]
    events["chinr"], events["sharpnr"] = near["chi"], near["sharp"]


def _merge(x, y, sign, score) -> np.ndarray:
    """Indices to keep: of fits of one sign that meet within a pixel, the one with the highest score."""
    drop = np.zeros(len(x), bool)
    if len(x) > 1:
        for a, b in cKDTree(np.column_stack([x, y])).query_pairs(1.0):
            if sign[a] == sign[b]:
                drop[a if score[a] < score[b] else b] = True
    return np.flatnonzero(~drop)


@njit(cache=True, nogil=True)
def peak_heights(score, x, y, sign):
    """Height of the Gaussian through each peak and its four neighbours, as the score of a point source is nearly one: of the parabola through
    their logarithms. The pixel's own at edges and beside pixels that have no score or one of the other sign."""
    height = np.empty(len(x))
    for k in range(len(x)):
        i, j = x[k], y[k]
        middle = sign[k] * score[j, i]
        height[k] = middle
        if 0 < i < score.shape[1] - 1 and 0 < j < score.shape[0] - 1:
            for low, high in ((score[j, i - 1], score[j, i + 1]), (score[j - 1, i], score[j + 1, i])):
                if sign[k] * low > 0.0 and sign[k] * high > 0.0:
                    left, right = np.log(sign[k] * low / middle), np.log(sign[k] * high / middle)
                    bend = -(left + right)
                    if bend > 0.0:
                        height[k] *= np.exp(min(0.125 * (right - left) ** 2 / bend, MOST_GAIN))
    return height


@njit(cache=True, nogil=True)
def _peaks(score, threshold, separation, sign):
    found = [(0, 0) for _ in range(0)]
    ny, nx = score.shape
    for y in range(ny):
        for x in range(nx):
            value = sign * score[y, x]
            if value < threshold:
                continue
            highest = True
            for j in range(max(0, y - separation), min(ny, y + separation + 1)):
                for i in range(max(0, x - separation), min(nx, x + separation + 1)):
                    other = sign * score[j, i]
                    # Of equal neighbours the first in reading order counts.
                    if other > value or (other == value and (j < y or (j == y and i < x))):
                        highest = False
            if highest:
                found.append((x, y))
    return found
