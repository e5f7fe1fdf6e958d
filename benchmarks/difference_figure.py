"""Draws `docs/difference_stamps.png`: stamps at bright stars of a simulated quadrant; `python -m benchmarks.difference_figure [FILE]`."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from benchmarks.difference import inject
from benchmarks.truth import Case
from ztfluigi.algorithms.cutouts import cut
from ztfluigi.simulate.exposure import STAR

MAGS = np.arange(12.25, 16.0, 0.5)
SIDE = 41
TITLES = ("science", "reference", "difference", "score")


def draw(path: Path, case: Case) -> None:
    """A row a star, brightest first; grey from -5 to 5 sigma of the sky, first two columns to a tenth of the peak."""
    made = inject(case)
    result, objects = made.difference, made.truth.objects
    ny, nx = result.data.shape
    stars = objects[(objects["kind"] == STAR) & (np.abs(objects["x"] - nx / 2) < nx / 2 - SIDE) & (np.abs(objects["y"] - ny / 2) < ny / 2 - SIDE)]
    chosen = stars[np.unique([np.abs(stars["mag"] - m).argmin() for m in MAGS])]
    chosen = chosen[np.argsort(chosen["mag"])]
    noise = result.metrics["noise"]
    science = result.data + result.reference  # the science image less its background, but for the match of the PSFs
    planes = [cut(plane, chosen["x"], chosen["y"], SIDE) for plane in (science, result.reference, result.data / noise, result.scorr)]
    figure = Figure(figsize=(2 * len(chosen) * 0.62, 5.2), dpi=80)
    axes = figure.subplots(4, len(chosen))
    for row, (stamps, title) in enumerate(zip(planes, TITLES, strict=True)):
        for column, (stamp, star) in enumerate(zip(stamps, chosen, strict=True)):
            top = 5.0 if row > 1 else max(5 * noise, 0.1 * np.nanmax(planes[1][column]))
            axis = axes[row, column]
            axis.imshow(stamp, origin="lower", cmap="gray", vmin=-top, vmax=top, interpolation="nearest")
            axis.set(xticks=[], yticks=[])
            if row == 0:
                axis.set_title(f"{star['mag']:.1f} mag", fontsize=8)
            if column == 0:
                axis.set_ylabel(title, fontsize=8)
    figure.tight_layout(pad=0.4)
    figure.savefig(path)


if __name__ == "__main__":
    draw(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/difference_stamps.png"), Case("high-lat", 1, True))
