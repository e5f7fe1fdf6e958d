"""Real-bogus scores of events: `rb` from features by boosted trees, `drb` from the three cutouts by a small convolutional network.

Both see only what a packet of any ZTF-like survey holds: fields of `candidate` and the stamps. Stamps are taken in units of the noise of
the difference about their own medians, magnitudes as differences, widths in units of the PSF, so that zero points, backgrounds, gains
and pixel noise of a survey drop out. Scores are calibrated: the chance of being real where real and bogus events are equally many.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit

#: Fields of an event that `features` reads: those that we and IPAC define alike. `chipsf`, `fwhm`, `seeratio`, `sharpnr` are not among them.
FIELDS = ("isdiffpos", "magpsf", "sigmapsf", "magdiff", "magapbig", "distnr", "magnr", "elong", "nneg", "sumrat", "mindtoedge")
#: Columns of `features`, in order.
FEATURES = ("sign", "snr", "magdiff", "growth", "distnr", "contrast", "elong", "nneg", "sumrat", "edge", "psf_share", "wide_share", "dipole",
            "around", "ring", "reference_core", "reference_near", "reference_slope", "science_core", "peak_share")
STAMP, CROP, POOL = 63, 21, 3
#: Normalised pixels are clipped here.
FARTHEST = np.float32(1e5)
#: Beyond this distance from the edge of the image it does not matter [pix].
EDGE = 30.0
BATCH = 64


@dataclass(frozen=True)
class Calibration:
    """Monotone map of raw log odds to calibrated ones, linear between nodes, constant beyond."""

    raw: np.ndarray
    log_odds: np.ndarray

    def __call__(self, raw: np.ndarray) -> np.ndarray:
        return 1.0 / (1.0 + np.exp(-np.interp(raw, self.raw, self.log_odds)))


@dataclass(frozen=True)
class Trees:
    """Boosted regression trees of log odds. Arrays over the nodes of all trees; `left`, `right` index nodes, `feature` is -1 at leaves.

    An event goes left where its feature is at most `threshold`, or is NaN and `nan_left`. roots : first node of each tree.
    """

    roots: np.ndarray
    feature: np.ndarray
    threshold: np.ndarray
    nan_left: np.ndarray
    left: np.ndarray
    right: np.ndarray
    value: np.ndarray
    base: float
    calibration: Calibration

    def raw(self, table: np.ndarray) -> np.ndarray:
        """Log odds (n,) of feature rows (n, len(FEATURES))."""
        return self.base + _walk(np.ascontiguousarray(table, np.float64), self.roots, self.feature, self.threshold, self.nan_left, self.left,
                                 self.right, self.value)

    def score(self, table: np.ndarray) -> np.ndarray:
        """Calibrated scores (n,), 0 to 1."""
        return self.calibration(self.raw(table))


@dataclass(frozen=True)
class Network:
    """Convolutions of 3 x 3 (no padding) with rectifiers, a 2 x 2 maximum after the second, two dense layers.

    weights : ((9 * in, out) per convolution, (in, out) per dense layer); biases : (out,) each.
    """

    weights: Sequence[np.ndarray]
    biases: Sequence[np.ndarray]
    calibration: Calibration

    def raw(self, inputs: np.ndarray) -> np.ndarray:
        """Log odds (n,) of `network_inputs`."""
        return np.concatenate([self._forward(inputs[n:n + BATCH]) for n in range(0, len(inputs), BATCH)] or [np.zeros(0)])

    def _forward(self, x: np.ndarray) -> np.ndarray:
        x = np.asarray(x, self.weights[0].dtype)
        for layer in range(4):
            x = np.maximum(patches(x) @ self.weights[layer] + self.biases[layer], 0.0)
            x = pooled(x) if layer == 1 else x
        x = np.maximum(x.reshape(len(x), -1) @ self.weights[4] + self.biases[4], 0.0)
        return (x @ self.weights[5] + self.biases[5])[:, 0]

    def score(self, inputs: np.ndarray) -> np.ndarray:
        """Calibrated scores (n,), 0 to 1."""
        return self.calibration(self.raw(inputs))


@dataclass(frozen=True)
class Classifier:
    """Both classifiers of one training."""

    trees: Trees
    network: Network

    @classmethod
    def from_arrays(cls, rb: Mapping[str, np.ndarray], drb: Mapping[str, np.ndarray]) -> Classifier:
        """Of the arrays by name that training makes."""
        trees = Trees(*(rb[name] for name in ("roots", "feature", "threshold", "nan_left", "left", "right", "value")), float(rb["base"]),
                      Calibration(rb["raw"], rb["log_odds"]))
        layers = range(sum(name.startswith("weight") for name in drb))
        return cls(trees, Network([drb[f"weight{n}"] for n in layers], [drb[f"bias{n}"] for n in layers],
                                  Calibration(drb["raw"], drb["log_odds"])))

    def score(self, events, stamps: np.ndarray, *, signed: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """(rb, drb), float (n,) each.

        events : EVENT rows, or arrays by name with at least FIELDS. stamps : (n, 3, 63, 63) [DN], science, reference, difference. signed :
        the difference is already that of the event's sign, as in packets.
        """
        scaled = normalised(stamps, np.isin(np.asarray(events["isdiffpos"]), ("t", "1")) | signed)
        return self.trees.score(features(events, scaled)), self.network.score(network_inputs(scaled))


def normalised(stamps: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """Stamps about their medians, in units of the noise of the difference; a source is positive in every difference.

    stamps : (n, 3, 63, 63) [DN], science, reference, science minus reference; NaN where there are no data. Returns float32, 0 there.
    """
    stamps = np.array(stamps, np.float32)
    if not len(stamps):
        return stamps
    stamps[:, 2] *= np.where(positive, np.float32(1), np.float32(-1))[:, None, None]
    flat = stamps.reshape(len(stamps), 3, -1)
    empty = ~np.isfinite(flat)
    flat[empty] = np.nan
    flat[empty.all(axis=2)] = 0.0
    low, middle, high = np.nanpercentile(flat, (15.865, 50.0, 84.135), axis=2).astype(np.float32)
    # Stamps of saturated or clipped pixels can have no spread on one side, or none at all.
    noise = np.where(middle > low, middle - low, high - middle)[:, 2]
    flat -= middle[..., None]
    flat /= np.where(noise > 0, noise, np.float32(1))[:, None, None]
    np.clip(flat, -FARTHEST, FARTHEST, out=flat)
    flat[empty] = 0.0
    return flat.reshape(stamps.shape)


def features(events, scaled: np.ndarray) -> np.ndarray:
    """Rows (n, len(FEATURES)) float64, NaN where undefined.

    events : EVENT rows, or arrays by name with at least FIELDS (as packets hold them). scaled : their `normalised` stamps.
    """
    e = {name: np.asarray(events[name], float) for name in FIELDS if name != "isdiffpos"}
    positive = np.isin(np.asarray(events["isdiffpos"]), ("t", "1"))
    columns = [np.where(positive, 1.0, -1.0), 1.0857 / e["sigmapsf"], e["magdiff"], e["magapbig"] - e["magpsf"], np.minimum(e["distnr"], 30.0),
               np.clip(e["magnr"] - e["magpsf"], -8.0, 4.0), e["elong"], e["nneg"], e["sumrat"], np.minimum(e["mindtoedge"], EDGE)]
    return np.column_stack(columns + _of_stamps(scaled))


def _of_stamps(scaled: np.ndarray) -> list[np.ndarray]:
    """What the cutouts say beyond the fields: how compact the difference is, its dipole, its surroundings; what static light there is."""
    half = STAMP // 2
    rows, cols = np.mgrid[-half:half + 1, -half:half + 1]
    radius = np.hypot(rows, cols)
    science, reference, difference = (scaled[:, k].reshape(len(scaled), STAMP * STAMP) for k in range(3))

    def disc(inner, outer):
        return ((radius >= inner) & (radius < outer)).ravel()

    core, near, ring, far = disc(0, 2.5), disc(2.5, 8.0), disc(5.0, 10.0), disc(10.0, 20.0)
    smooth = _box(scaled[:, 2]).reshape(len(scaled), STAMP * STAMP)
    peak = np.maximum(smooth[:, core].max(axis=1, initial=0.0), 1e-3)
    total = np.maximum(difference[:, core].sum(axis=1), 1e-3)
    static = reference[:, core].max(axis=1, initial=0.0), reference[:, disc(0, 8.0)].max(axis=1, initial=0.0)
    return [difference[:, disc(0, 1.5)].sum(axis=1) / total, difference[:, disc(0, 4.5)].sum(axis=1) / total,
            smooth[:, near].min(axis=1, initial=0.0) / peak, difference[:, ring].std(axis=1),
            smooth[:, far].max(axis=1, initial=0.0) / peak, *(np.arcsinh(light) - np.arcsinh(peak) for light in static),
            np.arcsinh(static[1]) - np.arcsinh(static[0]), np.arcsinh(science[:, core].max(axis=1, initial=0.0)) - np.arcsinh(peak),
            difference[:, core].max(axis=1, initial=0.0) / total]


def _box(images: np.ndarray) -> np.ndarray:
    """Means over 3 x 3 pixels, the rim repeated."""
    for axis in (1, 2):
        wide = np.pad(images, [(1, 1) if k == axis else (0, 0) for k in range(3)], mode="edge")
        images = (wide[:, :-2] + wide[:, 1:-1] + wide[:, 2:] if axis == 1 else wide[:, :, :-2] + wide[:, :, 1:-1] + wide[:, :, 2:]) / 3.0
    return images


def network_inputs(scaled: np.ndarray) -> np.ndarray:
    """(n, 21, 21, 6) float32 of `normalised` stamps: their central pixels, and the whole of them in cells of 3 x 3; both compressed."""
    low = (STAMP - CROP) // 2
    centre = scaled[:, :, low:low + CROP, low:low + CROP]
    cells = scaled.reshape(len(scaled), 3, CROP, POOL, CROP, POOL).mean(axis=(3, 5)) * np.float32(POOL)
    return np.ascontiguousarray(np.moveaxis(np.arcsinh(np.concatenate([centre, cells], axis=1)), 1, -1)) / np.float32(3.0)


def patches(x: np.ndarray) -> np.ndarray:
    """(n, rows - 2, cols - 2, 9 * channels): the 3 x 3 surroundings of every inner pixel."""
    ny, nx = x.shape[1] - 2, x.shape[2] - 2
    return np.concatenate([x[:, j:j + ny, i:i + nx] for j in range(3) for i in range(3)], axis=3)


def pooled(x: np.ndarray) -> np.ndarray:
    """Maximum over cells of 2 x 2 pixels; an odd last row and column is left out."""
    ny, nx = x.shape[1] // 2 * 2, x.shape[2] // 2 * 2
    rows = np.maximum(x[:, 0:ny:2, :nx], x[:, 1:ny:2, :nx])
    return np.maximum(rows[:, :, 0::2], rows[:, :, 1::2])


@njit(cache=True, nogil=True)
def _walk(table, roots, feature, threshold, nan_left, left, right, value):
    out = np.zeros(len(table))
    for n in range(len(table)):
        for root in roots:
            node = root
            while feature[node] >= 0:
                x = table[n, feature[node]]
                go_left = nan_left[node] if np.isnan(x) else x <= threshold[node]
                node = left[node] if go_left else right[node]
            out[n] += value[node]
    return out
