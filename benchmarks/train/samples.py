"""Labelled events: injected and varying sources, and everything else, on differences of simulated skies with all artefacts in."""

from __future__ import annotations

import sys
import tempfile
import time
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from scipy.spatial import cKDTree

from benchmarks.truth import CONFIG, Case, blank_places, ideal_limit
from benchmarks.truth import measure as measure_epoch
from ztfluigi.algorithms import cutouts, events, real_bogus
from ztfluigi.algorithms.catalogue import measure_quadrant
from ztfluigi.algorithms.coadd import coadd, footprint
from ztfluigi.algorithms.noise import pixel_sigma
from ztfluigi.algorithms.subtract import subtract
from ztfluigi.model.images import Calibrated, Coadd
from ztfluigi.model.psf import PsfModel
from ztfluigi.simulate import scene
from ztfluigi.simulate.exposure import GALAXY, POINT, STAR, STREAK
from ztfluigi.simulate.scene import SimulatedQuadrant
from ztfluigi.tasks.reference import as_quadrant

DENSITIES = ("high-lat", "plane")
BOGUS, BLANK, HOST, VARIABLE, MOVER = range(5)
CLASSES = ("bogus", "blank", "host", "variable", "mover")
INPUTS, EPOCHS = 5, 6
"""Science images in a reference, and images differenced with it."""
NUMBERS = {BLANK: 90, HOST: 60, VARIABLE: 60, MOVER: 60}
"""Sources injected in an image of 1024 x 1024 pixels."""
ID = 1_000_000
"""Ids of a class start at its number times this."""
EDGE_PIX = 3.0
"""Injected sources keep this distance from the edge, no more: nearness to it alone must not look bogus."""
REAL_PIX, UNSURE_PIX = 2.0, 4.0
"""An event this near to a source is that source; one a little farther is left out."""
SPIKES, DIPOLES, DARK = 60, 60, 40
"""Unmasked cosmic rays, displaced stars and dark pixels planted in an image: what masks and registration miss now and then, and other
surveys more."""
VARIED_SNR = 4.0
"""A catalogued object that changed by this many errors is real; one that changed less, but not nothing, is left out."""
VARIED_MAG = 0.01
QUIET_PIX, QUIET_SNR, NOISE_SCORE = 8.0, 30.0, 6.0
"""A false event below this score that is not planted, with no star or galaxy of more than this many errors of its flux near it, is a peak of
the noise: the sky holds nothing else there, but for cosmic rays too faint to be told from it."""


@dataclass
class Samples:
    """Events of many skies. table : EVENT rows. features, inputs (float16) : what the two classifiers see. label : class. sky : number of
    the sky. passed : what the light filter lets through. plane : whether the sky is crowded. planted : bogus events of planted artefacts.
    noise : bogus events that are peaks of the noise."""

    table: np.ndarray
    features: np.ndarray
    inputs: np.ndarray
    label: np.ndarray
    sky: np.ndarray
    passed: np.ndarray
    plane: np.ndarray
    planted: np.ndarray
    noise: np.ndarray

    def take(self, chosen) -> Samples:
        """The chosen rows."""
        return Samples(*(getattr(self, name)[chosen] for name in self.__dataclass_fields__))


def join(parts: list[Samples]) -> Samples:
    """All rows of several."""
    return Samples(*(np.concatenate([getattr(part, name) for part in parts]) for name in Samples.__dataclass_fields__))


@dataclass
class Image:
    """A measured image to be differenced, its truth (without pixels), and the places of planted artefacts (n, 2)."""

    science: Calibrated
    psf: PsfModel
    psfcat: np.ndarray
    magzp: float
    truth: SimulatedQuadrant
    planted: np.ndarray


@dataclass
class Sky:
    """A reference with its catalogue, the mean light of every object in it (ids, light in units of magnitude 0), and images."""

    case: Case
    reference: Coadd
    refcat: np.ndarray
    mean: tuple[np.ndarray, np.ndarray]
    images: list[Image]


def of_skies(skies: int, seed: int, processes: int) -> Samples:
    """Events of `skies` skies of each density, no two with the same number, so many made side by side."""
    wanted = [(density, 100_000 * seed + 1000 * n + k) for k in range(skies) for n, density in enumerate(DENSITIES)]
    if processes == 1:
        return join([_told(one) for one in wanted])
    with get_context("spawn").Pool(processes) as pool:
        return join(pool.map(_told, wanted, chunksize=1))


