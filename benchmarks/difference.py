"""Difference images: a new epoch with injected point sources less the reference, and the statistics of the score."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from benchmarks import reference
from benchmarks.truth import CONFIG, Case, blank_places, ideal_limit, night, simulate, sky_variance
from benchmarks.truth import measure as measure_epoch
from ztfluigi.algorithms import events
from ztfluigi.algorithms.subtract import Difference, subtract
from ztfluigi.simulate.exposure import GALAXY, POINT, TRANSIENT
from ztfluigi.simulate.scene import SimulatedQuadrant

NUMBER = 40
"""Number of the new epoch."""
SNR_RANGE = 3.0, 15.0
BLANK, HOST = 0, 1_000_000
"""First id of the sources injected in blank places and in galaxies."""
HOST_REACH_PIX = 12.0


@dataclass
class Injected:
    """A difference, its events, and the injected sources.

    sources : OBSERVED rows on usable pixels. snr : of an ideal measurement. light : PSF flux over all light.
    """

    truth: SimulatedQuadrant
    difference: Difference
    found: np.ndarray
    sources: np.ndarray
    snr: np.ndarray
    light: float


@lru_cache(maxsize=1)
def inject(case: Case) -> Injected:
    """Simulate, measure and subtract the new epoch of a case."""
    built, shared = reference.build(case), night(case)
    plain = simulate(case, NUMBER)
    truth = simulate(case, NUMBER, points=_points(case, plain, len(shared.epochs)))
    epoch = measure_epoch(truth, Path(shared.folder.name))
    image = epoch.image()
    result = subtract(image, epoch.found.psf, epoch.magzp, built.coadd, psfcat_sci=epoch.found.psfcat, psfcat_ref=built.found.psfcat,
                      config=CONFIG["difference"])
    found = events.extract(result, wcs=image.wcs, psfcat_ref=built.found.psfcat, reference_magzp=built.coadd.magzp, config=CONFIG["events"])
    sources = truth.objects[truth.objects["kind"] == TRANSIENT]
    usable = result.scorr[np.rint(sources["y"]).astype(int), np.rint(sources["x"]).astype(int)] != 0  # 0 marks unusable pixels
    sources = sources[usable]
    ny, nx = truth.raw.shape
    light = truth.psf.aperture_fraction(nx / 2, ny / 2)
    return Injected(epoch.truth, result, found, sources, _ideal_snr(truth, result, built.coadd, sources), light)


def measure(case: Case) -> None:
    """Mean and width of the score over usable pixels away from injected sources, in units of its own error."""
    made = inject(case)
    score = made.difference.scorr.copy()
    for row in made.sources:
        i, j = round(row["x"]), round(row["y"])
        score[max(0, j - 9):j + 10, max(0, i - 9):i + 10] = 0
    score = score[score != 0]
    case.figure("difference.score_mean", np.median(score), "sigma", len(score), 0.0)
    low, high = np.percentile(score, [15.87, 84.13])
    case.figure("difference.score_width", (high - low) / 2, "sigma", len(score), 1.0)


def _points(case: Case, truth: SimulatedQuadrant, epochs: int) -> np.ndarray:
    """Point sources of evenly spread ideal S/N in blank places, and half as many in galaxies, a galaxy each."""
    rng = np.random.default_rng([case.seed, 7])
    x, y = blank_places(truth, 300 if case.quick else 2000, rng)
    ny, nx = truth.raw.shape
    galaxies = truth.objects[(truth.objects["kind"] == GALAXY) & (truth.objects["mag"] < 20.5)]
    galaxies = galaxies[(np.abs(galaxies["x"] - nx / 2) < nx / 2 - 30) & (np.abs(galaxies["y"] - ny / 2) < ny / 2 - 30)]
    hosts = galaxies[rng.permutation(len(galaxies))[:max(1, len(x) // 2)]]
    far = np.array([np.hypot(x - hx, y - hy).min() > HOST_REACH_PIX for hx, hy in zip(hosts["x"], hosts["y"], strict=True)], bool)
    hosts = hosts[far]
    points = np.zeros(len(x) + len(hosts), POINT)
    points["id"] = np.concatenate([BLANK + np.arange(len(x)), HOST + np.arange(len(hosts))])
    places = (np.concatenate([a, hosts[name] + rng.normal(0, 1.0, len(hosts))]) for a, name in ((x, "x"), (y, "y")))
    points["ra"], points["dec"] = truth.true_wcs.sky(*places)
    limit = ideal_limit(truth) - 1.25 * np.log10(1.0 + 1.0 / epochs)
    points["mag"] = limit - 2.5 * np.log10(rng.uniform(*SNR_RANGE, len(points)) / 5.0)
    return points


def _ideal_snr(truth: SimulatedQuadrant, result: Difference, coadd, sources: np.ndarray) -> np.ndarray:
    """S/N of a fit of the true PSF to each source: noise of the empty sky, of the reference, of the static light and of the source."""
    ny, nx = truth.raw.shape
    psf = truth.psf.render(nx / 2, ny / 2)
    reference_error = np.median(coadd.sigma[np.isfinite(coadd.sigma)]) * result.metrics["flux_ratio"] * coadd.noise_correlation
    empty = sky_variance(truth) + reference_error**2
    half = psf.shape[0] // 2
    static = np.pad(result.reference, half, mode="edge")
    snr = np.empty(len(sources))
    for n, row in enumerate(sources):
        i, j = round(row["x"]), round(row["y"])
        under = np.clip(static[j:j + 2 * half + 1, i:i + 2 * half + 1], 0.0, None)
        snr[n] = np.sqrt(np.sum((row["dn"] * psf) ** 2 / (empty + (under + row["dn"] * psf) / truth.gain)))
    return snr
