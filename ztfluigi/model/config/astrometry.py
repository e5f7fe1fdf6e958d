"""Sections `[detection]` and `[astrometry]`: sources found for astrometry and the PSF, and the two-pass solution (paper 3.5.1)."""

from __future__ import annotations

from dataclasses import dataclass

from ztfluigi.model.config import knob


@dataclass(frozen=True)
class DetectionConfig:
    """Settings of `ztfluigi.algorithms.detection`."""

    threshold: float = knob(1.5, "level above the background after the matched filter", unit="RMS", low=0.5, high=100.0)
    min_area: int = knob(4, "smallest number of connected pixels above the threshold", unit="pix", low=1, high=1000)
    deblend_levels: int = knob(16, "number of deblending levels", low=1, high=64)
    deblend_contrast: float = knob(0.005, "smallest flux fraction of a deblended component", low=0.0, high=1.0)
    max_sources: int = knob(10000, "brightest sources kept: more do not improve a solution", low=100)
    centroid_sweeps: int = knob(3, "Gauss-Newton sweeps over all sources, each with its neighbours subtracted", low=1, high=20)
    width_stars: int = knob(200, "brightest clean sources that measure the profile of the image", low=5, high=10000)


@dataclass(frozen=True)
class AstrometryConfig:
    """Settings of `ztfluigi.algorithms.astrometry`."""

    bright_limit: float = knob(12.0, "brightest Gaia G used", unit="mag", low=-2.0, high=25.0)
    faint_limit: float = knob(18.0, "faintest Gaia G used", unit="mag", low=5.0, high=25.0)
    search_radius_arcsec: float = knob(300.0, "largest pointing error searched", unit="arcsec", low=5.0, high=1800.0)
    max_rotation_deg: float = knob(0.6, "largest rotation searched", unit="deg", low=0.0, high=5.0)
    max_scale_change: float = knob(0.012, "largest relative change of the pixel scale searched", low=0.0, high=0.1)
    match_radius_arcsec: float = knob(2.0, "largest separation of a matched pair in the first pass", unit="arcsec", low=0.1, high=10.0)
    min_matches: int = knob(8, "fewest matched stars of a solution", low=5, high=1000)
    distortion_tolerance: float = knob(5e-4, "1-sigma change of TPV terms of order n from the prior", unit="deg^(1-n)", low=0.0, high=1.0)
    clip_sigma: float = knob(4.0, "residuals beyond this are left out of the fit", unit="sigma", low=2.0, high=20.0)
