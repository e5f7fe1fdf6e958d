"""Simulated epochs, reduced and measured by the survey's own functions, and what no measurement of them can beat."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from scipy.interpolate import RegularGridInterpolator
from scipy.spatial import cKDTree

from benchmarks import meter
from targets.codecs import image as image_codec
from ztfluigi.algorithms import limits
from ztfluigi.algorithms.catalogue import Catalogue, measure_quadrant
from ztfluigi.algorithms.instrumental import Reduced, reduce_quadrant
from ztfluigi.algorithms.noise import pixel_sigma
from ztfluigi.algorithms.overscan import subtract_overscan
from ztfluigi.model.camera import Camera, load_camera
from ztfluigi.model.images import Calibrated
from ztfluigi.model.maskbits import UNUSABLE, Mask
from ztfluigi.simulate import scene
from ztfluigi.simulate.exposure import POINT
from ztfluigi.simulate.scene import SimulatedQuadrant
from ztfluigi.tasks.settings import SECTIONS

CONFIG = {name: section() for name, section in SECTIONS.items()}
"""Every section as documented, whatever luigi.cfg says."""
SUFFIX = {"high-lat": "high", "plane": "plane"}
WHOLE_REFERENCE = 20
MOVERS, MOVER_STEP_PIX = 12, 30.0
EDGE_PIX = 15


@dataclass(frozen=True)
class Case:
    """One sky: its density, seed, and whether quadrants are small."""

    density: str
    seed: int
    quick: bool

    @property
    def camera(self) -> Camera:
        camera = load_camera("ztf")
        return replace(camera, shape=(1024, 1024)) if self.quick else camera

    @property
    def options(self) -> dict:
        """Density and seed as the simulator takes them; only the sparse small sky is made denser, to hold enough calibrators."""
        return {"density": self.density, "seed": self.seed, "boost": 1.0 if self.density == "plane" else None}

    def figure(self, name: str, value: float, unit: str, n: int, target: float | None, *, suffix: bool = True) -> None:
        """Print one figure."""
        name = f"{name}.{SUFFIX[self.density]}" if suffix else name
        meter.figure(name, value, unit, n, target, self.seed)


@dataclass
class Epoch:
    """A measured epoch. `truth` has lost its images (their shape is left); the calibrated image waits in a file."""

    truth: SimulatedQuadrant
    found: Catalogue
    path: Path

    def image(self) -> Calibrated:
        """The science image as the reference and the difference read it: noise from its counts."""
        image = image_codec.read_calibrated(self.path)[0]
        image.sigma = pixel_sigma(image.data, image.gain, image.read_noise)
        return image

    @property
    def magzp(self) -> float:
        return self.found.zero_point.magzp


def reduced(truth: SimulatedQuadrant) -> Reduced:
    """Overscan, calibration with the true response and bias as masters, artefact masks and astrometry."""
    bad = np.where(truth.dead, Mask.DEAD, 0).astype(np.uint16) | np.where(truth.noisy, Mask.NOISY, 0).astype(np.uint16)
    image = subtract_overscan(truth.raw, truth.overscan, config=CONFIG["overscan"]).data
    return reduce_quadrant(image, bias=truth.bias, flat=np.where(truth.dead, np.float32(1), truth.response), mask=bad, gain=truth.gain,
                           read_noise=truth.read_noise, nonlinearity=truth.nonlinearity, saturation_dn=truth.saturation_dn,
                           gaia=truth.gaia, prior=truth.nominal_wcs, jd=truth.jd_mid, config=CONFIG,
                           ghosts=truth.camera.ghosts, zero_point=truth.camera.filter(truth.conditions.filter).zero_point)


def measure(truth: SimulatedQuadrant, folder: Path) -> Epoch:
    """Reduce, measure and put aside one epoch."""
    image = reduced(truth).calibrated
    found = measure_quadrant(image, ps1=truth.ps1, filter_code=truth.conditions.filter, config=CONFIG)
    path = folder / f"{truth.conditions.number}.fits"
    image_codec.write_calibrated(path, image, ())
    return Epoch(slim(truth), found, path)


def slim(truth: SimulatedQuadrant) -> SimulatedQuadrant:
    """The truth with every image replaced by one zero seen in its shape."""
    shape = truth.raw.shape
    images = [f.name for f in fields(truth) if isinstance(getattr(truth, f.name), np.ndarray) and getattr(truth, f.name).shape == shape]
    return replace(truth, **{name: np.broadcast_to(getattr(truth, name).dtype.type(0), shape) for name in images})


@dataclass
class Night:
    """Epochs of one sky; enough of them for outliers to be clipped hold moving objects."""

    epochs: list[Epoch]
    movers: list[np.ndarray | None]
    folder: tempfile.TemporaryDirectory


@lru_cache(maxsize=1)
def night(case: Case) -> Night:
    """The epochs that several areas share: 20 (a whole reference) of a sparse sky, 5 of a crowded one."""
    count = WHOLE_REFERENCE if case.density == "high-lat" else 5
    folder = tempfile.TemporaryDirectory(prefix="ztfluigi-accuracy-")
    movers = moving_points(simulate(case, 0), count) if count == WHOLE_REFERENCE else [None] * count
    epochs = [measure(simulate(case, n, points=movers[n]), Path(folder.name)) for n in range(count)]
    return Night(epochs, movers, folder)


def simulate(case: Case, number: int, **options) -> SimulatedQuadrant:
    """One epoch of the case's sky."""
    return scene.simulate_quadrant(case.camera, **scene.epoch_options(number, **case.options), **options)


