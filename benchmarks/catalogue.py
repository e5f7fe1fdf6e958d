"""Catalogues: completeness near the limit, false sources, accuracy in crowding."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from benchmarks.truth import EDGE_PIX, Case, Epoch, bounds, matched, night, true_magzp, width
from ztfluigi.model.maskbits import UNUSABLE

EPOCHS = 3
FALSE_REACH_PIX = 3.0
CROWDED_MAG = 16.5, 17.5


def measure(case: Case) -> None:
    """Print the figures of one case, from a few epochs together."""
    epochs = night(case).epochs[:EPOCHS]
    seen = np.concatenate([_seen(epoch) for epoch in epochs])
    false = np.concatenate([_false(epoch) for epoch in epochs])
    case.figure("catalogue.complete", seen.mean() if len(seen) else np.nan, "fraction", len(seen),
                0.95 if case.density == "high-lat" else None)
    case.figure("catalogue.false", false.mean(), "fraction", len(false), 0.01)
    if case.density == "plane":
        ratio = np.concatenate([_error_ratio(epoch) for epoch in epochs])
        case.figure("catalogue.crowded_ratio", width(ratio), "ratio", len(ratio), 1.5, suffix=False)


def _seen(epoch: Epoch) -> np.ndarray:
    """Is each star within 0.25 mag of MAGLIM - 0.5, on usable pixels, in the PSF-fit catalogue?"""
    stars, cat = epoch.truth.stars, epoch.found.psfcat
    mag = true_magzp(epoch.truth) - 2.5 * np.log10(stars["dn"])
    ny, nx = epoch.truth.raw.shape
    inside = (np.abs(stars["x"] - nx / 2) < nx / 2 - EDGE_PIX) & (np.abs(stars["y"] - ny / 2) < ny / 2 - EDGE_PIX)
    stars = stars[inside & (np.abs(mag - (epoch.found.metrics["maglim"] - 0.5)) < 0.25)]
    mask = epoch.image().mask
    stars = stars[(mask[np.rint(stars["y"]).astype(int), np.rint(stars["x"]).astype(int)] & np.uint16(UNUSABLE)) == 0]
    distance, _ = cKDTree(np.column_stack([cat["xpos"] - 1, cat["ypos"] - 1])).query(np.column_stack([stars["x"], stars["y"]]))
    return distance < 1.5


def _false(epoch: Epoch) -> np.ndarray:
    """Is a clean source of S/N >= 5 farther than 3 pixels from any object with a third of its light?"""
    cat, objects = epoch.found.psfcat, epoch.truth.objects
    cat = cat[(cat["snr"] >= 5.0) & ((cat["flags"].astype(np.int64) & UNUSABLE) == 0)]
    near = cKDTree(np.column_stack([objects["x"], objects["y"]])).query_ball_point(
        np.column_stack([cat["xpos"] - 1, cat["ypos"] - 1]), FALSE_REACH_PIX)
    return np.array([not any(objects["dn"][k] > flux / 3.0 for k in group) for group, flux in zip(near, cat["flux"], strict=True)])


def _error_ratio(epoch: Epoch) -> np.ndarray:
    """Flux errors of stars of magnitude 17 over the bound of the same star alone."""
    found = matched(epoch)
    chosen = (found.stars["mag"] > CROWDED_MAG[0]) & (found.stars["mag"] < CROWDED_MAG[1])
    bound = bounds(epoch.truth, found.stars["dn"])[0] * found.flux / found.stars["dn"]
    return ((found.rows["flux"] - found.flux) / bound)[chosen]
