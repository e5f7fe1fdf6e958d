"""Wings of the empirical PSF: faint, so that only a smooth form of few parameters can be told from the noise."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numba import njit

from ztfluigi.model.psf import PsfModel

#: Radius [pix] inside which the PSF has unit flux; half the 25-pixel stamp.
UNIT_FLUX_RADIUS = 12.0
#: Radius [FWHM] from which the wings take over from the free table, over one FWHM.
WING_START = 1.5
#: Relative departure of a wing from a Moffat profile that is thought nothing of.
_MISFIT = 0.1
#: Departures of the wings from round, relative to their profile, that are expected.
_ASYMMETRY = 0.3
#: Highest harmonic: the vanes of a telescope have four-fold symmetry.
_ORDER = 4


def table_radius(psf: PsfModel) -> np.ndarray:
    """Distance [pix] of the table's points (m, m) from its centre."""
    half = psf.tables.shape[1] // 2
    offset = np.arange(-half, half + 1) / psf.oversample
    return np.hypot(offset[:, None], offset)


def wing_correction(sums: np.ndarray, table: np.ndarray, radius: np.ndarray, fwhm: float) -> np.ndarray:
    """Correction (m, m) of the mean table beyond `WING_START`: harmonics of the angle on radial knots that widen outwards; zero inside.

    sums : (2, m, m) weighted sum of the residuals relative to flux, and sum of the weights (their inverse variances).
    Harmonics above the mean are expected below `_ASYMMETRY` times the profile, so that faint wings become round.
    """
    knots = [WING_START * fwhm]
    while knots[-1] < radius.max():
        knots.append(max(1.2 * knots[-1], knots[-1] + 1.0))
    half, waves = table.shape[0] // 2, 2 * _ORDER + 1
    rows, columns = np.nonzero(radius >= knots[0])
    angle, place = np.arctan2(rows - half, columns - half), np.interp(radius[rows, columns], knots, np.arange(len(knots)))
    basis = np.array([np.ones_like(angle), *(wave(n * angle) for n in range(1, _ORDER + 1) for wave in (np.cos, np.sin))]).T.copy()
    ones = np.ones(len(rows))
    plain, present = _normal_equations(basis, place, ones, table[rows, columns], len(knots))
    matrix, change = _normal_equations(basis, place, sums[1][rows, columns], sums[0][rows, columns], len(knots))
    present = np.linalg.solve(plain + 1e-6 * np.eye(len(plain)), present)
    prior = np.zeros((len(knots), waves))
    prior[:, 1:] = (_ASYMMETRY * np.maximum(np.abs(present.reshape(-1, waves)[:, :1]), 1e-7)) ** -2
    matrix += np.diag(prior.ravel() + 1e-6 * sums[1].max())
    terms = np.linalg.solve(matrix, change - prior.ravel() * present).reshape(-1, waves)
    correction = np.zeros_like(table)
    correction[rows, columns] = _value(basis, place, terms)
    return correction


@njit(cache=True, nogil=True)
def _normal_equations(basis, place, weight, value, knots):
    """Matrix and right side of the fit of harmonics (basis) times hats on the knots; `value` has the weight in it already."""
    waves = basis.shape[1]
    matrix, right = np.zeros((knots, waves, knots, waves)), np.zeros((knots, waves))
    for p in range(len(place)):
        k = min(int(place[p]), knots - 2)
        t = place[p] - k
        for u in range(waves):
            right[k, u] += (1.0 - t) * basis[p, u] * value[p]
            right[k + 1, u] += t * basis[p, u] * value[p]
            for v in range(waves):
                w = weight[p] * basis[p, u] * basis[p, v]
                matrix[k, u, k, v] += (1.0 - t) * (1.0 - t) * w
                matrix[k, u, k + 1, v] += t * (1.0 - t) * w
                matrix[k + 1, u, k, v] += t * (1.0 - t) * w
                matrix[k + 1, u, k + 1, v] += t * t * w
    return matrix.reshape(knots * waves, knots * waves), right.reshape(-1)


@njit(cache=True, nogil=True)
def _value(basis, place, terms):
    out = np.empty(len(place))
    for p in range(len(place)):
        k = min(int(place[p]), len(terms) - 2)
        t = place[p] - k
        out[p] = 0.0
        for u in range(basis.shape[1]):
            out[p] += basis[p, u] * ((1.0 - t) * terms[k, u] + t * terms[k + 1, u])
    return out


def levelled(psf: PsfModel, fwhm: float, noise: float) -> PsfModel:
    """Take a constant out of the mean table: what remains beyond 1.5 FWHM is as near to a Moffat profile as can be.

    The stamps cannot tell it, since each star's sky is measured on the stamp; over the unit-flux aperture it is several mmag.
    noise : of one pixel of the table.
    """
    radius = table_radius(psf)
    ring = np.rint(radius).astype(int).ravel()
    count = np.bincount(ring)
    where, profile = np.bincount(ring, radius.ravel()) / count, np.bincount(ring, psf.tables[0].ravel()) / count
    used = (where > 1.5 * fwhm) & (where <= UNIT_FLUX_RADIUS)
    if np.count_nonzero(used) < 4:
        return psf
    where, profile, weight = where[used], profile[used], count[used] / ((_MISFIT * profile[used]) ** 2 + noise**2)
    best = np.inf, 0.0
    for beta in np.arange(1.8, 6.1, 0.2):
        alpha = fwhm / (2.0 * np.sqrt(2.0 ** (1.0 / beta) - 1.0))
        design = np.column_stack([(1.0 + (where / alpha) ** 2) ** -beta, np.ones(len(where))]) * np.sqrt(weight)[:, None]
        terms = np.linalg.lstsq(design, profile * np.sqrt(weight), rcond=None)[0]
        best = min(best, (float(np.sum((design @ terms - profile * np.sqrt(weight)) ** 2)), float(terms[1])))
    tables = psf.tables.copy()
    tables[0] -= best[1]
    return replace(psf, tables=tables)
