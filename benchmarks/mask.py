"""Artefact masks: cosmic rays and satellite trails, by pixel."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import binary_dilation

from benchmarks.truth import CONFIG, Case, reduced, simulate
from ztfluigi.algorithms.artifacts import mask_tracks
from ztfluigi.algorithms.instrumental import Reduced
from ztfluigi.model.maskbits import UNUSABLE, Mask
from ztfluigi.simulate import exposure, kernels, scene
from ztfluigi.simulate.detector import make_detector
from ztfluigi.simulate.seeds import generator

TRAILS = 2
RAYS = 4.0
"""Factor on the number of rays, for the statistics."""
SIGNIFICANT = 5.0
"""A pixel is hit when a ray adds this many times the noise it has without the ray: of sky, stars and reading."""
CORE_DN = 500.0
"""Stars of this much light (signal over noise about 20) and more must keep their cores."""
FAINT_TRAILS, FAINT_ROUNDS, FAINT_PEAK = 4, 3, (2.0, 4.0)
"""Trails an image, images, and the signal over noise of a pixel on the middle of a trail."""


def measure(case: Case) -> None:
    """Rays, trails and star cores of one exposure.

    Recall: part of the hit pixels, not saturated, that carry a bit of any unusable kind; the faint one counts from three times the noise of
    the empty sky, under stars too. Precision: part of the SPIKE pixels at most one pixel from charge of a ray or a hot pixel; defects of
    the silicon do not count. Star cores: SPIKE on the central pixel of a star with no ray near. Trail recall: part of the pixels where a
    trail exceeds the sky's noise; found: part of the trails of 2 to 4 times the noise a pixel that are masked along 90 % of their length.
    Ghosts: part of the pixels to which reflections add half the noise of the sky.
    """
    truth = simulate(case, 50, trails=TRAILS, cosmic_rays=RAYS)
    made = reduced(truth)
    found, light = made.calibrated.mask, made.calibrated.data
    lost = (found & np.uint16(UNUSABLE)) != 0
    hot = make_detector(case.camera, truth.ccdid, truth.qid, case.seed).dark > 10.0 * case.camera.dark_electron_per_s
    spikes = ((found & np.uint16(Mask.SPIKE)) != 0) & ~(truth.noisy | truth.dead | hot)
    noise = np.sqrt(np.maximum(light - truth.cosmic_dn, made.background.level) / truth.gain + (truth.read_noise / truth.gain) ** 2)
    near = binary_dilation((truth.cosmic_dn > 0) | hot, np.ones((3, 3)))
    for name, hit, target in (("recall", truth.cosmic_dn > SIGNIFICANT * noise, 0.95), ("faint_recall", truth.cosmic_ray_mask, None)):
        hit = hit & ~truth.saturated
        case.figure(f"mask.cosmic_{name}", lost[hit].mean(), "fraction", hit.sum(), target)
    case.figure("mask.cosmic_precision", near[spikes].mean(), "fraction", spikes.sum(), 0.95)
    stars = truth.stars[truth.stars["dn"] > CORE_DN]
    cores = np.zeros(lost.shape, bool)
    cores[np.rint(stars["y"]).astype(int), np.rint(stars["x"]).astype(int)] = True
    case.figure("mask.star_cores", np.count_nonzero(cores & spikes & ~near), "stars", len(stars), 0)
    case.figure("mask.trail_recall", lost[truth.trail_mask].mean(), "fraction", truth.trail_mask.sum(), 0.95)
    reflected = _ghosts(truth)
    ghosts = ((found & np.uint16(Mask.GHOST)) != 0)[reflected]
    case.figure("mask.ghost_recall", ghosts.mean() if len(ghosts) else np.nan, "fraction", len(ghosts), None)
    parts = [part for number in range(FAINT_ROUNDS) for part in _faint_trails(case, truth, made, number)]
    case.figure("mask.trail_found", np.mean(np.array(parts) > 0.9), "fraction", len(parts), 0.95)


def _ghosts(truth: scene.SimulatedQuadrant) -> np.ndarray:
    """bool (ny, nx): pixels to which reflections add more than half the noise of the sky."""
    image, bright = np.zeros(truth.raw.shape), truth.objects[truth.objects["dn"] > 2e6]
    for ghost in truth.camera.ghosts:
        kernels.add_rings(image, *ghost.centre(bright["x"], bright["y"], image.shape), ghost.brightness(bright["dn"]), ghost.inner_pix,
                          ghost.outer_pix)
    return image > 0.5 * np.hypot(np.sqrt(truth.sky_dn / truth.gain), truth.read_noise / truth.gain)


def _faint_trails(case: Case, truth: scene.SimulatedQuadrant, made: Reduced, number: int) -> list[float]:
    """Part of each of some trails, added to the calibrated image, that the mask covers."""
    rng = generator(case.seed, "faint trails", number)
    image, data, middles = made.calibrated, made.calibrated.data.copy(), []
    noise = np.hypot(np.sqrt(truth.sky_dn / truth.gain), truth.read_noise / truth.gain)
    for trail in scene.random_trails(case.camera, FAINT_TRAILS, rng):
        layer = np.zeros(data.shape, np.float32)
        ends = [float(trail[end]) for end in ("x1", "y1", "x2", "y2")]
        exposure.add_line(layer, truth.psf, *ends, float(np.hypot(ends[2] - ends[0], ends[3] - ends[1])), 0.01)
        layer *= np.float32(rng.uniform(*FAINT_PEAK) * noise / layer.max())
        data += layer + rng.normal(size=data.shape).astype(np.float32) * np.sqrt(layer / np.float32(truth.gain))
        middles.append(layer > 0.5 * layer.max())
    blank = image.mask & ~np.uint16(Mask.TRACK)
    found = mask_tracks(data, image.sigma, blank, made.background, config=CONFIG["artifacts"])[0]
    return [float(((found & np.uint16(Mask.TRACK)) != 0)[middle].mean()) for middle in middles]
