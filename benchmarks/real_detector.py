"""Real bias frames (WHT/ISIS, `images-isis-bias`) through our overscan correction and stack, against their own headers."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from benchmarks.meter import figure
from targets.codecs import fits
from targets.codecs import image as image_codec
from ztfluigi.algorithms.masters import make_bias
from ztfluigi.algorithms.overscan import MAD_SIGMA, subtract_overscan
from ztfluigi.model.config.detector import MasterConfig

FOLDER = "images-isis-bias"
EDGE = 50
"""Pixels left out along each edge of the frames."""


def measure(data: Path) -> None:
    """Read noise [electron] over the header's nominal one: of the overscan pixels, and of pixels over differences of two frames; the largest
    median of a corrected frame's difference from the others [DN], with the floating bias it had; and of the stack of all frames
    the noise of a pixel over the expected one."""
    frames, overscans, headers = zip(*(_read(path) for path in sorted((data / FOLDER).glob("*.fits.fz"))), strict=True)
    gain, nominal = (float(headers[0][key]) for key in ("GAIN", "READNOIS"))
    results = [subtract_overscan(frame, overscan) for frame, overscan in zip(frames, overscans, strict=True)]
    inner = np.s_[EDGE:-EDGE, EDGE:-EDGE]
    noise = np.median([result.metrics["read_noise_dn"] for result in results]) * gain
    figure("real.bias_overscan_noise", noise / nominal, "ratio", len(results), None)
    pairs = [first.data[inner] - second.data[inner] for first, second in zip(results, results[1:], strict=False)]
    noise = np.median([_spread(pair) for pair in pairs]) / np.sqrt(2.0) * gain
    figure("real.bias_pixel_noise", noise / nominal, "ratio", len(pairs), None)
    drift = np.ptp([result.metrics["overscan_level"] for result in results])
    figure("real.bias_level_drift", drift, "DN", len(results), None)
    figure("real.bias_level_left", np.max(np.abs([np.mean(np.clip(pair, -20, 20)) for pair in pairs])), "DN", len(pairs), None)
    master = make_bias(lambda i, y0, y1: results[i].data[y0:y1], len(results), results[0].data.shape,
                       config=MasterConfig(minimum_frames=len(results)))
    left = [_spread(result.data[inner] - master.image[inner]) for result in results]
    expected = noise / gain * np.sqrt(1.0 - 1.0 / len(results))
    figure("real.bias_stack_noise", np.median(left) / expected, "ratio", len(results), None)


def _read(path: Path) -> tuple[np.ndarray, np.ndarray, dict]:
    """(pixels, overscan, header), rows along the columns of the file: its overscan lies beyond the last rows."""
    pixels, own = image_codec.read_image(path)
    header = {**fits.read_header(path), **own}
    return _section(pixels, header["TRIMSEC"]).T, _section(pixels, header["BIASSEC"]).T, header


def _section(pixels: np.ndarray, section: str) -> np.ndarray:
    x0, x1, y0, y1 = (int(number) for number in re.findall(r"\d+", section))
    return pixels[y0 - 1:y1, x0 - 1:x1]


def _spread(values: np.ndarray) -> float:
    """Standard deviation within five robust sigmas: the robust one itself moves in steps of whole DN."""
    away = np.abs(values - np.median(values))
    return float(np.std(values[away < 5.0 * MAD_SIGMA * np.median(away)]))
