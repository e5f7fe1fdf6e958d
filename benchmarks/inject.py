"""Injected point sources through the difference: completeness against the ideal, photometry, positions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.spatial import cKDTree
from scipy.special import ndtr

from benchmarks.difference import HOST, NEAR, Injected, injections
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
    parts = zip(*(_matched(made) for made in injections(case)), strict=True)
    sources, usable, snr, found, pull, offset_x, offset_y = (np.concatenate(part) for part in parts)
    which = sources["id"]
    blank, host, near = which < HOST, (which >= HOST) & (which < NEAR), which >= NEAR
    lost = 1.0 - found[near].sum() / np.sum(ndtr(snr[near] - CONFIG["event_filter"].min_snr))
    case.figure("inject.near_bright", lost, "fraction", near.sum(), None)
    blank, host = blank & usable, host & usable
    seven = blank & (snr >= 7) & (snr < 8)
    case.figure("inject.complete_snr7", found[seven].mean() if seven.any() else np.nan, "fraction", seven.sum(), 0.97)
    middles, completeness, ideal, counts = _curve(snr[blank], found[blank])
    case.figure("inject.snr_half", _half(middles, completeness - ideal), "sigma", counts.sum(), 5.1)
    case.figure("inject.ideal_gap", np.max(ideal - completeness, initial=-1.0), "fraction", counts.sum(), 0.02)
    # Below S/N 7 only those that noise has lifted are found.
    for name, chosen, target in (("pull_blank", blank, 1.1), ("pull_host", host, 1.2)):
        chosen = chosen & found & (snr > 7)
        case.figure(f"inject.{name}", width(pull[chosen]), "sigma", chosen.sum(), target)
    sharp = found & blank & (snr >= POSITION_SNR)
    offsets = np.concatenate([offset_x[sharp], offset_y[sharp]])
    case.figure("inject.position_mas", width(offsets) * 1e3 * case.camera.pixel_scale_arcsec, "mas", sharp.sum(), 50.0)


def _matched(made: Injected) -> tuple[np.ndarray, ...]:
    """Of each injected source: itself, whether its pixel is usable, its S/N, whether it was found, flux pull and offsets in x and y [pix] of the
    nearest positive event past the light filter."""
    fates = events.light_filter(made.found, config=replace(CONFIG["event_filter"], max_events=len(made.found) + 1))
    positive = made.found[(made.found["isdiffpos"] == "t") & (fates == "")]
    distance, nearest = cKDTree(np.column_stack([positive["xpos"] - 1, positive["ypos"] - 1])).query(
        np.column_stack([made.sources["x"], made.sources["y"]]))
    rows = positive[np.minimum(nearest, len(positive) - 1)]
    pull = (rows["flux"] - made.light * made.sources["dn"]) / rows["sigflux"]
    return (made.sources, made.usable, made.snr, distance < MATCH_PIX, pull, rows["xpos"] - 1 - made.sources["x"],
            rows["ypos"] - 1 - made.sources["y"])


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
