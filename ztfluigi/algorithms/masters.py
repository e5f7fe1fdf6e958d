"""Bias and flat masters with their pixel masks (paper 3.4.1, 3.4.2), and the comparison with the master before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numba import njit

from ztfluigi.algorithms.background import cell_levels, expand_cells
from ztfluigi.algorithms.overscan import MAD_SIGMA
from ztfluigi.algorithms.stack import RowReader, Stack, clipped_stack
from ztfluigi.model.config.detector import MasterConfig, StackConfig
from ztfluigi.model.errors import BadInput, NoWork, Unusable
from ztfluigi.model.maskbits import UNUSABLE, Mask

#: Every how-many-th pixel robust image statistics look at.
STRIDE = 7


@dataclass
class Master:
    """stack : the five products. image : float32 (ny, nx), finite everywhere: bias [DN] or flat [relative to 1].

    mask : uint16 (ny, nx), bits this master found. metrics : scalars.
    """

    stack: Stack
    image: np.ndarray
    mask: np.ndarray
    metrics: dict = field(default_factory=dict)


def make_bias(read_rows: RowReader, n: int, shape: tuple[int, int], *, config: MasterConfig = MasterConfig(),
              stack_config: StackConfig = StackConfig()) -> Master:
    """Stack n overscan-corrected bias frames [DN] and find noisy pixels.

    NOISY: the deviation before trimming exceeds `noisy_bias` times its surroundings', unless a single stray sample (a radiation
    hit) explains it; also a hot pixel, `hot_bias_dn` above its surroundings, whose charge an exposure multiplies.
    NAN: no finite sample; such pixels hold the surrounding level.

    Metrics: `frames`, `level` [DN] median, `scatter` [DN] robust scatter over pixels, `read_noise_dn` median deviation of one frame
    after trimming, `noisy_fraction`, `trimmed_fraction` of all samples.

    Raises
    ------
    NoWork : n is below `minimum_frames`. Unusable : no pixel has a finite sample. BadInput : as `clipped_stack`.
    """
    _require_frames(n, config.minimum_frames, "bias")
    stack = clipped_stack(read_rows, n, shape, config=stack_config)
    missing = _missing(stack, "bias")
    image = _filled(stack.mean, missing, config.mesh)
    mask = np.where(missing, np.uint16(Mask.NAN), np.uint16(0))
    hot = image - expand_cells(cell_levels(image, missing, config.mesh), shape) > config.hot_bias_dn
    mask[hot | _noisy(stack, n, missing, config.noisy_bias, config.mesh)] |= np.uint16(Mask.NOISY)
    return Master(stack, image, mask, {**_summary(image, stack, mask, n), "read_noise_dn": _median(stack.std_clipped)})


def make_flat(read_rows: RowReader, n: int, shape: tuple[int, int], *, bias: np.ndarray, mask: np.ndarray,
              nonlinearity: tuple[float, float], config: MasterConfig = MasterConfig(),
              stack_config: StackConfig = StackConfig()) -> Master:
    """High-frequency flat of n overscan-corrected exposures of the illuminated screen.

    Each frame is linearised, loses the bias and is divided by its clipped mean over unmasked pixels; the stack is divided by its own.
    Every frame is read twice. A frame whose mean is not positive is left out.

    Parameters
    ----------
    read_rows : frames [DN], non-finite samples are left out. bias : float32 (ny, nx) [DN].
    mask : uint16 (ny, nx), prior and bias masks; pixels with an UNUSABLE bit do not enter the means.
    nonlinearity : (A, B) of DN_true = x / (A x^2 + B x + 1).

    Returns
    -------
    New bits only: NOISY as for the bias, LOW_RESPONSE, HIGH_RESPONSE and DEAD by the ratio to the surrounding median. A DEAD pixel
    is 1 in the image ("no correction"). Metrics as for the bias, and `lamp_level` [DN] the median of the frames' means, `lamp_drift` their
    relative range, `dead_fraction`, `response_fraction` (low or high), `gradient` relative range over the quadrant.

    Raises
    ------
    NoWork : fewer usable frames than `minimum_frames`. Unusable : no usable pixel. BadInput : shapes differ.
    """
    if bias.shape != tuple(shape) or mask.shape != tuple(shape):
        raise BadInput(f"bias {bias.shape} and mask {mask.shape} must have the frames' shape {tuple(shape)}")
    _require_frames(n, config.minimum_frames, "flat")
    good = (mask & UNUSABLE) == 0
    if not good.any():
        raise Unusable("flat: every pixel is masked before the stack", pixels=mask.size)

    a, b = (np.float32(value) for value in nonlinearity)

    def corrected(i: int, y0: int, y1: int, scale: float) -> np.ndarray:
        return _corrected(np.ascontiguousarray(read_rows(i, y0, y1), np.float32), bias[y0:y1], a, b, np.float32(scale))

    levels = np.array([clipped_mean(corrected(i, 0, shape[0], 1.0), good, config.clip_sigma) for i in range(n)])
    lit = np.flatnonzero(levels > 0)
    _require_frames(len(lit), config.minimum_frames, "lit flat")

    def normalised(i: int, y0: int, y1: int) -> np.ndarray:
        return corrected(lit[i], y0, y1, 1.0 / levels[lit[i]])

    stack = clipped_stack(normalised, len(lit), shape, config=stack_config)
    missing = _missing(stack, "flat")
    unit = np.float32(clipped_mean(stack.mean, good & ~missing, config.clip_sigma))
    for product in (stack.mean, stack.std_clipped, stack.std_raw, stack.uncertainty):
        product /= unit

    cells = cell_levels(stack.mean, missing | ~good, config.mesh)
    ratio = stack.mean / expand_cells(cells, shape)
    dead = missing | ~(ratio > config.dead)
    found = np.zeros(shape, np.uint16)
    found[dead] = np.uint16(Mask.DEAD)
    found[~dead & (ratio < config.low_response)] |= np.uint16(Mask.LOW_RESPONSE)
    found[~dead & (ratio > config.high_response)] |= np.uint16(Mask.HIGH_RESPONSE)
    found[_noisy(stack, len(lit), dead, config.noisy_flat, config.mesh)] |= np.uint16(Mask.NOISY)
    image = np.where(dead, np.float32(1.0), stack.mean)
    response = int(Mask.LOW_RESPONSE | Mask.HIGH_RESPONSE)
    metrics = {**_summary(image, stack, found, len(lit)), "lamp_level": float(np.median(levels[lit])),
               "lamp_drift": float(np.ptp(levels[lit]) / np.median(levels[lit])), "dead_fraction": float(dead.mean()),
               "response_fraction": float(np.mean((found & response) != 0)), "gradient": float(np.ptp(cells) / np.median(cells))}
    return Master(stack, image, found, metrics)


def led_mix(leds: Sequence[int | None], expected: Sequence[int], needed: int) -> tuple[np.ndarray, dict[str, int]]:
    """Which frames mix the lamps of a filter equally: all when their numbers differ by one at most, else as many of each as of the rarest.

    leds : of each frame, None when its header does not say. expected : those of the filter. All frames stay when an equal mix would leave
    fewer than `needed`. Returns their indices, ascending, and the numbers: `leds` in use, `led_frames_dropped`, `led_mix_off` (1 when the
    mix is not an equal one of the expected lamps).
    """
    places = [[i for i, used in enumerate(leds) if used == led] for led in expected]
    counts = [len(place) for place in places]
    fewest = min(counts, default=0)
    most = fewest + 1 if max(counts, default=0) <= fewest + 1 else fewest
    even = np.array(sorted(i for place in places for i in place[:most]), int)
    if fewest and len(even) >= needed:
        return even, {"leds": len(expected), "led_frames_dropped": len(leds) - len(even), "led_mix_off": 0}
    return np.arange(len(leds)), {"leds": len({led for led in leds if led is not None}), "led_frames_dropped": 0, "led_mix_off": 1}


def compare(image: np.ndarray, previous: np.ndarray) -> dict[str, float]:
    """How a master differs from the accepted one before it, in the image's unit; non-finite pixels are ignored.

    `shift` median difference, `shift_scatter` robust scatter of the difference about it, `shift_gradient` range over the quadrant of a
    plane fitted to the difference (nightly changes of up to 2.5 % occur in flats, paper 3.4.2).

    Raises
    ------
    BadInput : shapes differ. Unusable : no common finite pixel.
    """
    if image.shape != previous.shape:
        raise BadInput(f"master of shape {image.shape} cannot be compared with its predecessor of shape {previous.shape}")
    difference = image - previous
    bad = ~np.isfinite(difference)
    if bad.all():
        raise Unusable("masters have no common finite pixel", pixels=image.size)
    sample = difference[~bad][::STRIDE]
    shift = float(np.median(sample))
    cells = cell_levels(difference, bad, 64)
    v, u = ((np.arange(size) + 0.5) / size - 0.5 for size in cells.shape)
    design = np.stack([np.ones(cells.size), *(axis.ravel() for axis in np.meshgrid(u, v))], axis=1)
    slope = np.linalg.lstsq(design, cells.ravel().astype(float), rcond=None)[0][1:]
    scatter = MAD_SIGMA * np.median(np.abs(sample - shift))
    return {"shift": shift, "shift_scatter": float(scatter), "shift_gradient": float(np.abs(slope).sum())}


def clipped_mean(image: np.ndarray, good: np.ndarray, clip: float) -> float:
    """Mean of the good finite pixels within `clip` robust sigmas of their median; NaN without any. Sums in double precision."""
    sample = image[::STRIDE][good[::STRIDE]][::STRIDE]
    sample = sample[np.isfinite(sample)]
    if not len(sample):
        sample = image[good & np.isfinite(image)]
    if not len(sample):
        return float("nan")
    centre = np.median(sample)
    reach = clip * MAD_SIGMA * np.median(np.abs(sample - centre))
    return _mean_between(image, good, np.float32(centre - reach), np.float32(centre + reach))


@njit(cache=True, nogil=True)
def _mean_between(image, good, low, high):
    total, count = 0.0, 0
    for y in range(image.shape[0]):
        row = np.float32(0.0)
        for x in range(image.shape[1]):
            if good[y, x] and low <= image[y, x] <= high:
                row += image[y, x] - low
                count += 1
        total += row
    return low + total / count if count else np.nan


@njit(cache=True, nogil=True, error_model="numpy")
def _corrected(rows, bias, a, b, scale):
    """(linear DN minus bias) times `scale`; as `detector.linearise`."""
    out = np.empty(rows.shape, np.float32)
    one = np.float32(1.0)
    for y in range(rows.shape[0]):
        for x in range(rows.shape[1]):
            value = rows[y, x]
            out[y, x] = (value / ((a * value + b) * value + one) - bias[y, x]) * scale
    return out


def _require_frames(n: int, needed: int, kind: str) -> None:
    if n < needed:
        raise NoWork(f"{n} {kind} frames, {needed} are needed", frames=n, needed=needed)


def _missing(stack: Stack, kind: str) -> np.ndarray:
    missing = stack.depth == 0
    if missing.all():
        raise Unusable(f"{kind}: no pixel has a finite sample", pixels=missing.size)
    return missing


def _filled(image: np.ndarray, missing: np.ndarray, mesh: int) -> np.ndarray:
    if not missing.any():
        return image
    return np.where(missing, expand_cells(cell_levels(image, missing, mesh), image.shape), image)


def _noisy(stack: Stack, n: int, ignore: np.ndarray, factor: float, mesh: int) -> np.ndarray:
    """Pixels whose deviation before trimming stands out; one trimmed sample with a quiet rest is a passing hit, not the pixel."""
    loud = stack.std_raw > factor * expand_cells(cell_levels(stack.std_raw, ignore, mesh), stack.std_raw.shape)
    quiet = stack.std_clipped < factor * expand_cells(cell_levels(stack.std_clipped, ignore, mesh), stack.std_clipped.shape)
    return loud & ~(quiet & (stack.depth >= n - 1)) & ~ignore


def _median(image: np.ndarray) -> float:
    return float(np.nanmedian(image.ravel()[::STRIDE]))


def _summary(image: np.ndarray, stack: Stack, mask: np.ndarray, n: int) -> dict:
    level = _median(image)
    return {"frames": n, "level": level, "scatter": float(MAD_SIGMA * _median(np.abs(image - level))),
            "noisy_fraction": float(np.mean((mask & np.uint16(Mask.NOISY)) != 0)),
            "trimmed_fraction": float(1.0 - stack.depth.sum(dtype=np.int64) / (n * stack.depth.size))}
