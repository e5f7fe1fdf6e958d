"""Instrumental calibration of a quadrant: non-linearity, bias, flat, pixel uncertainties (paper 3.5)."""

from __future__ import annotations

import numpy as np
from numba import njit

from ztfluigi.algorithms.background import cell_levels, cell_line, cell_weights, expand_cells
from ztfluigi.model.config.detector import DetectorConfig
from ztfluigi.model.errors import BadInput, Unusable
from ztfluigi.model.images import Calibrated
from ztfluigi.model.maskbits import UNUSABLE, Mask

#: Every how-many-th pixel image statistics look at.
STRIDE = 5
#: INFOBITS of a refused image: saturated pixels.
SATURATED_INFOBIT = 1 << 2
SATURATED, DEAD, NAN = int(Mask.SATURATED), int(Mask.DEAD), int(Mask.NAN)


def linearise(data: np.ndarray, a: float, b: float) -> np.ndarray:
    """True DN of measured DN above the overscan level, x / (a x^2 + b x + 1) (ZTF fact sheet, camera.md). float32; NaN stays NaN."""
    x = np.asarray(data, np.float32)
    return x / ((np.float32(a) * x + np.float32(b)) * x + np.float32(1.0))


def calibrate(image: np.ndarray, *, bias: np.ndarray, flat: np.ndarray, mask: np.ndarray, gain: float, read_noise: float,
              nonlinearity: tuple[float, float], saturation_dn: float, low_flat: np.ndarray | None = None,
              config: DetectorConfig = DetectorConfig()) -> Calibrated:
    """Linear, bias-free, flat image with its uncertainty and mask.

    Parameters
    ----------
    image : float32 (ny, nx) [DN above the overscan level]; non-finite pixels get the NAN bit.
    bias : float32 (ny, nx) [DN]. flat, low_flat : float32 (ny, nx) [relative to 1]; not finite or not positive: NAN bit.
    mask : uint16 (ny, nx), bits of the pixel, bias and flat masks; all are kept.
    gain [electron/DN], read_noise [electron], nonlinearity (A, B), saturation_dn [measured DN]: of the amplifier.

    Returns
    -------
    Calibrated, `wcs` None. `data` is finite: NAN and DEAD pixels hold the mean of the nearest usable pixels, or the sky.
    SATURATED where the measured DN reaches `saturation_fraction` of the amplifier's level; `saturate` is that level, calibrated.

    sigma^2 = (N / gain + (read_noise / gain)^2) / flat^2, N the counts *expected*, so that weights 1 / sigma^2 do not follow the
    pixel's own noise (the mean they give would be low by 1 / gain): N is the local sky, plus the pixel's own excess where that
    exceeds 5 sigma, else plus the mean excess of its 3 x 3 box where that exceeds 1 sigma. No sky pixel sees its own noise.

    Metrics: `median_dn`, `sigma_dn` (median uncertainty), `pixel_noise_dn` (robust scatter about the local sky), `saturated_percent`,
    `bad_percent` (any UNUSABLE bit), `nan_pixels`.

    Raises
    ------
    BadInput : shapes differ. Unusable : fewer than `minimum_usable` of the pixels are usable (INFOBITS 2 when saturated).
    """
    flats = [flat] if low_flat is None else [flat, low_flat]
    for name, array in (("bias", bias), ("mask", mask), *(("flat", f) for f in flats)):
        if array.shape != image.shape:
            raise BadInput(f"{name} has shape {array.shape}, expected the image's {image.shape}")
    threshold = config.saturation_fraction * saturation_dn
    response = flat if low_flat is None else flat * low_flat
    data, bits = np.empty(image.shape, np.float32), np.empty(image.shape, np.uint16)
    _correct(np.asarray(image, np.float32), bias, response, mask, np.float32(nonlinearity[0]), np.float32(nonlinearity[1]),
             np.float32(threshold), data, bits)
    bad = (bits & UNUSABLE) != 0
    saturated, unusable = 100.0 * float(np.mean((bits & SATURATED) != 0)), 100.0 * float(bad.mean())
    if 100.0 - unusable < 100.0 * config.minimum_usable:
        raise Unusable(f"{unusable:.1f}% of the pixels are unusable, {saturated:.1f}% saturated",
                       infobits=SATURATED_INFOBIT if saturated > 50.0 else 0, bad_percent=unusable, saturated_percent=saturated)
    cells = cell_levels(data, bad, config.sky_mesh)
    _interpolate(data, bits, bad, cells)
    sigma = np.empty(image.shape, np.float32)
    _uncertainty(data, cells, *cell_weights(cells.shape[0], image.shape[0]), *cell_weights(cells.shape[1], image.shape[1]), response,
                 np.float32(1.0 / gain), np.float32((read_noise / gain) ** 2), sigma)

    sampled = np.s_[::STRIDE, ::STRIDE]
    usable = ~bad[sampled]
    # the spread of the lower half: sources only add light
    residual = (data[sampled] - expand_cells(cells, usable.shape))[usable]
    usual = float(np.median(response[sampled][usable]))
    metrics = {
        "median_dn": float(np.median(data[sampled][usable])), "sigma_dn": float(np.median(sigma[sampled][usable])),
        "pixel_noise_dn": float(np.median(residual) - np.percentile(residual, 15.8655)),
        "saturated_percent": saturated, "bad_percent": unusable, "nan_pixels": int(np.count_nonzero(bits & NAN)),
    }
    full = float(linearise(threshold, *nonlinearity) - np.median(bias[sampled])) / usual
    return Calibrated(data, sigma, bits, float(gain), float(read_noise), full, None, metrics)


