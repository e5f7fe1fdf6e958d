"""Events that are nothing: what the light filter lets through and no source explains."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.spatial import cKDTree

from benchmarks.difference import inject
from benchmarks.truth import CONFIG, Case, night
from ztfluigi.algorithms import events
from ztfluigi.simulate.exposure import TRANSIENT

MATCH_PIX = 3.0
VARIED = 0.01
"""Magnitudes by which a source must differ from its mean in the reference to count as real."""
QUADRANT_PIXELS = 3072 * 3080


def measure(case: Case) -> None:
    """False events per full quadrant, by area."""
    made = inject(case)
    # Without the limit on their number, which the injected sources would fill.
    kept = made.found[events.light_filter(made.found, config=replace(CONFIG["event_filter"], max_events=len(made.found) + 1)) == ""]
    objects = made.truth.objects
    real = objects[(objects["kind"] == TRANSIENT) | np.isin(objects["id"], _varied(case, objects))]
    distance, _ = cKDTree(np.column_stack([real["x"], real["y"]])).query(np.column_stack([kept["xpos"] - 1, kept["ypos"] - 1]))
    false = np.count_nonzero(distance > MATCH_PIX)
    case.figure("events.false_raw", false * QUADRANT_PIXELS / made.difference.data.size, "events/quadrant", len(kept),
                {"high-lat": 5.0, "plane": 40.0}[case.density])


def _varied(case: Case, objects: np.ndarray) -> np.ndarray:
    """Ids of objects whose magnitude is not the mean of the reference's epochs."""
    total, count = np.zeros(len(objects)), np.zeros(len(objects))
    for epoch in night(case).epochs:
        _, rows, there = np.intersect1d(objects["id"], epoch.truth.objects["id"], return_indices=True)
        total[rows] += epoch.truth.objects["mag"][there]
        count[rows] += 1
    with np.errstate(invalid="ignore"):
        return objects["id"][np.abs(objects["mag"] - total / count) > VARIED]
