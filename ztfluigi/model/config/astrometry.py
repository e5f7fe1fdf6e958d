"""Section `[astrometry]`: the two-pass astrometric solution (paper 3.5.1)."""

from __future__ import annotations

from dataclasses import dataclass

from ztfluigi.model.config import knob


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
    distortion_tolerance: float = knob(2e-3, "1-sigma departure of a TPV coefficient of order n from its prior", unit="deg^(1-n)", low=0.0, high=1.0)
    clip_sigma: float = knob(4.0, "residuals beyond this are left out of the fit", unit="sigma", low=2.0, high=20.0)
