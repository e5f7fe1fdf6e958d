"""Settings of the reference images."""

from __future__ import annotations

from dataclasses import dataclass

from ztfluigi.model.config import knob


@dataclass(frozen=True)
class ReferenceInputsConfig:
    """Which epochs may enter a reference (paper 3.7)."""

    min_inputs: int = knob(15, "epochs needed to build a reference", low=1)
    max_inputs: int = knob(40, "epochs used at most, best FWHM first", low=1)
    seeing: tuple[float, ...] = knob((2.0, 3.5), "lowest and highest FWHM", unit="arcsec", low=0.0)
    max_magzprms: float = knob(0.1, "highest RMS of the photometric residuals", unit="mag", low=0.0)
    max_astrometric_rms: float = knob(0.3, "highest RMS of the astrometric residuals, either axis", unit="arcsec", low=0.0)
    max_extinction: float = knob(0.6, "how far MAGZP may lie below the reference zero point of the filter", unit="mag")
    max_colour_deviation: float = knob(0.1, "how far CLRCOEFF may lie from the median of the epochs", low=0.0)
    min_maglim: tuple[float, ...] = knob((19.5, 19.5, 18.5), "lowest 5-sigma limit in g, r, i", unit="mag")
    max_background: tuple[float, ...] = knob((800.0, 1000.0, 1500.0), "highest median background in g, r, i", unit="DN")


@dataclass(frozen=True)
class ReferenceConfig:
    """How the epochs are added (paper 3.7)."""

    zero_points: tuple[float, ...] = knob((26.325, 26.275, 25.660), "fixed zero points of the co-adds in g, r, i", unit="mag")
    kernel_order: int = knob(3, "order of the Lanczos kernel", choices=(3, 4))
    clip_sigma: float = knob(5.0, "pixels farther from the stack's median than this many percentile sigmas are left out", low=1.0)
    min_clip_depth: int = knob(5, "stacks with fewer pixels are not clipped", low=3)
    band_rows: int = knob(64, "rows combined at a time", critical=False, low=1)
