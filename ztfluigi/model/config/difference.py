"""Settings of image differencing and event extraction."""

from __future__ import annotations

from dataclasses import dataclass

from ztfluigi.model.config import knob


@dataclass(frozen=True)
class DifferenceConfig:
    """Matching of science and reference, and ZOGY (paper 3.6)."""

    tile_size: int = knob(440, "side of the tiles over which PSFs and flux ratio are constant", unit="pix", low=48)
    kernel_order: int = knob(4, "order of the Lanczos kernel that maps the reference", choices=(3, 4))
    background_mesh: int = knob(128, "cell of the differential background", unit="pix", low=16)
    match_radius_pix: float = knob(2.0, "largest distance of a star in both catalogues", unit="pix", low=0.1)
    match_snr: float = knob(20.0, "lowest S/N of matched stars", low=3.0)
    psf_error: float = knob(0.003, "relative error of the PSF models, added to the noise of the score under static sources", low=0.0)
    min_depth: float = knob(0.2, "reference pixels of fewer inputs than this share of the median, or than three, are not used: nothing was "
                             "trimmed there", low=0.0)
    masked_error: float = knob(1.0, "relative error of the values that replace masked pixels", low=0.0)


@dataclass(frozen=True)
class EventConfig:
    """Extraction of events from the score image."""

    threshold: float = knob(5.0, "lowest absolute score of an event", low=3.0)
    separation_pix: int = knob(2, "an event is the highest score within this many pixels", unit="pix", low=1)
    fit_radius_pix: float = knob(4.5, "radius of the PSF fit", unit="pix", low=2.0)
    max_events: int = knob(5000, "events measured at most, highest score first: so many are the mark of a difference that failed", low=1)
    max_shift_pix: float = knob(1.5, "largest distance of the fitted position from the peak of the score", unit="pix", low=0.5)


@dataclass(frozen=True)
class EventFilterConfig:
    """What an event must satisfy to become a packet (difference-alerts fact sheet, section 5)."""

    min_snr: float = knob(5.0, "lowest S/N of the PSF-fit flux, and of the score once its excess at a peak is allowed for")
    max_nbad: int = knob(0, "most bad pixels in the 5 x 5 stamp", low=0)
    max_nneg: int = knob(11, "most negative pixels in the 5 x 5 stamp", low=0)
    max_elong: float = knob(2.0, "highest elongation", low=1.0)
    max_magdiff: float = knob(1.0, "largest |aperture minus PSF magnitude|", unit="mag", low=0.0)
    min_sumrat: float = knob(0.4, "lowest sumrat")
    max_fwhm: float = knob(12.5, "highest FWHM", unit="pix", low=0.0)
    max_chipsf: float = knob(1.7, "highest reduced chi-square of the PSF fit, to which the square of S/N / 20 is added: above it lie residuals of "
                             "bright stars and cosmic rays", low=1.0)
    max_events: int = knob(2000, "events packetised per quadrant at most, highest score first", low=1)
