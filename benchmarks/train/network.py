"""The convolutional network's training: gradients of `real_bogus.Network` by hand, Adam, turned and mirrored stamps."""

from __future__ import annotations

import numpy as np

from ztfluigi.algorithms.real_bogus import BESIDE, CROP, Calibration, Network, patches, pooled, turned

CHANNELS = (6, 16, 16, 32, 32)
SIDE, DENSE = 32, 48
BATCH, RATE, DECAY, DROP = 64, 2e-3, 1e-4, 0.3

WAYS = 8
IDENTITY = Calibration(np.array([-30.0, 30.0]), np.array([-30.0, 30.0]))


def shapes() -> list[tuple[int, int]]:
    """Shapes of the weights, layer by layer."""
    side = ((CROP - 4) // 2 - 4) ** 2 * CHANNELS[-1]
    return [(9 * a, b) for a, b in zip(CHANNELS[:-1], CHANNELS[1:], strict=True)] + [(len(BESIDE), SIDE), (side + SIDE, DENSE), (DENSE, 1)]


def scale(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Median and half the width of the middle 68 % of the features that go beside the stamps."""
    low, middle, high = np.nanpercentile(table[:, BESIDE], (15.865, 50.0, 84.135), axis=0)
    return middle, np.maximum(0.5 * (high - low), 1e-3)


def fit(inputs: np.ndarray, side: np.ndarray, real: np.ndarray, weight: np.ndarray, *, epochs: int,
        seed: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Weights and biases of all layers. inputs : `real_bogus.network_inputs`. side : `real_bogus.beside`. weight : (n,), mean 1; samples
    are drawn in its proportion."""
    rng = np.random.default_rng(seed)
    weights = [(rng.normal(size=shape) * np.sqrt(2.0 / shape[0])).astype(np.float32) for shape in shapes()]
    biases = [np.zeros(shape[1], np.float32) for shape in shapes()]
    parameters = weights + biases
    first, second = ([np.zeros_like(p) for p in parameters] for _ in range(2))
    mean = [p.copy() for p in parameters]
    batches = epochs * (len(inputs) // BATCH)
    chance = weight / weight.sum()
    for step in range(batches):
        chosen = rng.choice(len(inputs), BATCH, p=chance)
        x, target = _laid(inputs[chosen].astype(np.float32), rng), real[chosen].astype(np.float32)
        kept = (rng.random((BATCH, DENSE)) >= DROP).astype(np.float32) / np.float32(1.0 - DROP)
        slopes = gradients(x, side[chosen], target, weights, biases, kept)
        rate = RATE * 0.5 * (1.0 + np.cos(np.pi * step / batches))
        for k, (p, g) in enumerate(zip(parameters, slopes, strict=True)):
            first[k] += 0.1 * (g - first[k])
            second[k] += 0.001 * (g * g - second[k])
            p -= np.float32(rate) * (first[k] / (1 - 0.9 ** (step + 1)) / (np.sqrt(second[k] / (1 - 0.999 ** (step + 1))) + 1e-8)
                                     + (DECAY * p if k < len(weights) else 0.0))
            mean[k] += 0.005 * (p - mean[k])
    return mean[:len(weights)], mean[len(weights):]


def _laid(x: np.ndarray, rng) -> np.ndarray:
    """Each stamp in a way of its own."""
    out, ways = np.empty_like(x), rng.integers(0, WAYS, len(x))
    for way in range(WAYS):
        out[ways == way] = turned(x[ways == way], way)
    return out


def gradients(x, side, target, weights, biases, kept) -> list[np.ndarray]:
    """Of the mean cross-entropy, for all weights and then all biases. kept : (n, DENSE), factors on the hidden values."""
    seen, made = [], []
    for layer in range(4):
        seen.append(patches(x))
        made.append(np.maximum(seen[-1] @ weights[layer] + biases[layer], 0.0))
        x = made[-1]
        if layer == 1:
            x = middle = pooled(x)
    beside = np.maximum(side @ weights[4] + biases[4], 0.0)
    last = np.hstack([x.reshape(len(x), -1), beside])
    hidden = np.maximum(last @ weights[5] + biases[5], 0.0)
    dropped = hidden * kept
    odds = (dropped @ weights[6] + biases[6])[:, 0]
    slope = ((1.0 / (1.0 + np.exp(-odds)) - target) / len(x)).astype(x.dtype)[:, None]
    gw, gb = [None] * 7, [None] * 7
    gw[6], gb[6] = dropped.T @ slope, slope.sum(axis=0)
    slope = (slope @ weights[6].T) * kept * (hidden > 0)
    gw[5], gb[5] = last.T @ slope, slope.sum(axis=0)
    slope = slope @ weights[5].T
    aside = slope[:, -SIDE:] * (beside > 0)
    gw[4], gb[4] = side.T @ aside, aside.sum(axis=0)
    slope = slope[:, :-SIDE].reshape(x.shape)
    for layer in (3, 2, 1, 0):
        if layer == 1:
            slope = _unpooled(slope, made[1], middle)
        slope = slope * (made[layer] > 0)
        flat = slope.reshape(-1, slope.shape[3])
        gw[layer], gb[layer] = seen[layer].reshape(len(flat), -1).T @ flat, flat.sum(axis=0)
        if layer:
            slope = _unpatched(slope @ weights[layer].T, made[layer - 1].shape if layer != 2 else middle.shape)
    return gw + gb


def _unpatched(slope: np.ndarray, shape) -> np.ndarray:
    """Adjoint of `patches`."""
    out = np.zeros(shape, slope.dtype)
    ny, nx, channels = shape[1] - 2, shape[2] - 2, shape[3]
    for k in range(9):
        j, i = divmod(k, 3)
        out[:, j:j + ny, i:i + nx] += slope[..., k * channels:(k + 1) * channels]
    return out


def _unpooled(slope: np.ndarray, made: np.ndarray, highest: np.ndarray) -> np.ndarray:
    """Adjoint of `pooled`: to the pixels that are the maximum of their cell."""
    out = np.zeros_like(made)
    ny, nx = 2 * highest.shape[1], 2 * highest.shape[2]
    for j in range(2):
        for i in range(2):
            out[:, j:ny:2, i:nx:2] = slope * (made[:, j:ny:2, i:nx:2] == highest)
    return out


def join(members) -> dict[str, np.ndarray]:
    """Arrays of `real_bogus.Network` but scale and calibration, of what `fit` returned for each member."""
    weights, biases = zip(*members, strict=True)
    return {f"{name}{n}": np.stack(same) for name, found in (("weight", weights), ("bias", biases))
            for n, same in enumerate(zip(*found, strict=True))}


def of(members, scale: tuple[np.ndarray, np.ndarray]) -> Network:
    """The network of what `fit` returned for each member and of `scale`, not calibrated."""
    arrays = join(members)
    layers = range(len(shapes()))
    return Network([arrays[f"weight{n}"] for n in layers], [arrays[f"bias{n}"] for n in layers], *scale, IDENTITY)
