"""Events that are nothing: what the light filter lets through and no source explains."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.spatial import cKDTree

from benchmarks.difference import Injected, injections
from benchmarks.truth import CONFIG, Case, night
from ztfluigi.algorithms import events
from ztfluigi.simulate.exposure import TRANSIENT
from ztfluigi.tasks.scoring import scored

MATCH_PIX = 3.0
VARIED = 0.01
"""Magnitudes by which a source must differ from its mean in the reference to count as real."""
QUADRANT_PIXELS = 3072 * 3080
KEPT = 0.98
THRESHOLD = float(np.sqrt(CONFIG["event_filter"].min_snr ** 2 + events.FREE))
RAW_TARGET, SCORED_TARGET = {"high-lat": 5.0, "plane": 40.0}, {"high-lat": 0.3, "plane": 3.0}


def measure(case: Case) -> None:
    """False events per full quadrant past the light filter, and of them what the score leaves that keeps 98 % of the real ones; what noise
    alone gives of both (the latter above the S/N that keeps as many); both shares at a score of one half."""
    made = injections(case)
    quadrants = sum(one.difference.data.size for one in made) / QUADRANT_PIXELS
    parts = [_false(case, one) for one in made]
    false = np.concatenate([bad for _, bad in parts])
    case.figure("events.false_raw", np.count_nonzero(false) / quadrants, "events/quadrant", len(false), RAW_TARGET[case.density])
    faintest = np.quantile(np.concatenate([kept["scorr"] for kept, _ in parts])[~false], 1.0 - KEPT)
    for name, limit in (("noise_raw", THRESHOLD), ("noise_scored", faintest)):
        noise = sum(noise_peaks(one.difference.scorr, limit) for one in made) / quadrants
        case.figure(f"events.{name}", noise, "events/quadrant", len(made), None)
    scores = [scored(kept, np.ones(len(kept), bool), (one.science, one.difference.reference, one.difference.data))[1]
              for (kept, _), one in zip(parts, made, strict=True)]
    for kind, name in (("drb", ""), ("rb", "_rb")):
        score = np.concatenate([one[kind] for one in scores])
        limit = np.quantile(score[~false], 1.0 - KEPT)
        left = np.count_nonzero(score[false] > limit) / quadrants
        case.figure(f"events.false_scored{name}", left, "events/quadrant", np.count_nonzero(false), SCORED_TARGET[case.density])
        case.figure(f"events.keep{name}", np.mean(score[~false] > 0.5), "fraction", np.count_nonzero(~false), KEPT)
        case.figure(f"events.false_half{name}", np.count_nonzero(score[false] > 0.5) / quadrants, "events/quadrant", np.count_nonzero(false), None)


def noise_peaks(score: np.ndarray, threshold: float) -> float:
    """Peaks of both signs above a high threshold that a Gaussian random field of this area and correlation has (Longuet-Higgins 1957; Bardeen
    et al. 1986): 2 A lambda u exp(-u^2 / 2) / (2 pi)^1.5, lambda being minus the curvature of the correlation at the origin.

    score : 0 where unusable. The correlation, taken as Gaussian, is that of neighbouring pixels below 4 sigma.
    """
    curvature = 0.0
    for one, other in ((score[:, 1:], score[:, :-1]), (score[1:], score[:-1])):
        quiet = (one != 0) & (other != 0) & (np.abs(one) < 4.0) & (np.abs(other) < 4.0)
        a, b = one[quiet].astype(float), other[quiet].astype(float)
        curvature -= np.log(np.mean(a * b) / np.mean((a**2 + b**2) / 2.0))
    return 2.0 * np.count_nonzero(score) * curvature * threshold * np.exp(-0.5 * threshold**2) / (2.0 * np.pi) ** 1.5


def _false(case: Case, made: Injected) -> tuple[np.ndarray, np.ndarray]:
    """Events past the light filter, and which of them are false."""
    # Without the limit on their number, which the injected sources would fill.
    kept = made.found[events.light_filter(made.found, config=replace(CONFIG["event_filter"], max_events=len(made.found) + 1)) == ""]
    objects = made.truth.objects
    real = objects[(objects["kind"] == TRANSIENT) | np.isin(objects["id"], varied(case, objects))]
    distance, _ = cKDTree(np.column_stack([real["x"], real["y"]])).query(np.column_stack([kept["xpos"] - 1, kept["ypos"] - 1]))
    return kept, distance > MATCH_PIX


def varied(case: Case, objects: np.ndarray) -> np.ndarray:
    """Ids of objects whose magnitude is not the mean of the reference's epochs."""
    total, count = np.zeros(len(objects)), np.zeros(len(objects))
    for epoch in night(case).epochs:
        _, rows, there = np.intersect1d(objects["id"], epoch.truth.objects["id"], return_indices=True)
        total[rows] += epoch.truth.objects["mag"][there]
        count[rows] += 1
    with np.errstate(invalid="ignore"):
        return objects["id"][np.abs(objects["mag"] - total / count) > VARIED]
