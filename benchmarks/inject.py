"""Injected point sources through the difference: completeness against the ideal, photometry, positions."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree
from scipy.special import ndtr

from benchmarks.difference import HOST, inject
from benchmarks.truth import CONFIG, Case, width

BINS = np.arange(3.5, 9.6, 0.5)
MATCH_PIX = 2.0
POSITION_SNR = 10.0
FEWEST = 10


def measure(case: Case) -> None:
    """Print the figures of one case. The ideal curve: the chance that a unit normal error lifts the true S/N above the threshold."""
    made = inject(case)
    positive = made.found[made.found["isdiffpos"] == "t"]
    distance, nearest = cKDTree(np.column_stack([positive["xpos"] - 1, positive["ypos"] - 1])).query(
        np.column_stack([made.sources["x"], made.sources["y"]]))
    found, host = distance < MATCH_PIX, made.sources["id"] >= HOST
    blank = ~host
    seven = blank & (made.snr >= 7) & (made.snr < 8)
    case.figure("inject.complete_snr7", found[seven].mean() if seven.any() else np.nan, "fraction", seven.sum(), 0.95)
    middles, completeness, ideal, counts = _curve(made.snr[blank], found[blank])
    case.figure("inject.snr_half", _half(middles, completeness), "sigma", counts.sum(), CONFIG["events"].threshold)
    case.figure("inject.ideal_gap", np.max(ideal - completeness, initial=-1.0), "fraction", counts.sum(), 0.1)
    rows = positive[np.minimum(nearest, len(positive) - 1)]
    pull = (rows["flux"] - made.light * made.sources["dn"]) / rows["sigflux"]
    # Below S/N 7 only those that noise has lifted are found.
    for name, chosen in (("pull_blank", blank), ("pull_host", host)):
        chosen = chosen & found & (made.snr > 7)
        case.figure(f"inject.{name}", width(pull[chosen]), "sigma", chosen.sum(), 1.1)
    sharp = found & blank & (made.snr >= POSITION_SNR)
    offsets = np.concatenate([rows["xpos"] - 1 - made.sources["x"], rows["ypos"] - 1 - made.sources["y"]])[np.tile(sharp, 2)]
    case.figure("inject.position_mas", width(offsets) * 1e3 * case.camera.pixel_scale_arcsec, "mas", sharp.sum(), 150.0)


def _curve(snr, found) -> tuple[np.ndarray, ...]:
    """(middles, completeness, ideal completeness, counts) of the bins that hold enough sources."""
    place = np.digitize(snr, BINS) - 1
    full = [n for n in range(len(BINS) - 1) if np.count_nonzero(place == n) >= FEWEST]
    groups = [place == n for n in full]
    ideal = ndtr(snr - CONFIG["events"].threshold)
    return (np.array([snr[g].mean() for g in groups]), np.array([found[g].mean() for g in groups]),
            np.array([ideal[g].mean() for g in groups]), np.array([g.sum() for g in groups]))


def _half(middles, completeness) -> float:
    """S/N at which completeness first passes a half, linear between bins; NaN when it never does."""
    above = np.flatnonzero(completeness >= 0.5)
    if not len(above) or above[0] == 0:
        return float("nan")
    k = above[0]
    return float(np.interp(0.5, completeness[k - 1:k + 1], middles[k - 1:k + 1]))
