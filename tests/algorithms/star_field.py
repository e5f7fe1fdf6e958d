"""Seeded star fields with pixel-integrated Gaussian stars, for tests of PSF building and photometry."""

from __future__ import annotations

import numpy as np
from scipy.special import erf

DETECTION = [("x", "f8"), ("y", "f8"), ("flux", "f8"), ("fluxerr", "f8")]
GAIN, READ_NOISE, SKY = 6.0, 9.0, 100.0


def add_gaussian(image, x, y, flux, sigma_x, sigma_y=None):
    """Add one star, integrated over the pixels."""
    sigma_y = sigma_x if sigma_y is None else sigma_y
    half = int(np.ceil(6 * max(sigma_x, sigma_y))) + 1
    cx, cy = int(round(x)), int(round(y))
    rows = np.arange(max(0, cy - half), min(image.shape[0], cy + half + 1))
    cols = np.arange(max(0, cx - half), min(image.shape[1], cx + half + 1))
    profile = [0.5 * (erf((p + 0.5 - c) / np.sqrt(2) / s) - erf((p - 0.5 - c) / np.sqrt(2) / s))
               for p, c, s in ((rows, y, sigma_y), (cols, x, sigma_x))]
    image[rows[0]:rows[-1] + 1, cols[0]:cols[-1] + 1] += flux * np.outer(*profile)


def grid_places(size, step, rng):
    """Places on a jittered grid, at random sub-pixel phase."""
    x, y = np.meshgrid(np.arange(step, size - step / 2, step), np.arange(step, size - step / 2, step))
    return x.ravel() + rng.uniform(-0.5, 0.5, x.size), y.ravel() + rng.uniform(-0.5, 0.5, x.size)


def observe(scene, rng):
    """(data without sky, sigma from the noisy counts, empty mask) of a noiseless scene [DN]."""
    counts = rng.poisson((scene + SKY) * GAIN) / GAIN + rng.normal(0, READ_NOISE / GAIN, scene.shape)
    sigma = np.sqrt(np.maximum(counts, 0) / GAIN + (READ_NOISE / GAIN) ** 2)
    return (counts - SKY).astype(np.float32), sigma.astype(np.float32), np.zeros(scene.shape, np.uint16)


def detections(x, y, flux, rng=None, scatter=0.15):
    """A detection list at (x, y), displaced a little where a generator is given."""
    table = np.zeros(len(x), DETECTION)
    table["x"], table["y"], table["flux"] = x, y, flux
    if rng is not None:
        table["x"] += rng.normal(0, scatter, len(x))
        table["y"] += rng.normal(0, scatter, len(x))
    table["fluxerr"] = np.sqrt(np.abs(flux) / GAIN + 20 * (SKY / GAIN + 2.25))
    return table
