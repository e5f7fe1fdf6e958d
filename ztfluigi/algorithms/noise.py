"""Pixel noise of a calibrated image, from its counts."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import uniform_filter


def pixel_sigma(data: np.ndarray, gain: float, read_noise: float) -> np.ndarray:
    """1-sigma of every pixel [DN], float32 (ny, nx): photons of the expected counts plus read noise.

    The expectation is the 3 x 3 mean, so that a pixel's own fluctuation does not set its weight (which would bias weighted fluxes low);
    where a pixel stands 5 sigma above that mean it is a source's core and counts itself. gain [electron/DN], read_noise [electron].
    NaN pixels give NaN around them.
    """
    floor = (read_noise / gain) ** 2
    expected = np.maximum(uniform_filter(data, 3, mode="nearest"), 0.0)
    variance = expected / gain + floor
    core = data - expected > 5.0 * np.sqrt(variance)
    variance[core] = data[core] / gain + floor
    return np.sqrt(variance, dtype=np.float32)
