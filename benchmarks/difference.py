"""Difference images: a new epoch with injected point sources less the reference, and the statistics of the score."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from scipy.spatial import cKDTree

from benchmarks import reference
from benchmarks.truth import CONFIG, Case, blank_places, ideal_limit, night, simulate, sky_variance
from benchmarks.truth import measure as measure_epoch
from ztfluigi.algorithms import events
from ztfluigi.algorithms.subtract import Difference, subtract
from ztfluigi.simulate.exposure import GALAXY, POINT, STAR, TRANSIENT
from ztfluigi.simulate.scene import SimulatedQuadrant

NUMBER, ROUNDS = 40, 3
"""Number of the first new epoch; how many of full size are differenced: one alone holds too few false events to count."""
SNR_FAINT, SNR_BRIGHT, BRIGHT_SHARE = (3.5, 9.5), (9.5, 100.0), 0.2
"""Ideal S/N of the injected sources: evenly spread where completeness changes, and by their logarithm above."""
BLANK, HOST, NEAR = 0, 1_000_000, 2_000_000
"""First id of the sources injected in blank places, in galaxies, and close to bright stars."""
HOST_REACH_PIX = 12.0
NEAR_MAG, NEAR_PIX = 16.0, 5.0


@dataclass
class Injected:
    """A difference, its events, and the injected sources.

    sources : OBSERVED rows. usable : whether each lies on a usable pixel. snr : of an ideal measurement. light : PSF flux over all light.
    psfs : PSF models of science image and reference. again : makes the difference once more.
    """

    truth: SimulatedQuadrant
    science: np.ndarray
    difference: Difference
    found: np.ndarray
    sources: np.ndarray
    usable: np.ndarray
    snr: np.ndarray
    light: float
    psfs: tuple
    again: Callable[[], Difference]


@lru_cache(maxsize=1)
def injections(case: Case) -> list[Injected]:
    """All new epochs of a case."""
    return [inject(case, n) for n in range(1 if case.quick else ROUNDS)]


@lru_cache(maxsize=ROUNDS)
def inject(case: Case, n: int = 0) -> Injected:
    """Simulate, measure and subtract the n-th new epoch of a case."""
    built, shared = reference.build(case), night(case)
    plain = simulate(case, NUMBER + n)
    truth = simulate(case, NUMBER + n, points=_points(case, n, plain, len(shared.epochs)))
    epoch = measure_epoch(truth, Path(shared.folder.name))
    image = epoch.image()
    make = partial(subtract, image, epoch.found.psf, epoch.magzp, built.coadd, psfcat_sci=epoch.found.psfcat, psfcat_ref=built.found.psfcat,
                   config=CONFIG["difference"])
    result = make()
    # Without the limit on their number, which the injected sources would fill.
    found = events.extract(result, wcs=image.wcs, psfcat_ref=built.found.psfcat, reference_magzp=built.coadd.magzp,
                           config=replace(CONFIG["events"], max_events=10**6))
    sources = truth.objects[truth.objects["kind"] == TRANSIENT]
    usable = result.scorr[np.rint(sources["y"]).astype(int), np.rint(sources["x"]).astype(int)] != 0  # 0 marks unusable pixels
    ny, nx = truth.raw.shape
    light = truth.psf.aperture_fraction(nx / 2, ny / 2)
    snr = _ideal_snr(truth, [epoch.truth for epoch in shared.epochs], result.reference, sources)
    return Injected(epoch.truth, image.data, result, found, sources, usable, snr, light, (epoch.found.psf, built.coadd.psf), make)


def measure(case: Case) -> None:
    """Mean (0 within the target) and width (1 within 0.03) of the score over usable pixels away from injected sources."""
    score = np.concatenate([_quiet_score(made) for made in injections(case)])
    case.figure("difference.score_mean", np.mean(score), "sigma", len(score), 0.02)
    low, high = np.percentile(score, [15.87, 84.13])
    case.figure("difference.score_width", (high - low) / 2, "sigma", len(score), 1.03)


def _quiet_score(made: Injected) -> np.ndarray:
    score = made.difference.scorr.copy()
    for row in made.sources:
        i, j = round(row["x"]), round(row["y"])
        score[max(0, j - 9):j + 10, max(0, i - 9):i + 10] = 0
    return score[score != 0]


def _points(case: Case, n: int, truth: SimulatedQuadrant, epochs: int) -> np.ndarray:
    """Point sources in blank places, half as many in galaxies, a galaxy each, and one beside every bright star."""
    rng = np.random.default_rng([case.seed, 7, n])
    x, y = blank_places(truth, 300 if case.quick else 6000, rng)
    ny, nx = truth.raw.shape

    def inside(rows):
        return rows[(np.abs(rows["x"] - nx / 2) < nx / 2 - 30) & (np.abs(rows["y"] - ny / 2) < ny / 2 - 30)]

    galaxies = inside(truth.objects[(truth.objects["kind"] == GALAXY) & (truth.objects["mag"] < 20.5)])
    hosts = galaxies[rng.permutation(len(galaxies))[:max(1, len(x) // 2)]]
    stars = inside(truth.objects[(truth.objects["kind"] == STAR) & (truth.objects["mag"] < NEAR_MAG)])
    hosts, stars = (rows[cKDTree(np.column_stack([x, y])).query(np.column_stack([rows["x"], rows["y"]]))[0] > HOST_REACH_PIX]
                    for rows in (hosts, stars))
    angle, radius = rng.uniform(0, 2 * np.pi, len(stars)), NEAR_PIX * np.sqrt(rng.uniform(0, 1, len(stars)))
    places = (np.concatenate([x, hosts["x"] + rng.normal(0, 1.0, len(hosts)), stars["x"] + radius * np.cos(angle)]),
              np.concatenate([y, hosts["y"] + rng.normal(0, 1.0, len(hosts)), stars["y"] + radius * np.sin(angle)]))
    points = np.zeros(len(places[0]), POINT)
    points["id"] = np.concatenate([first + np.arange(len(rows)) for first, rows in ((BLANK, x), (HOST, hosts), (NEAR, stars))])
    points["ra"], points["dec"] = truth.true_wcs.sky(*places)
    limit = ideal_limit(truth) - 1.25 * np.log10(1.0 + 1.0 / epochs)
    snr = rng.uniform(*SNR_FAINT, len(points))
    bright = rng.uniform(0, 1, len(points)) < BRIGHT_SHARE
    snr[bright] = np.exp(rng.uniform(*np.log(SNR_BRIGHT), np.count_nonzero(bright)))
    points["mag"] = limit - 2.5 * np.log10(snr / 5.0)
    return points


def _ideal_snr(truth: SimulatedQuadrant, epochs: list[SimulatedQuadrant], reference: np.ndarray, sources: np.ndarray) -> np.ndarray:
    """S/N of the best linear detection of each source: noise of the empty sky, of an ideal reference (mean of the epochs, true PSFs), of
    the static light and of the source.
    """
    ny, nx = truth.raw.shape
    psf = truth.psf.render(nx / 2, ny / 2)
    scale = np.array([10.0 ** (0.4 * (truth.zero_point - epoch.zero_point)) for epoch in epochs])
    mean_psf = np.mean([epoch.psf.render(nx / 2, ny / 2) for epoch in epochs], axis=0)
    v_ref = np.mean(scale**2 * [sky_variance(epoch) for epoch in epochs]) / len(epochs)
    power, power_ref = (np.abs(np.fft.fft2(p, (64, 64))) ** 2 for p in (psf, mean_psf))
    empty = sky_variance(truth)
    # What the noise of the reference costs on empty sky, frequency by frequency, is taken to cost the same share everywhere.
    cost = np.mean(power * power_ref / (empty * power_ref + v_ref * power)) / np.mean(power / empty)
    half = psf.shape[0] // 2
    static = np.pad(reference, half, mode="edge")
    snr = np.empty(len(sources))
    for n, row in enumerate(sources):
        i, j = round(row["x"]), round(row["y"])
        under = np.clip(static[j:j + 2 * half + 1, i:i + 2 * half + 1], 0.0, None)
        snr[n] = np.sqrt(cost * np.sum((row["dn"] * psf) ** 2 / (empty + (under + row["dn"] * psf) / truth.gain)))
    return snr
