"""Section `[detection]`: sources found for the astrometric solution and the PSF."""

from __future__ import annotations

from dataclasses import dataclass

from ztfluigi.model.config import knob


@dataclass(frozen=True)
class DetectionConfig:
    """Settings of `ztfluigi.algorithms.detection`."""

    threshold: float = knob(1.5, "level above the background, in units of its RMS, after the matched filter", unit="sigma", low=0.5, high=100.0)
    min_area: int = knob(4, "smallest number of connected pixels above the threshold", unit="pix", low=1, high=1000)
    deblend_levels: int = knob(32, "number of deblending levels", low=1, high=64)
    deblend_contrast: float = knob(0.005, "smallest flux fraction of a deblended component", low=0.0, high=1.0)
    centroid_sweeps: int = knob(3, "Gauss-Newton sweeps over all sources, each with its neighbours subtracted", low=1, high=20)
    width_stars: int = knob(300, "brightest clean sources that measure the width of the PSF", low=5, high=10000)
