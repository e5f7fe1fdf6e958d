"""Settings of the detector steps: overscan, stacking, masters, instrumental calibration, background, artefact masks."""

from __future__ import annotations

from dataclasses import dataclass

from ztfluigi.model.config import knob


@dataclass(frozen=True)
class OverscanConfig:
    """Floating-bias correction (paper 3.3)."""

    skip_columns: int = knob(8, "first overscan columns left out: they carry trailing charge", unit="pix", low=0)
    order: int = knob(2, "order of the polynomial in the row", low=0, high=6)
    clip_sigma: float = knob(4.0, "pixels and rows farther than this from the rest are left out", unit="sigma", low=2.0)


@dataclass(frozen=True)
class StackConfig:
    """Per-pixel trimmed average of calibration frames (paper 3.4.1)."""

    clip_sigma: float = knob(3.5, "samples farther than this from the median are trimmed", unit="sigma", low=1.0)
    band_mib: int = knob(64, "memory for one band of rows of all frames", unit="MiB", critical=False, low=1)


@dataclass(frozen=True)
class MasterConfig:
    """Bias and flat masters and their masks (paper 3.4)."""

    minimum_frames: int = knob(20, "fewest frames of a master", low=2)
    noisy_bias: float = knob(1.8, "NOISY where a bias pixel's standard deviation exceeds its surroundings' by this factor", low=1.0)
    noisy_flat: float = knob(2.0, "NOISY where a flat pixel's standard deviation exceeds its surroundings' by this factor", low=1.0)
    hot_bias_dn: float = knob(10.0, "NOISY where the bias exceeds its surroundings by this: a hot pixel", unit="DN", low=0.0)
    low_response: float = knob(0.8, "LOW_RESPONSE below this, relative to the surroundings", low=0.0, high=1.0)
    high_response: float = knob(1.2, "HIGH_RESPONSE above this, relative to the surroundings", low=1.0)
    dead: float = knob(0.1, "DEAD below this, relative to the surroundings", low=0.0, high=1.0)
    clip_sigma: float = knob(4.0, "pixels farther than this from a frame's mean are left out of it", unit="sigma", low=2.0)
    mesh: int = knob(64, "cell over which 'the surroundings' are a median", unit="pix", low=8)


@dataclass(frozen=True)
class LowFlatConfig:
    """Low-frequency flat from photometric residuals (paper 3.4.2)."""

    minimum_frames: int = knob(20, "fewest exposures", low=3)
    maximum_frames: int = knob(200, "exposures used at most, the newest first", low=3)
    max_magzprms: float = knob(0.1, "highest RMS of an exposure's photometric residuals", unit="mag", low=0.0)
    cells: int = knob(12, "cells along each side in which residuals are averaged", low=4, high=64)
    cell_stars: int = knob(5, "fewest stars of a cell", low=1)
    order: int = knob(4, "total order of the polynomial through the cells", low=1, high=8)
    clip_sigma: float = knob(3.5, "stars farther than this from the map are left out", unit="sigma", low=2.0)


@dataclass(frozen=True)
class DetectorConfig:
    """Instrumental calibration of an exposure (paper 3.5)."""

    saturation_fraction: float = knob(0.98, "fraction of the amplifier's saturation level from which a pixel is saturated", low=0.1, high=1.0)
    sky_mesh: int = knob(64, "cell of the sky level in the noise model", unit="pix", low=8)
    minimum_usable: float = knob(0.02, "least fraction of usable pixels; below it the image is refused", low=0.0, high=1.0)


@dataclass(frozen=True)
class BackgroundConfig:
    """Smooth sky of a calibrated image."""

    mesh: int = knob(0, "cell side; 0 chooses 128 for quadrants of 2048 pixels or more and 64 below", unit="pix", low=0)
    filter_size: int = knob(3, "side of the median filter over cells", low=1, high=15)


@dataclass(frozen=True)
class ArtifactConfig:
    """Masks of what is not sky: bleeding, radiation hits, tracks, ghosts and halos (paper 3.5)."""

    bleed_sigma: float = knob(10.0, "a bleed is followed along its column while it exceeds its neighbours by this", unit="sigma", low=1.0)
    hit_sigma: float = knob(3.25, "significance by which a pixel is sharper than any star", unit="sigma", low=2.0)
    hit_fwhm_margin: float = knob(0.88, "the sharpest star possible has this times the measured FWHM", low=0.3, high=1.0)
    track_sigma: float = knob(6.0, "significance of a candidate line on the binned image", unit="sigma", low=3.0)
    track_length: int = knob(150, "shortest track masked", unit="pix", low=20)
    max_tracks: int = knob(8, "tracks masked at most", low=0)
    halo_radius_pix: float = knob(90.0, "radius of a halo at the magnitude limit; it doubles every 2.5 mag brighter", unit="pix", low=0.0)
    halo_magnitude: float = knob(6.5, "faintest star with a halo mask", unit="mag")
    ghost_sigma: float = knob(0.25, "a reflection is masked from this brightness on, relative to the noise of the sky", unit="sigma", low=0.0)
