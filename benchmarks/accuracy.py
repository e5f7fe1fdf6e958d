"""Figures against the simulator's truth, one module per area, and against real data."""

from __future__ import annotations

from benchmarks import alerts, astrometry, catalogue, difference, events, inject, mask, photometry, rb, real, reference
from benchmarks.truth import SUFFIX, Case

AREAS = {"mask": mask.measure, "astrometry": astrometry.measure, "photometry": photometry.measure, "catalogue": catalogue.measure,
         "reference": reference.measure, "difference": difference.measure, "inject": inject.measure, "events": events.measure,
         "rb": rb.measure}
"""Area -> function that prints its figures for one case."""

ONCE = {"real": lambda **_: real.measure(), "alerts": alerts.measure}
"""Area -> function that prints figures which no simulated sky changes."""


def run(area: str | None, *, quick: bool, seed: int) -> None:
    """Print a line per figure: of one area or of all, for both densities; areas without a simulated sky once, at the end."""
    for density in SUFFIX:  # outermost: areas of one sky share its epochs
        case = Case(density, seed, quick)
        for name, measure in AREAS.items():
            if area in (None, name):
                measure(case)
    for name, measure in ONCE.items():
        if area in (None, name):
            measure(quick=quick, seed=seed)
