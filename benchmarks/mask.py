"""Artefact masks: cosmic rays and satellite trails, by pixel."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import binary_dilation

from benchmarks.truth import Case, reduced, simulate
from ztfluigi.model.maskbits import UNUSABLE, Mask
from ztfluigi.simulate.detector import make_detector

TRAILS = 2


def measure(case: Case) -> None:
    """Recall: part of the true pixels that carry a bit of any unusable kind. Precision: part of the SPIKE pixels at most one pixel from
    charge of a ray; defects of the silicon do not count."""
    truth = simulate(case, 50, trails=TRAILS, cosmic_rays=4.0)
    found = reduced(truth).calibrated.mask
    lost = (found & np.uint16(UNUSABLE)) != 0
    hot = make_detector(case.camera, truth.ccdid, truth.qid, case.seed).dark > 10.0 * case.camera.dark_electron_per_s
    spikes = ((found & np.uint16(Mask.SPIKE)) != 0) & ~(truth.noisy | truth.dead | hot)
    rays = truth.cosmic_ray_mask & ~truth.saturated
    near = binary_dilation(truth.cosmic_dn > 0, np.ones((3, 3)))
    case.figure("mask.cosmic_recall", lost[rays].mean(), "fraction", rays.sum(), 0.9)
    case.figure("mask.cosmic_precision", near[spikes].mean(), "fraction", spikes.sum(), 0.95)
    case.figure("mask.trail_recall", lost[truth.trail_mask].mean(), "fraction", truth.trail_mask.sum(), 0.9)
