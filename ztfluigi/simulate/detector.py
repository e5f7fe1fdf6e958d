"""The detector: pixel response, bias structure, defects, full well, non-linearity, overscan, digitisation."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ztfluigi.model.camera import Amplifier, Camera
from ztfluigi.simulate import kernels
from ztfluigi.simulate.seeds import generator

ADC_MAX = 65535
TRAILING_COLUMNS = 6
"""First overscan columns, which carry trailing charge."""


@dataclass(frozen=True)
class Detector:
    """What is true of one quadrant's silicon and amplifier, whatever the night.

    response : float32 (ny, nx), relative sensitivity with vignetting, mean 1; 0 where dead. bias : float32 (ny, nx) [DN], the structure
    above the overscan level. well : float32 (ny, nx) [electron], full well; it reads at 1.004 to 1.02 of the camera's saturation.
    dark : float32 (ny, nx) [electron/s], with hot pixels. noisy, dead : bool (ny, nx).
    """

    amplifier: Amplifier
    response: np.ndarray
    bias: np.ndarray
    well: np.ndarray
    dark: np.ndarray
    noisy: np.ndarray
    dead: np.ndarray
    level_dn: float

    @property
    def shape(self) -> tuple[int, int]:
        return self.response.shape


def make_detector(camera: Camera, ccdid: int, qid: int, seed: int) -> Detector:
    """The detector of one quadrant; the last few are kept."""
    return _make_detector(camera.amplifier(ccdid, qid), camera.shape, camera.pixel_scale_arcsec, camera.dark_electron_per_s,
                          camera.saturation_dn, camera.bias_level_dn, seed)


@lru_cache(maxsize=4)
def _make_detector(amplifier: Amplifier, shape: tuple[int, int], pixel_scale_arcsec: float, dark_electron_per_s: float,
                   saturation_dn: float, bias_level_dn: float, seed: int) -> Detector:
    rng = generator(seed, "detector", amplifier.ccdid, amplifier.qid)
    ny, nx = shape
    u, v = np.linspace(-1, 1, nx, dtype=np.float32)[None, :], np.linspace(-1, 1, ny, dtype=np.float32)[:, None]
    response = 1.0 + 0.010 * rng.standard_normal((ny, nx), dtype=np.float32)
    for _ in range(6):  # the coating's waves and the illumination
        k = rng.uniform(0.5, 3.0, 2)
        phase = (np.pi * k[0] * u + np.pi * k[1] * v + rng.uniform(0, 2 * np.pi)).astype(np.float32)
        response += np.float32(0.010 * rng.normal()) * np.cos(phase)
    east, north = amplifier.offset_deg
    half = 0.5 * pixel_scale_arcsec / 3600.0
    radius2 = (east - u * nx * half) ** 2 + (north - v * ny * half) ** 2
    response *= 1.0 - np.float32(0.015) * (radius2 / np.float32(9.0)) ** 2  # vignetting: a tenth in the corner of the focal plane
    response /= response.mean(dtype=float)
    dead = np.zeros((ny, nx), bool)
    _some_pixels(rng, dead, 2e-5)
    for column in rng.integers(0, nx, max(1, nx // 1500)):
        dead[rng.integers(0, ny):, column] = True
    response[dead] = 0.0
    low = np.zeros((ny, nx), bool)
    _some_pixels(rng, low, 3e-5)
    response[low] *= 0.6
    noisy, hot = np.zeros((ny, nx), bool), np.zeros((ny, nx), bool)
    _some_pixels(rng, noisy, 3e-5)
    _some_pixels(rng, hot, 3e-5)
    dark = np.full((ny, nx), dark_electron_per_s, np.float32)
    dark[hot] = rng.uniform(30.0, 1500.0, int(hot.sum()))
    columns = rng.normal(0.0, 0.8, nx).astype(np.float32)
    corner = (1.5 * np.exp(-(1.0 + u) * 8.0) + 1.0 * np.exp(-(1.0 + v) * 20.0)).astype(np.float32)
    bias = columns[None, :] + corner + np.float32(0.3) * rng.standard_normal((ny, nx), dtype=np.float32)
    bias[hot] += rng.uniform(20.0, 400.0, int(hot.sum())).astype(np.float32)
    full = linear_dn(saturation_dn, amplifier) * amplifier.gain
    grain = np.clip(rng.standard_normal((ny, nx), dtype=np.float32), -3, 3)
    well = full * (1.012 + 0.004 * np.cos(np.pi * u) * np.cos(np.pi * v) + 0.0012 * grain)
    return Detector(amplifier, response, bias, well.astype(np.float32), dark, noisy, dead, bias_level_dn + rng.normal(0.0, 5.0))


def _some_pixels(rng, mask: np.ndarray, fraction: float) -> None:
    n = max(3, int(fraction * mask.size))
    mask[rng.integers(0, mask.shape[0], n), rng.integers(0, mask.shape[1], n)] = True


def linear_dn(measured, amplifier: Amplifier):
    """True DN of a measured one (fact sheet camera.md, Non-linearity)."""
    a, b = amplifier.nonlinearity
    return measured / (a * measured**2 + b * measured + 1.0)


def measured_dn(true, amplifier: Amplifier):
    """Inverse of `linear_dn`: the root of a t x^2 + (b t - 1) x + t = 0 that goes to t for small t."""
    a, b = amplifier.nonlinearity
    straight = 1.0 - b * true
    return 2.0 * true / (straight + np.sqrt(straight * straight - 4.0 * a * true * true))


@dataclass(frozen=True)
class Readout:
    """Digitised pixels and what happened in them. raw, overscan : uint16 (ny, nx), (ny, columns). saturated : bool (ny, nx)."""

    raw: np.ndarray
    overscan: np.ndarray
    saturated: np.ndarray


def read_out(detector: Detector, camera: Camera, photons: np.ndarray, exptime: float, rng: np.random.Generator, *,
             cosmic_electrons: np.ndarray | None = None, shot_noise: bool = True) -> Readout:
    """Expose and read.

    photons : float32 (ny, nx), light in DN at mean response; overwritten. Poisson noise is drawn from the normal distribution with its
    skewness (exact below 30 electrons). Full pixels bleed along y. The amplifier's level drifts from row to row and is seen
    in the overscan, whose first columns also carry trailing charge.
    """
    amplifier, (ny, nx) = detector.amplifier, detector.shape
    charge = photons
    charge *= detector.response
    charge *= np.float32(amplifier.gain)
    if exptime > 0:
        charge += detector.dark * np.float32(exptime)
    if shot_noise:
        _poisson(charge, rng)
    if cosmic_electrons is not None:
        charge += cosmic_electrons
    saturated = kernels.bleed(charge, detector.well) if charge.max() > detector.well.min() else np.zeros((ny, nx), bool)
    last = charge[:, -1].copy()
    charge *= np.float32(1.0 / amplifier.gain)
    _measured_in_place(charge, amplifier)
    noise = rng.standard_normal((ny, nx), dtype=np.float32)
    noise *= np.float32(amplifier.read_noise / amplifier.gain)
    noise[detector.noisy] *= 8.0
    charge += noise
    level = _row_level(detector, rng, ny)
    charge += detector.bias
    charge += level[:, None]
    columns = camera.overscan_columns
    overscan = level[:, None] + rng.normal(0.0, amplifier.read_noise / amplifier.gain, (ny, columns))
    trail = (40.0 + 60.0 * np.minimum(last / (amplifier.gain * 300.0), 1.0))[:, None] * np.exp(-np.arange(columns) / 1.3)
    trail[:, TRAILING_COLUMNS:] = 0.0
    return Readout(_digitise(charge), _digitise(overscan + trail), saturated)


def _poisson(charge: np.ndarray, rng: np.random.Generator) -> None:
    np.maximum(charge, 0, out=charge)
    faint = charge < 30.0
    few = rng.poisson(charge[faint]) if faint.any() else None
    for start in range(0, len(charge), 256):  # bands: small temporaries
        band = charge[start:start + 256]
        z = rng.standard_normal(band.shape, dtype=np.float32)
        band += np.sqrt(band) * z + (z * z - 1.0) * np.float32(1.0 / 6.0)
    if few is not None:
        charge[faint] = few


def _measured_in_place(dn: np.ndarray, amplifier: Amplifier) -> None:
    for start in range(0, len(dn), 256):
        band = dn[start:start + 256]
        band[...] = measured_dn(band, amplifier)


def _row_level(detector: Detector, rng: np.random.Generator, ny: int) -> np.ndarray:
    """Level of the amplifier at each row [DN]: an offset of the exposure, a settling at the start, a slow drift."""
    rows = np.arange(ny)
    drift = np.cumsum(rng.normal(0.0, 0.02, ny))
    level = detector.level_dn + rng.normal(0.0, 1.5) + rng.normal(1.5, 0.3) * np.exp(-rows / 150.0) + rng.normal(0.0, 1.0) * rows / ny
    return (level + drift).astype(np.float32)


def _digitise(dn: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(dn), 0, ADC_MAX).astype(np.uint16)


def lamp_pattern(camera: Camera, led: int, shape: tuple[int, int]) -> np.ndarray:
    """Illumination of the flat screen by one LED, float32 (ny, nx), mean 1: a weak gradient; those of a filter's LEDs average out."""
    leds = next(f.leds for f in camera.filters if led in f.leds)
    turn = 2.0 * np.pi * leds.index(led) / len(leds)
    u, v = np.linspace(-1, 1, shape[1])[None, :], np.linspace(-1, 1, shape[0])[:, None]
    return (1.0 + 0.003 * (np.cos(turn) * u + np.sin(turn) * v)).astype(np.float32)
