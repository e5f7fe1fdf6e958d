"""The convolutional network's training: gradients of `real_bogus.Network` by hand, Adam, turned and mirrored stamps."""

from __future__ import annotations

import numpy as np

from ztfluigi.algorithms.real_bogus import CROP, patches, pooled

CHANNELS = (6, 16, 16, 32, 32)
DENSE = 48
BATCH, RATE, DECAY, DROP = 64, 2e-3, 1e-4, 0.3


def shapes() -> list[tuple[int, int]]:
    """Shapes of the weights, layer by layer."""
    side = ((CROP - 4) // 2 - 4) ** 2 * CHANNELS[-1]
    return [(9 * a, b) for a, b in zip(CHANNELS[:-1], CHANNELS[1:], strict=True)] + [(side, DENSE), (DENSE, 1)]


def fit(inputs: np.ndarray, real: np.ndarray, weight: np.ndarray, *, epochs: int, seed: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Weights and biases of all layers. inputs : `real_bogus.network_inputs`. weight : (n,), mean 1; samples are drawn in its proportion."""
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
        x, target = _turned(inputs[chosen].astype(np.float32), rng), real[chosen].astype(np.float32)
        kept = (rng.random((BATCH, DENSE)) >= DROP).astype(np.float32) / np.float32(1.0 - DROP)
        slopes = gradients(x, target, weights, biases, kept)
        rate = RATE * 0.5 * (1.0 + np.cos(np.pi * step / batches))
        for k, (p, g) in enumerate(zip(parameters, slopes, strict=True)):
            first[k] += 0.1 * (g - first[k])
            second[k] += 0.001 * (g * g - second[k])
            p -= np.float32(rate) * (first[k] / (1 - 0.9 ** (step + 1)) / (np.sqrt(second[k] / (1 - 0.999 ** (step + 1))) + 1e-8)
                                     + (DECAY * p if k < len(weights) else 0.0))
            mean[k] += 0.005 * (p - mean[k])
    return mean[:len(weights)], mean[len(weights):]


def _turned(x: np.ndarray, rng) -> np.ndarray:
    """Each stamp turned by a multiple of 90 degrees, half of them mirrored."""
    out = np.empty_like(x)
    turns, mirrored = rng.integers(0, 4, len(x)), rng.random(len(x)) < 0.5
    for n in range(4):
        out[turns == n] = np.rot90(x[turns == n], n, axes=(1, 2))
    out[mirrored] = out[mirrored, :, ::-1]
    return out


def gradients(x, target, weights, biases, kept) -> list[np.ndarray]:
    """Of the mean cross-entropy, for all weights and then all biases. kept : (n, DENSE), factors on the hidden values."""
    seen, made = [], []
    for layer in range(4):
        seen.append(patches(x))
        made.append(np.maximum(seen[-1] @ weights[layer] + biases[layer], 0.0))
        x = made[-1]
        if layer == 1:
            x = middle = pooled(x)
    last = x.reshape(len(x), -1)
    hidden = np.maximum(last @ weights[4] + biases[4], 0.0)
    dropped = hidden * kept
    odds = (dropped @ weights[5] + biases[5])[:, 0]
    slope = ((1.0 / (1.0 + np.exp(-odds)) - target) / len(x)).astype(x.dtype)[:, None]
    gw, gb = [None] * 6, [None] * 6
    gw[5], gb[5] = dropped.T @ slope, slope.sum(axis=0)
    slope = (slope @ weights[5].T) * kept * (hidden > 0)
    gw[4], gb[4] = last.T @ slope, slope.sum(axis=0)
    slope = (slope @ weights[4].T).reshape(x.shape)
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