def _told(one: tuple[str, int]) -> Samples:
    """`of_sky`, with a line about it."""
    started = time.process_time()
    found = of_sky(*one)
    print(f"{one[0]} sky {one[1]}: {np.count_nonzero(found.label)} real, {np.count_nonzero(found.label == BOGUS)} bogus events, "
          f"{time.process_time() - started:.0f} CPU-seconds", file=sys.stderr, flush=True)
    return found


def of_sky(density: str, seed: int) -> Samples:
    """Events of one sky: a reference of `INPUTS` images and `EPOCHS` differences, 1024 x 1024 pixels each."""
    return difference(simulate(density, seed))


def simulate(density: str, seed: int) -> Sky:
    """Everything of a sky that comes before the difference."""
    case = Case(density, seed, True)
    rng = np.random.default_rng([seed, 31])
    plain = _simulate(case, 0)
    steady = _variables(plain, rng)
    with tempfile.TemporaryDirectory(prefix="ztfluigi-train-") as folder:
        inputs = [measure_epoch(_simulate(case, n, points=steady), Path(folder)) for n in range(INPUTS)]
        wcs, shape = footprint([epoch.image().wcs for epoch in inputs], [case.camera.shape] * INPUTS)
        made = coadd(lambda i: inputs[i].image(), [epoch.magzp for epoch in inputs], wcs=wcs, shape=shape,
                     filter_code=plain.conditions.filter, config=CONFIG["reference"])
        found = measure_quadrant(as_quadrant(made), zero_point=made.magzp, config=CONFIG)
        made.psf = found.psf
        return Sky(case, made, found.psfcat, _mean_light(inputs), [_image(case, INPUTS + n, plain, steady, rng, Path(folder)) for n in range(EPOCHS)])


def _image(case: Case, number: int, plain, steady, rng, folder: Path) -> Image:
    points, streaks = _sources(plain, steady, rng)
    epoch = measure_epoch(_simulate(case, number, points=points, streaks=streaks), folder)
    science = epoch.image()
    artefacts = np.concatenate([_plant(science, epoch, rng), _darken(science, np.random.default_rng([case.seed, number, 13]))])
    science.sigma = pixel_sigma(science.data, science.gain, science.read_noise)
    return Image(science, epoch.found.psf, epoch.found.psfcat, epoch.magzp, epoch.truth, artefacts)


def difference(sky: Sky) -> Samples:
    """Events of all images of a sky."""
    return join([_events(sky, image) for image in sky.images])


def _events(sky: Sky, image: Image) -> Samples:
    result = subtract(image.science, image.psf, image.magzp, sky.reference, psfcat_sci=image.psfcat, psfcat_ref=sky.refcat,
                      config=CONFIG["difference"])
    table = events.extract(result, wcs=image.science.wcs, psfcat_ref=sky.refcat, reference_magzp=sky.reference.magzp, config=CONFIG["events"])
    table = table[table["nbad"] == 0]
    label = _label(table, image.truth, sky.mean)
    table, label = table[label >= 0], label[label >= 0]
    n, plane = len(table), sky.case.density == "plane"
    stamps = np.stack([cutouts.cut(pixels, table["xpos"] - 1, table["ypos"] - 1)
                       for pixels in (image.science.data, result.reference, result.data)], axis=1)
    passed = events.light_filter(table, config=CONFIG["event_filter"]) == ""
    scaled = real_bogus.normalised(stamps, table["isdiffpos"] == "t")
    planted = (label == BOGUS) & (cKDTree(image.planted).query(np.column_stack([table["xpos"], table["ypos"]]) - 1.0)[0] < UNSURE_PIX)
    noise = (label == BOGUS) & ~planted & (table["scorr"] < NOISE_SCORE) & _quiet(table, image.truth.objects)
    return Samples(table, real_bogus.features(table, scaled), real_bogus.network_inputs(scaled).astype(np.float16), label,
                   np.full(n, sky.case.seed), passed, np.full(n, plane), planted, noise)


def _quiet(table: np.ndarray, objects: np.ndarray) -> np.ndarray:
    """Whether nothing bright lies near each event."""
    tree = cKDTree(np.column_stack([objects["x"], objects["y"]]))
    near = tree.query_ball_point(np.column_stack([table["xpos"], table["ypos"]]) - 1.0, QUIET_PIX)
    return np.array([objects["dn"][rows].max(initial=0.0) for rows in near]) < QUIET_SNR * table["sigflux"]