@njit(cache=True, nogil=True, error_model="numpy")
def _correct(image, bias, response, mask, a, b, threshold, data, bits):
    one = np.float32(1.0)
    for y in range(image.shape[0]):
        for x in range(image.shape[1]):
            measured, relative, found = image[y, x], response[y, x], mask[y, x]
            value = (measured / ((a * measured + b) * measured + one) - bias[y, x]) / relative
            if measured >= threshold:
                found |= SATURATED
            if not (np.isfinite(value) and relative > 0):
                found |= NAN
                value = np.float32(np.nan)
            data[y, x], bits[y, x] = value, found


@njit(cache=True, nogil=True)
def _interpolate(data, bits, bad, cells):
    """Give NAN and DEAD pixels the mean of the usable pixels in the smallest box, of up to 7 pixels, that has three; else the sky."""
    ny, nx = data.shape
    for y in range(ny):
        for x in range(nx):
            if not bits[y, x] & (NAN | DEAD):
                continue
            value = cells[y * cells.shape[0] // ny, x * cells.shape[1] // nx]
            for reach in range(1, 4):
                total, count = np.float32(0.0), 0
                for v in range(max(y - reach, 0), min(y + reach + 1, ny)):
                    for u in range(max(x - reach, 0), min(x + reach + 1, nx)):
                        if not bad[v, u]:
                            total += data[v, u]
                            count += 1
                if count >= 3:
                    value = total / count
                    break
            data[y, x] = value


@njit(cache=True, nogil=True)
def _uncertainty(data, cells, row, row_part, column, column_part, response, per_gain, read_variance, sigma):
    """Noise model of `calibrate`; the sky between cell centres and the 3 x 3 sums are made row by row."""
    ny, nx = data.shape
    columns, sky = np.empty(nx + 2, np.float32), np.empty(nx, np.float32)
    zero, one = np.float32(0.0), np.float32(1.0)
    for y in range(ny):
        cell_line(cells, row[y], row_part[y], column, column_part, sky)
        up, down = max(y - 1, 0), min(y + 1, ny - 1)
        for x in range(nx):
            columns[x + 1] = data[up, x] + data[y, x] + data[down, x]
        columns[0], columns[nx + 1] = columns[1], columns[nx]
        for x in range(nx):
            level = max(sky[x], zero)
            relative = response[y, x] if response[y, x] > zero else one
            # counts fell on the detector before the flat was divided out
            variance = level * relative * per_gain + read_variance
            noise = np.sqrt(variance) / relative
            excess = data[y, x] - level
            mean = (columns[x] + columns[x + 1] + columns[x + 2]) / np.float32(9.0) - level
            signal = excess if excess > np.float32(5.0) * noise else (mean if mean > noise else zero)
            sigma[y, x] = np.sqrt(variance + signal * relative * per_gain) / relative
