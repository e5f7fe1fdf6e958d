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


def extract(difference: Difference, *, wcs: TpvWcs, psfcat_ref: np.ndarray, reference_magzp: float,
            config: EventConfig = EventConfig()) -> np.ndarray:
    """Events with |score| >= threshold and their features: structured array EVENT, positive ones first, rows in reading order.

    wcs : of the science grid. psfcat_ref : catalogue of the reference (dtype PSFCAT), calibrated with reference_magzp [mag].
    Peaks on unusable pixels are no events (their score is 0); peaks whose fits meet within a pixel are one event.
    """
    x, y, sign = find_peaks(difference.scorr, config.threshold, config.separation_pix)
    psfs = difference.psf_grid.reshape(-1, *difference.psf_grid.shape[2:])
    j, i = difference.tiles.index(x, y)
    unusable = (difference.mask & np.uint16(UNUSABLE)) != 0
    which = j * difference.psf_grid.shape[1] + i
    flux, error, chi2, fx, fy = features.fit_psf(difference.data, difference.sigma, unusable, psfs, which, x, y, sign,
                                                 config.fit_radius_pix, config.max_shift_pix, kernel_table(4))
    keep = _merge(fx, fy, sign, np.abs(difference.scorr[y, x]))
    x, y, sign, flux, error, chi2, fx, fy = (v[keep] for v in (x, y, sign, flux, error, chi2, fx, fy))
    events = np.zeros(len(x), dtype_of(EVENT))
    events["isdiffpos"] = np.where(sign > 0, "t", "f")
    for s in (1.0, -1.0):
        events["tblid"][sign == s] = np.arange(np.count_nonzero(sign == s))
    events["xpos"], events["ypos"] = fx + 1.0, fy + 1.0
    events["ra"], events["dec"] = wcs.sky(fx, fy)
    events["flux"], events["sigflux"], events["chipsf"] = flux, error, chi2
    events["scorr"], events["ssnrms"] = sign * difference.scorr[y, x], sign * difference.score[y, x]
    events["dsnrms"] = sign * difference.data[y, x] / max(difference.metrics["noise"], 1e-30)
    events["dsdiff"] = events["dsnrms"] - events["ssnrms"]
    events["diffmaglim"] = difference.diffmaglim
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

    An undefined (NaN) feature fails its cut.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        snr = events["flux"] / events["sigflux"]
    cuts = (("nbad", events["nbad"], config.max_nbad, -1), ("PSF S/N", snr, config.min_snr, 1),
            ("nneg", events["nneg"], config.max_nneg, -1),
            ("elong", events["elong"], config.max_elong, -1), ("|magdiff|", np.abs(events["magdiff"]), config.max_magdiff, -1),
            ("sumrat", events["sumrat"], config.min_sumrat, 1), ("fwhm", events["fwhm"], config.max_fwhm, -1),
            ("chipsf", events["chipsf"], config.max_chipsf, -1))
    fate = np.full(len(events), "", dtype="U64")
    for name, values, limit, direction in cuts:
        failed = (fate == "") & ~(direction * values.astype(float) >= direction * limit)
        fate[failed] = [f"{name} {v:.4g} {'below' if direction > 0 else 'above'} {limit:g}" if np.isfinite(v) else f"{name} undefined"
                        for v in values[failed]]
    left = np.flatnonzero(fate == "")
    if len(left) > config.max_events:
        order = left[np.argsort(-events["scorr"][left], kind="stable")]
        fate[order[config.max_events:]] = f"over the limit of {config.max_events} events"
    return fate


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