def _simulate(case: Case, number: int, **options):
    """One epoch; those to be differenced have more artefacts, and seeing of their own."""
    if number >= INPUTS:
        options |= {"seeing_arcsec": float(np.random.default_rng([case.seed, number]).uniform(1.7, 3.2)), "cosmic_rays": 4.0,
                    "trails": int(number % 2)}
    return scene.simulate_quadrant(case.camera, **{**scene.epoch_options(number, **case.options), **options})


def _plant(image, epoch, rng) -> np.ndarray:
    """Put unmasked spikes anywhere and displacements under stars into an image; returns their places (n, 2)."""
    ny, nx = image.data.shape
    noise = float(np.median(image.sigma))
    places = _spikes(image, SPIKES, noise, rng)
    stars = epoch.found.psfcat
    stars = stars[(stars["snr"] > 30) & (np.abs(stars["xpos"] - nx / 2) < nx / 2 - 15) & (np.abs(stars["ypos"] - ny / 2) < ny / 2 - 15)]
    stars = stars[rng.permutation(len(stars))[:DIPOLES]]
    for star in stars:
        x, y = star["xpos"] - 1.0, star["ypos"] - 1.0
        i, j = round(x), round(y)
        angle, step = rng.uniform(0, 2 * np.pi), min(1.0, rng.uniform(5.0, 25.0) / star["snr"] * 3.0)
        moved = epoch.found.psf.render(x, y, 25, x - i + step * np.cos(angle), y - j + step * np.sin(angle))
        image.data[j - 12:j + 13, i - 12:i + 13] += (star["flux"] * (moved - epoch.found.psf.render(x, y, 25, x - i, y - j))).astype(np.float32)
    return np.concatenate([places, np.column_stack([stars["xpos"], stars["ypos"]]) - 1.0])


def _darken(image, rng) -> np.ndarray:
    """Pixels that lack light, as after a cosmic ray in the reference; returns their places."""
    return _spikes(image, DARK, -float(np.median(image.sigma)), rng)


def _spikes(image, number: int, unit: float, rng) -> np.ndarray:
    """Add 6 to 160 times `unit` [DN] to one to three pixels in a row at each of the places, which are returned (n, 2)."""
    ny, nx = image.data.shape
    places = np.column_stack([rng.uniform(6, nx - 7, number), rng.uniform(6, ny - 7, number)])
    for x, y in places:
        angle, strength = rng.uniform(0, np.pi), unit * 10.0 ** rng.uniform(0.8, 2.2)
        for t in range(rng.integers(1, 4)):
            image.data[round(y + t * np.sin(angle)), round(x + t * np.cos(angle))] += np.float32(strength * rng.uniform(0.5, 1.0))
    return places


def _magnitudes(truth, number: int, rng) -> np.ndarray:
    """From a little below the limit to well above: most are faint."""
    return ideal_limit(truth) + 0.2 - rng.exponential(1.2, number).clip(0, 5.5)


def _variables(plain, rng) -> np.ndarray:
    """Light added to stars in every image of the reference."""
    ny, nx = plain.raw.shape
    stars = plain.objects[(plain.objects["kind"] == STAR) & (plain.objects["mag"] > 15.0) & (plain.objects["mag"] < 21.0)]
    stars = stars[(np.abs(stars["x"] - nx / 2) < nx / 2 - 20) & (np.abs(stars["y"] - ny / 2) < ny / 2 - 20)]
    stars = stars[rng.permutation(len(stars))[:NUMBERS[VARIABLE]]]
    points = _points(plain, VARIABLE, stars["x"], stars["y"], rng)
    points["mag"] = np.minimum(points["mag"], stars["mag"] + 2.5)
    return points


def _points(plain, label: int, x, y, rng) -> np.ndarray:
    points = np.zeros(len(x), POINT)
    points["id"], points["mag"] = label * ID + np.arange(len(x)), _magnitudes(plain, len(x), rng)
    points["ra"], points["dec"] = plain.true_wcs.sky(x, y)
    return points


