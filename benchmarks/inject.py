"""Injected point sources through the difference: completeness against the ideal, photometry, positions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.spatial import cKDTree
from scipy.special import ndtr

from benchmarks.difference import HOST, NEAR, inject
from benchmarks.truth import CONFIG, Case, width
from ztfluigi.algorithms import events

BINS = np.arange(3.5, 9.6, 1.0)
MATCH_PIX = 2.0
POSITION_SNR = 20.0
FEWEST = 10


def measure(case: Case) -> None:
    """Print the figures of one case, of the events that pass the light filter.

    The ideal curve: the chance that a unit normal error lifts the true S/N above 5. Sources on unusable pixels do not count, except for
    what is lost close to bright stars, where they are lost: how much of what the ideal curve gives there.
    """
    made = inject(case)
    fates = events.light_filter(made.found, config=replace(CONFIG["event_filter"], max_events=len(made.found) + 1))
    positive = made.found[(made.found["isdiffpos"] == "t") & (fates == "")]
    distance, nearest = cKDTree(np.column_stack([positive["xpos"] - 1, positive["ypos"] - 1])).query(
        np.column_stack([made.sources["x"], made.sources["y"]]))
    found, which = distance < MATCH_PIX, made.sources["id"]
    blank, host, near = which < HOST, (which >= HOST) & (which < NEAR), which >= NEAR
    lost = 1.0 - found[near].sum() / np.sum(ndtr(made.snr[near] - CONFIG["event_filter"].min_snr))
    case.figure("inject.near_bright", lost, "fraction", near.sum(), None)
    blank, host = blank & made.usable, host & made.usable
    seven = blank & (made.snr >= 7) & (made.snr < 8)
    case.figure("inject.complete_snr7", found[seven].mean() if seven.any() else np.nan, "fraction", seven.sum(), 0.97)
    middles, completeness, ideal, counts = _curve(made.snr[blank], found[blank])
    case.figure("inject.snr_half", _half(middles, completeness - ideal), "sigma", counts.sum(), 5.1)
    case.figure("inject.ideal_gap", np.max(ideal - completeness, initial=-1.0), "fraction", counts.sum(), 0.02)
    rows = positive[np.minimum(nearest, len(positive) - 1)]
    pull = (rows["flux"] - made.light * made.sources["dn"]) / rows["sigflux"]
    # Below S/N 7 only those that noise has lifted are found.
    for name, chosen, target in (("pull_blank", blank, 1.1), ("pull_host", host, 1.2)):
        chosen = chosen & found & (made.snr > 7)
        case.figure(f"inject.{name}", width(pull[chosen]), "sigma", chosen.sum(), target)
    sharp = found & blank & (made.snr >= POSITION_SNR)
    offsets = np.concatenate([rows["xpos"] - 1 - made.sources["x"], rows["ypos"] - 1 - made.sources["y"]])[np.tile(sharp, 2)]
    case.figure("inject.position_mas", width(offsets) * 1e3 * case.camera.pixel_scale_arcsec, "mas", sharp.sum(), 50.0)


def _curve(snr, found) -> tuple[np.ndarray, ...]:
    """(middles, completeness, ideal completeness, counts) of the bins that hold enough sources."""
    place = np.digitize(snr, BINS) - 1
    full = [n for n in range(len(BINS) - 1) if np.count_nonzero(place == n) >= FEWEST]
    groups = [place == n for n in full]
    ideal = ndtr(snr - CONFIG["event_filter"].min_snr)
    return (np.array([snr[g].mean() for g in groups]), np.array([found[g].mean() for g in groups]),
            np.array([ideal[g].mean() for g in groups]), np.array([g.sum() for g in groups]))


def _half(middles, excess) -> float:
    """S/N at which half are found: the shift of the ideal curve, from its bins within 1 of the middle, where its slope is known."""
    steep = np.abs(middles - CONFIG["event_filter"].min_snr) < 1.5
    slope = np.exp(-0.5 * (middles[steep] - CONFIG["event_filter"].min_snr) ** 2) / np.sqrt(2.0 * np.pi)
    return float(CONFIG["event_filter"].min_snr - np.sum(excess[steep] * slope) / np.sum(slope**2)) if steep.any() else float("nan")
