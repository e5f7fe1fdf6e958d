"""Settings of PSF building, PSF photometry and aperture photometry."""

from __future__ import annotations

from dataclasses import dataclass

from ztfluigi.model.config import knob


@dataclass(frozen=True)
class PsfConfig:
    """How the effective PSF of a quadrant is built."""

    min_snr: float = knob(40.0, "signal-to-noise of the faintest star used while enough brighter ones are missing", low=5.0)
    max_stars: int = knob(600, "stars used at most, spread evenly over the quadrant", low=10)
    min_stars: int = knob(5, "fewest stars that make a PSF", low=3)
    degree: int = knob(3, "highest order of the position polynomial; fewer stars lower it", low=0, high=3)
    half_size: int = knob(13, "half width of the table", unit="pix", low=8, high=25)
    iterations: int = knob(7, "rounds of centring, clipping and table update", low=2, high=30)
    clip: float = knob(3.0, "stars farther than this many robust sigmas from the stellar locus are dropped", low=2.0)
    core_error: float = knob(0.02, "relative error of the table tolerated when pixels are clipped", low=0.0)


@dataclass(frozen=True)
class PsfPhotometryConfig:
    """How the PSF-fit catalogue is made."""

    fit_radius_fwhm: float = knob(2.0, "radius of the fitted pixels in FWHM of the effective PSF", low=1.0, high=5.0)
    first_sweeps: int = knob(4, "sweeps over all sources in the first pass", low=1)
    second_sweeps: int = knob(4, "sweeps in the second pass, after new sources were added", low=1)
    detect_snr: float = knob(4.5, "matched-filter signal-to-noise of sources added from the residual image", low=3.0)
    min_snr: float = knob(4.0, "sources fitted below this signal-to-noise are dropped", low=0.0)
    psf_error: float = knob(0.005, "relative error of the PSF model, added to the pixel noise of the fit", low=0.0, high=0.1)
    residual_error: float = knob(0.03, "relative error of what was subtracted, when new sources are sought", low=0.0, high=1.0)
    sky_mesh: int = knob(64, "mesh of the residual sky removed after the first pass; 0 switches it off", unit="pix", low=0)


@dataclass(frozen=True)
class ApertureConfig:
    """How the aperture catalogue is made."""

    threshold: float = knob(1.5, "detection threshold in units of the background rms", low=0.5)
    min_area: int = knob(5, "fewest connected pixels", unit="pix", low=1)
    deblend_levels: int = knob(32, "deblending levels", low=1)
    deblend_contrast: float = knob(0.005, "least flux fraction of a deblended branch", low=0.0, high=1.0)
    kron_factor: float = knob(2.5, "Kron radius multiple of MAG_AUTO", low=0.5)
    kron_min_radius: float = knob(3.5, "smallest Kron radius times its factor", unit="pix", low=0.0)
    petrosian_factor: float = knob(2.0, "Petrosian radius multiple of MAG_PETRO", low=0.5)