def moving_points(truth: SimulatedQuadrant, count: int) -> list[np.ndarray]:
    """POINT rows of each epoch: objects that step over blank places."""
    x, y = blank_places(truth, MOVERS, np.random.default_rng(truth.conditions.number), margin=20.0 + MOVER_STEP_PIX * count / 2)
    rows = []
    for n in range(count):
        points = np.zeros(len(x), POINT)
        points["id"], points["mag"] = -1 - np.arange(len(x)), np.linspace(17.5, 19.0, len(x))
        points["ra"], points["dec"] = truth.true_wcs.sky(x + MOVER_STEP_PIX * (n - count / 2), y)
        rows.append(points)
    return rows


def blank_places(truth: SimulatedQuadrant, number: int, rng, *, margin: float = 30.0, apart: float = 24.0, light_dn: float = 250.0,
                 reach: float = 8.0) -> tuple[np.ndarray, np.ndarray]:
    """Up to `number` zero-based places `apart` pixels from each other and `reach` from any object of more than `light_dn`."""
    ny, nx = truth.raw.shape
    x, y = rng.uniform(margin, nx - margin, 20 * number), rng.uniform(margin, ny - margin, 20 * number)
    bright = truth.objects[truth.objects["dn"] > light_dn]
    far = reach * (1.0 + np.clip(np.log10(bright["dn"] / light_dn), 0, None))
    blank = np.ones(len(x), bool)
    tree = cKDTree(np.column_stack([x, y]))
    for place, radius in zip(np.column_stack([bright["x"], bright["y"]]), far, strict=True):
        blank[tree.query_ball_point(place, radius)] = False
    chosen: list[int] = []
    taken = np.zeros(len(x), bool)
    for n in np.flatnonzero(blank):
        if not taken[n] and len(chosen) < number:
            chosen.append(n)
            taken[tree.query_ball_point([x[n], y[n]], apart)] = True
    return x[chosen], y[chosen]


def light_fraction(truth: SimulatedQuadrant):
    """Function (x, y) -> part of a star's light within 12 pixels, which is what a PSF flux means."""
    ny, nx = truth.raw.shape
    gx, gy = np.linspace(0, nx - 1, 5), np.linspace(0, ny - 1, 5)
    table = [[truth.psf.aperture_fraction(x, y) for x in gx] for y in gy]
    inside = RegularGridInterpolator((gy, gx), table, bounds_error=False, fill_value=None)
    return lambda x, y: inside(np.column_stack([y, x]))