def _sources(plain, steady, rng) -> tuple[np.ndarray, np.ndarray]:
    """Points and short streaks of one image: new ones in blank places and hosts, stars brighter or fainter, movers anywhere."""
    ny, nx = plain.raw.shape
    blank = _points(plain, BLANK, *blank_places(plain, NUMBERS[BLANK], rng, margin=EDGE_PIX), rng)
    galaxies = plain.objects[(plain.objects["kind"] == GALAXY) & (plain.objects["mag"] < 20.7)]
    galaxies = galaxies[(np.abs(galaxies["x"] - nx / 2) < nx / 2 - 20) & (np.abs(galaxies["y"] - ny / 2) < ny / 2 - 20)]
    galaxies = galaxies[rng.permutation(len(galaxies))[:NUMBERS[HOST]]]
    spread = rng.normal(0, 1.2, (2, len(galaxies)))
    host = _points(plain, HOST, galaxies["x"] + spread[0], galaxies["y"] + spread[1], rng)
    changed = steady.copy()
    light = 10.0 ** (-0.4 * steady["mag"])
    change = 10.0 ** (-0.4 * _magnitudes(plain, len(steady), rng)) * rng.choice([-1.0, 1.0], len(steady))
    changed["mag"] = -2.5 * np.log10(np.maximum(light + change, 1e-3 * light))
    n = NUMBERS[MOVER]
    mover = _points(plain, MOVER, rng.uniform(EDGE_PIX, nx - EDGE_PIX, n), rng.uniform(EDGE_PIX, ny - EDGE_PIX, n), rng)
    slow, fast = mover[:n // 2], mover[n // 2:]
    streaks = np.zeros(len(fast), STREAK)
    half, angle = rng.uniform(0.1, 1.0, len(fast)) / 3600.0, rng.uniform(0, 2 * np.pi, len(fast))
    streaks["id"], streaks["mag"] = -fast["id"], fast["mag"]
    for sign, end in ((-1, "1"), (1, "2")):
        streaks["ra" + end] = fast["ra"] + sign * half * np.cos(angle) / np.cos(np.radians(fast["dec"]))
        streaks["dec" + end] = fast["dec"] + sign * half * np.sin(angle)
    return np.concatenate([blank, host, changed, slow]), streaks


def _mean_light(inputs) -> tuple[np.ndarray, np.ndarray]:
    """(ids, mean light) of every object over those of the reference's images that have it, in units of magnitude 0.

    Near the edge that is not all of them: images do not point exactly alike.
    """
    seen = np.concatenate([epoch.truth.objects for epoch in inputs])
    ids, place = np.unique(seen["id"], return_inverse=True)
    return ids, np.bincount(place, 10.0 ** (-0.4 * seen["mag"])) / np.bincount(place)


def _label(table: np.ndarray, truth, mean) -> np.ndarray:
    """Class of each event; -1 where it is uncertain."""
    label = np.full(len(table), BOGUS)
    if not len(table):
        return label
    objects = truth.objects
    ids, light = mean
    place = np.searchsorted(ids, objects["id"]).clip(0, len(ids) - 1)
    before = np.where(ids[place] == objects["id"], light[place], 0.0)
    now = 10.0 ** (-0.4 * objects["mag"])
    injected = (objects["id"] >= BLANK * ID) & (objects["id"] < (MOVER + 1) * ID)
    moved = injected | (np.abs(now - before) > VARIED_MAG * before) & (before > 0)
    x, y = objects["x"][moved], objects["y"][moved]
    kind = np.where(injected, objects["id"] // ID, VARIABLE)[moved]
    dn = ((now - before) * 10.0 ** (0.4 * truth.zero_point))[moved]
    if len(truth.streaks):
        ends = [truth.true_wcs.pixel(truth.streaks["ra" + end], truth.streaks["dec" + end]) for end in "12"]
        x = np.concatenate([x, (ends[0][0] + ends[1][0]) / 2])
        y = np.concatenate([y, (ends[0][1] + ends[1][1]) / 2])
        kind = np.concatenate([kind, np.full(len(truth.streaks), MOVER)])
        dn = np.concatenate([dn, 10.0 ** (0.4 * (truth.zero_point - truth.streaks["mag"]))])
    sign = np.where(table["isdiffpos"] == "t", 1.0, -1.0)
    tree = cKDTree(np.column_stack([x, y]))
    for n, near in enumerate(tree.query_ball_point(np.column_stack([table["xpos"], table["ypos"]]) - 1.0, UNSURE_PIX)):
        if not near:
            continue
        distance = np.hypot(x[near] - table["xpos"][n] + 1, y[near] - table["ypos"][n] + 1)
        sure = (distance < REAL_PIX) & (sign[n] * dn[near] > VARIED_SNR * table["sigflux"][n])
        label[n] = kind[near][np.argmin(np.where(sure, distance, np.inf))] if sure.any() else -1
    return label
