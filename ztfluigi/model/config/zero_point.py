"""Section `[zero_point]`: photometric calibration against Pan-STARRS (paper 3.5.2)."""

from __future__ import annotations

from dataclasses import dataclass

from ztfluigi.model.config import knob


@dataclass(frozen=True)
class ZeroPointConfig:
    """Settings of `ztfluigi.algorithms.photometric_calibration`."""

    match_radius_arcsec: float = knob(1.5, "largest separation of a star and its calibrator", unit="arcsec", low=0.1, high=10.0)
    isolation_arcsec: float = knob(5.0, "calibrators with a neighbour nearer than this are left out", unit="arcsec", low=0.0, high=60.0)
    bright_limit: float = knob(14.0, "brightest calibrator used, in the filter", unit="mag", low=8.0, high=25.0)
    min_expected_snr: float = knob(25.0, "calibrators as faint as this instrumental signal-to-noise are used", low=3.0, high=1000.0)
    max_catalogue_error: float = knob(0.05, "largest PS1 error in either band of the colour", unit="mag", low=0.001, high=1.0)
    min_sgscore: float = knob(0.6, "smallest star-galaxy score of a calibrator (1 is a star)", low=0.0, high=1.0)
    edge_pix: float = knob(15.0, "nearest distance to the image edge", unit="pix", low=0.0, high=1000.0)
    clip_sigma: float = knob(3.5, "residuals beyond this are left out of the fit", unit="sigma", low=2.0, high=20.0)
    min_matches: int = knob(5, "fewest calibrators of a fit", low=3, high=1000)
