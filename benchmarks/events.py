"""Events that are nothing: what the light filter lets through and no source explains."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.spatial import cKDTree

from benchmarks.difference import Injected, inject
from benchmarks.truth import CONFIG, Case, night
from ztfluigi.algorithms import events
from ztfluigi.simulate.exposure import TRANSIENT
from ztfluigi.tasks.scoring import scored

MATCH_PIX = 3.0
VARIED = 0.01
"""Magnitudes by which a source must differ from its mean in the reference to count as real."""
QUADRANT_PIXELS = 3072 * 3080
KEPT = 0.98
RAW_TARGET, SCORED_TARGET = {"high-lat": 5.0, "plane": 40.0}, {"high-lat": 0.3, "plane": 3.0}


def measure(case: Case) -> None:
    """False events per full quadrant, by area."""
    made = inject(case)
    # Without the limit on their number, which the injected sources would fill.
    kept = made.found[events.light_filter(made.found, config=replace(CONFIG["event_filter"], max_events=len(made.found) + 1)) == ""]
    objects = made.truth.objects
    real = objects[(objects["kind"] == TRANSIENT) | np.isin(objects["id"], _varied(case, objects))]
    distance, _ = cKDTree(np.column_stack([real["x"], real["y"]])).query(np.column_stack([kept["xpos"] - 1, kept["ypos"] - 1]))
    false = distance > MATCH_PIX
    quadrants = made.difference.data.size / QUADRANT_PIXELS
    case.figure("events.false_raw", np.count_nonzero(false) / quadrants, "events/quadrant", len(kept), RAW_TARGET[case.density])
    _scored(case, made, kept, false, quadrants)


def _scored(case: Case, made: Injected, kept: np.ndarray, false: np.ndarray, quadrants: float) -> None:
    """False events left by the score that keeps 98 % of the real ones past the filter; both shares at a score of one half."""
    rb, drb = scored(kept, np.ones(len(kept), bool), (made.science, made.difference.reference, made.difference.data))[1].values()
    for name, score in (("", drb), ("_rb", rb)):
        limit = np.quantile(score[~false], 1.0 - KEPT)
        left = np.count_nonzero(score[false] > limit) / quadrants
        case.figure(f"events.false_scored{name}", left, "events/quadrant", np.count_nonzero(false), SCORED_TARGET[case.density])
        case.figure(f"events.keep{name}", np.mean(score[~false] > 0.5), "fraction", np.count_nonzero(~false), KEPT)
        case.figure(f"events.false_half{name}", np.count_nonzero(score[false] > 0.5) / quadrants, "events/quadrant", np.count_nonzero(false), None)


def _varied(case: Case, objects: np.ndarray) -> np.ndarray:
    """Ids of objects whose magnitude is not the mean of the reference's epochs."""
    total, count = np.zeros(len(objects)), np.zeros(len(objects))
    for epoch in night(case).epochs:
        _, rows, there = np.intersect1d(objects["id"], epoch.truth.objects["id"], return_indices=True)
        total[rows] += epoch.truth.objects["mag"][there]
        count[rows] += 1
    with np.errstate(invalid="ignore"):
        return objects["id"][np.abs(objects["mag"] - total / count) > VARIED]
