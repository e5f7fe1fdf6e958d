"""Images as the algorithm room sees them. Arrays are indexed [y, x]; pixel centres are zero-based integers.

FITS one-based pixels appear only in catalogue columns that ZTF defines so, and inside codecs.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ztfluigi.model.psf import PsfModel
from ztfluigi.model.wcs import TpvWcs


@dataclass
class Calibrated:
    """A quadrant after instrumental calibration: linear, bias-free, flat, with sky.

    data : float32 (ny, nx) [DN]; finite everywhere (unusable pixels hold an interpolated value and a mask bit).
    sigma : float32 (ny, nx) [DN], 1-sigma uncertainty of `data` from read noise and counts.
    mask : uint16 (ny, nx), `ztfluigi.model.maskbits.Mask`.
    gain : [electron/DN] after flat-fielding (mean level). read_noise : [electron]. saturate : [DN].
    wcs : astrometric solution or, before it, the nominal one.
    metrics : scalars for the registry.
    """

    data: np.ndarray
    sigma: np.ndarray
    mask: np.ndarray
    gain: float
    read_noise: float
    saturate: float
    wcs: TpvWcs | None = None
    metrics: dict = field(default_factory=dict)


@dataclass
class Background:
    """Smooth sky: `level` and `rms` float32 (ny, nx) [DN]; medians of both [DN]."""

    level: np.ndarray
    rms: np.ndarray
    median: float
    median_rms: float


@dataclass
class Coadd:
    """A reference image on its own tangent-plane grid.

    data : float32 (ny, nx) [DN at zero point `magzp`], background removed, NaN where depth is 0.
    sigma : float32 (ny, nx) [DN], per-pixel 1-sigma of the mean.
    depth : int16/float32 (ny, nx), number of inputs used.
    mask : uint16 (ny, nx).
    noise_correlation : factor by which the noise of sums over many pixels exceeds that of independent `sigma` pixels.
    """

    data: np.ndarray
    sigma: np.ndarray
    depth: np.ndarray
    mask: np.ndarray
    wcs: TpvWcs
    magzp: float
    gain: float
    saturate: float
    noise_correlation: float = 1.0
    psf: PsfModel | None = None
    metrics: dict = field(default_factory=dict)
