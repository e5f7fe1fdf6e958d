"""Figures against the simulator's truth, one module per area."""

from __future__ import annotations

from benchmarks import astrometry, catalogue, difference, events, inject, mask, photometry, reference
from benchmarks.truth import SUFFIX, Case

AREAS = {"mask": mask.measure, "astrometry": astrometry.measure, "photometry": photometry.measure, "catalogue": catalogue.measure,
         "reference": reference.measure, "difference": difference.measure, "inject": inject.measure, "events": events.measure}
"""Area -> function that prints its figures for one case."""


def run(area: str | None, *, quick: bool, seed: int) -> None:
    """Print a line per figure: of one area or of all, for both densities."""
    for density in SUFFIX:  # outermost: areas of one sky share its epochs
        case = Case(density, seed, quick)
        for name, measure in AREAS.items():
            if area in (None, name):
                measure(case)