def true_magzp(truth: SimulatedQuadrant) -> float:
    """Zero point of PSF fluxes."""
    ny, nx = truth.raw.shape
    grid = np.meshgrid(np.linspace(0, nx - 1, 9), np.linspace(0, ny - 1, 9))
    return truth.zero_point + 2.5 * np.log10(np.mean(light_fraction(truth)(grid[0].ravel(), grid[1].ravel())))


def sky_variance(truth: SimulatedQuadrant) -> float:
    """Variance of an empty pixel [DN^2]."""
    return truth.sky_dn / truth.gain + (truth.read_noise / truth.gain) ** 2


def ideal_limit(truth: SimulatedQuadrant) -> float:
    """Five-sigma limit of an isolated star under the true PSF [mag]."""
    ny, nx = truth.raw.shape
    return limits.theoretical_limit(np.sqrt(sky_variance(truth)), truth.psf.render(nx / 2, ny / 2), truth.gain, truth.zero_point)


def bounds(truth: SimulatedQuadrant, dn) -> tuple[np.ndarray, np.ndarray]:
    """Cramer-Rao bounds of isolated stars of `dn` total light under the true PSF: (flux [DN], position per axis [pix])."""
    ny, nx = truth.raw.shape
    psf = truth.psf.render(nx / 2, ny / 2)
    slope = (truth.psf.render(nx / 2, ny / 2, dx=0.05) - truth.psf.render(nx / 2, ny / 2, dx=-0.05)) / 0.1
    grid = np.geomspace(10.0, 1e7, 60)
    variance = sky_variance(truth) + grid[:, None, None] * psf / truth.gain
    flux = np.sum(psf**2 / variance, axis=(1, 2)) ** -0.5
    place = np.sum((grid[:, None, None] * slope) ** 2 / variance, axis=(1, 2)) ** -0.5
    return tuple(np.exp(np.interp(np.log(dn), np.log(grid), np.log(bound))) for bound in (flux, place))


def width(values) -> float:
    """Half the distance of the 16th and 84th percentiles; NaN of nothing."""
    return 0.5 * float(np.subtract(*np.percentile(values, [84.13, 15.87]))) if len(values) else float("nan")


def pairs(x1, y1, x2, y2, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """Indices of mutually nearest places within `radius`."""
    if not len(x1) or not len(x2):
        return np.zeros(0, int), np.zeros(0, int)
    a, b = np.column_stack([x1, y1]), np.column_stack([x2, y2])
    distance, nearest = cKDTree(b).query(a, distance_upper_bound=radius)
    _, back = cKDTree(a).query(b)
    first = np.flatnonzero(np.isfinite(distance))
    first = first[back[nearest[first]] == first]
    return first, nearest[first]


@dataclass(frozen=True)
class Matched:
    """Clean catalogue rows and the true stars they are, row by row; `snr` is the ideal one, `flux` the true PSF flux [DN]."""

    rows: np.ndarray
    stars: np.ndarray
    snr: np.ndarray
    flux: np.ndarray


def matched(epoch: Epoch) -> Matched:
    """Stars of an epoch away from the edges that were measured on usable pixels."""
    truth, cat = epoch.truth, epoch.found.psfcat
    ny, nx = truth.raw.shape
    cat = cat[((cat["flags"].astype(np.int64) & UNUSABLE) == 0) & np.isfinite(cat["flux"]) & (cat["flux"] > 0)]
    inside = (np.abs(cat["xpos"] - 1 - nx / 2) < nx / 2 - EDGE_PIX) & (np.abs(cat["ypos"] - 1 - ny / 2) < ny / 2 - EDGE_PIX)
    cat, stars = cat[inside], truth.stars
    i, j = pairs(cat["xpos"] - 1, cat["ypos"] - 1, stars["x"], stars["y"], 1.5)
    stars = stars[j]
    flux = stars["dn"] * light_fraction(truth)(stars["x"], stars["y"])
    return Matched(cat[i], stars, stars["dn"] / bounds(truth, stars["dn"])[0], flux)
