"""Real-bogus scores of events: `rb` from features by boosted trees, `drb` from the three cutouts by a small convolutional network.

Both see only what a packet of any ZTF-like survey holds: fields of `candidate` and the stamps. Stamps are taken in units of the noise of
the difference about their own medians, magnitudes as differences, widths in units of the PSF, so that zero points, backgrounds, gains
and pixel noise of a survey drop out. Scores are calibrated: the chance of being real where real and bogus events are equally many.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numba import njit

#: Fields of an event that `features` reads: those that we and IPAC define alike. `chipsf`, `fwhm`, `seeratio`, `sharpnr` are not among them.
FIELDS = ("isdiffpos", "magpsf", "sigmapsf", "magdiff", "magapbig", "distnr", "magnr", "elong", "nneg", "sumrat", "mindtoedge")
#: Columns of `features`, in order.
FEATURES = ("sign", "log_snr", "magdiff", "growth", "distnr", "contrast", "elong", "nneg", "sumrat", "edge", "psf_share", "wide_share", "dipole",
            "around", "ring", "reference_core", "reference_near", "reference_slope", "science_core", "peak_share", "gauss_snr", "gauss_width",
            "gauss_sharpest", "gauss_sharp", "gauss_broad", "gauss_broadest", "gauss_chi2", "core_share", "core_dip", "science_dip",
            "reference_dip", "science_level", "reference_level", "science_share", "reference_share")
#: Columns of `features` that the network sees beside the stamps: S/N and all that is measured on the stamps.
BESIDE = np.array([FEATURES.index("log_snr"), *range(FEATURES.index("psf_share"), len(FEATURES))])
STAMP, CROP, POOL = 63, 21, 3
#: Gaussians that are laid over the peak of a difference: their sigmas, and how far their centres lie from the middle of the stamp [pix].
WIDTHS, SHIFTS, REACH = (0.5, 0.7, 0.9, 1.15, 1.45, 1.8), np.linspace(-0.75, 0.75, 7), 3
#: Normalised pixels are clipped here.
FARTHEST = np.float32(1e5)
#: Beyond this distance from the edge of the image it does not matter [pix].
EDGE = 30.0
BATCH = 8
#: Numbers beside the stamps are clipped at this many spreads.
FARTHEST_SIDE = 4.0


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
    """The mean of several networks of one shape, each of which sees the stamps turned in its own way: convolutions of 3 x 3 (no padding)
    with rectifiers, a 2 x 2 maximum after the second; a dense layer beside them for the numbers of `BESIDE`; two dense layers for both.

    weights : ((members, 9 * in, out) per convolution, (members, in, out) per dense layer); biases : (members, out) each. centre, spread :
    (len(BESIDE),), of those numbers in training.
    """

    weights: Sequence[np.ndarray]
    biases: Sequence[np.ndarray]
    centre: np.ndarray
    spread: np.ndarray
    calibration: Calibration

    def raw(self, inputs: np.ndarray, table: np.ndarray) -> np.ndarray:
        """Log odds (n,) of `network_inputs` and rows of `features`."""
        side, out = beside(table, self.centre, self.spread).astype(self.weights[0].dtype), np.zeros(len(inputs))
        for first in range(0, len(inputs), BATCH):
            rows = slice(first, first + BATCH)
            x = np.asarray(inputs[rows], self.weights[0].dtype)
            out[rows] = np.mean([self._forward(turned(x, member), side[rows], member) for member in range(len(self.weights[0]))], axis=0)
        return out

    def _forward(self, x: np.ndarray, side: np.ndarray, member: int) -> np.ndarray:
        def layer(x, n):
            return x @ self.weights[n][member] + self.biases[n][member]

        for n in (0, 1, 2, 3):
            x = np.maximum(layer(patches(x), n), 0.0)
            x = pooled(x) if n == 1 else x
        x = np.hstack([x.reshape(len(x), -1), np.maximum(layer(side, 4), 0.0)])
        return layer(np.maximum(layer(x, 5), 0.0), 6)[:, 0]

    def score(self, inputs: np.ndarray, table: np.ndarray) -> np.ndarray:
        """Calibrated scores (n,), 0 to 1."""
        return self.calibration(self.raw(inputs, table))


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
        return cls(trees, Network([drb[f"weight{n}"] for n in layers], [drb[f"bias{n}"] for n in layers], drb["centre"], drb["spread"],
                                  Calibration(drb["raw"], drb["log_odds"])))

    def score(self, events, stamps: np.ndarray, *, signed: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """(rb, drb), float (n,) each.

        events : EVENT rows, or arrays by name with at least FIELDS. stamps : (n, 3, 63, 63) [DN], science, reference, difference. signed :
        the difference is already that of the event's sign, as in packets.
        """
        scaled = normalised(stamps, np.isin(np.asarray(events["isdiffpos"]), ("t", "1")) | signed)
        table = features(events, scaled)
        return self.trees.score(table), self.network.score(network_inputs(scaled), table)


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
    low, middle, high = _percentiles(flat, (15.865, 50.0, 84.135))
    # Stamps of saturated or clipped pixels can have no spread on one side, or none at all.
    noise = np.where(middle > low, middle - low, high - middle)[:, 2]
    flat -= middle[..., None]
    flat /= np.where(noise > 0, noise, np.float32(1))[:, None, None]
    np.clip(flat, -FARTHEST, FARTHEST, out=flat)
    flat[empty] = 0.0
    return flat.reshape(stamps.shape)


def _percentiles(flat: np.ndarray, shares) -> list[np.ndarray]:
    """Percentiles of what is not NaN along the last axis, as of `np.nanpercentile` but many times as fast; 0 where there is nothing."""
    ordered, last = np.sort(flat, axis=-1), np.maximum(np.count_nonzero(np.isfinite(flat), axis=-1) - 1, 0)[..., None]
    found = []
    for share in shares:
        place = last * (share / 100.0)
        below = place.astype(np.int64)
        one, next_one = (np.take_along_axis(ordered, np.minimum(n, last), axis=-1) for n in (below, below + 1))
        found.append(np.nan_to_num(one + (next_one - one) * (place - below).astype(np.float32))[..., 0])
    return found


def features(events, scaled: np.ndarray) -> np.ndarray:
    """Rows (n, len(FEATURES)) float64, NaN where undefined.

    events : EVENT rows, or arrays by name with at least FIELDS (as packets hold them). scaled : their `normalised` stamps.
    """
    e = {name: np.asarray(events[name], float) for name in FIELDS if name != "isdiffpos"}
    positive = np.isin(np.asarray(events["isdiffpos"]), ("t", "1"))
    columns = [np.where(positive, 1.0, -1.0), np.log(1.0857 / e["sigmapsf"]), e["magdiff"], e["magapbig"] - e["magpsf"],
               np.minimum(e["distnr"], 30.0), np.clip(e["magnr"] - e["magpsf"], -8.0, 4.0), e["elong"], e["nneg"], e["sumrat"],
               np.minimum(e["mindtoedge"], EDGE)]
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
            difference[:, core].max(axis=1, initial=0.0) / total, *_of_peak(scaled)]


def _of_peak(scaled: np.ndarray) -> list[np.ndarray]:
    """How well Gaussians of several widths describe the peak of the difference, and what lies in its nearest pixels in all three stamps."""
    wide, five, three = (scaled[:, :, STAMP // 2 - r:STAMP // 2 + r + 1, STAMP // 2 - r:STAMP // 2 + r + 1] for r in (REACH, 2, 1))
    core = wide[:, 2].reshape(len(scaled), (2 * REACH + 1) ** 2)
    fits = (core @ _gaussians()).reshape(len(scaled), len(WIDTHS), len(SHIFTS) ** 2).max(axis=2)
    best = np.maximum(fits.max(axis=1), 1e-3)
    chi2 = (np.sum(core**2, axis=1) - best**2) / (core.shape[1] - 1)
    low, level = np.arcsinh(five.min(axis=(2, 3))), np.arcsinh(three.mean(axis=(2, 3)))
    total = five.sum(axis=(2, 3))
    share = np.clip(three.sum(axis=(2, 3)) / np.where(np.abs(total) > 1, total, 1), -3, 3)
    return [np.arcsinh(best), np.asarray(WIDTHS)[fits.argmax(axis=1)], *(fits[:, k] / best for k in (0, 2, 4, 5)), np.arcsinh(chi2),
            share[:, 2], five[:, 2].min(axis=(1, 2)) / best, low[:, 0], low[:, 1], level[:, 0], level[:, 1], share[:, 0],
            share[:, 1]]


@lru_cache(maxsize=1)
def _gaussians() -> np.ndarray:
    """(pixels, widths * places) float32: Gaussians of unit norm."""
    rows, cols = np.mgrid[-REACH:REACH + 1, -REACH:REACH + 1]
    made = [np.exp(-((rows - y) ** 2 + (cols - x) ** 2) / (2.0 * w * w)).ravel() for w in WIDTHS for y in SHIFTS for x in SHIFTS]
    return np.stack([g / np.linalg.norm(g) for g in made], axis=1).astype(np.float32)


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


def beside(table: np.ndarray, centre: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """What goes beside the stamps (n, len(BESIDE)) of rows of `features`: in units of its spread, 0 where undefined."""
    return np.nan_to_num(np.clip((table[:, BESIDE] - centre) / spread, -FARTHEST_SIDE, FARTHEST_SIDE))


def turned(x: np.ndarray, way: int) -> np.ndarray:
    """Images (n, rows, columns, planes) in one of the eight ways to lay them down: quarter turns, from the fifth on of the mirror image."""
    x = x if way % 8 < 4 else x[:, ::-1]
    return np.rot90(x, way % 4, axes=(1, 2))


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
