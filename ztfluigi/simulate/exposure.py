"""One exposure of one quadrant: sky, sources, clouds, cosmic rays, trails, read out by the detector."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ztfluigi.model.camera import Camera
from ztfluigi.model.wcs import TpvWcs
from ztfluigi.simulate import detector as detectors
from ztfluigi.simulate import kernels, optics, sky
from ztfluigi.simulate.optics import SAMPLING, WIDE_FRACTION, WIDE_RATIO, Conditions, Throughput, TruePsf
from ztfluigi.simulate.seeds import generator

COSMIC_RAYS_PER_PIXEL = 8e-6
"""In a 30 s exposure; about 75 in a full quadrant."""
MARGIN_PIX = (100.0, 25.0)
"""Objects this far outside the quadrant still shed light into it: those above FAINT_DN, and the fainter ones."""
FAINT_DN = 2000.0

POINT = np.dtype([("id", "i8"), ("ra", "f8"), ("dec", "f8"), ("mag", "f8")])
"""An added point source: ICRS position at the time of the exposure, PS1 magnitude in the band (colour of the term 0)."""
STREAK = np.dtype([("id", "i8"), ("ra1", "f8"), ("dec1", "f8"), ("ra2", "f8"), ("dec2", "f8"), ("mag", "f8")])
"""A source that moves in a straight line during the exposure; `mag` is that of all its light."""
TRAIL = np.dtype([("x1", "f8"), ("y1", "f8"), ("x2", "f8"), ("y2", "f8"), ("dn_per_pix", "f8")])
"""A satellite's trail: end points [pix], light per pixel of length."""
OBSERVED = np.dtype([("id", "i8"), ("kind", "u1"), ("x", "f8"), ("y", "f8"), ("ra", "f8"), ("dec", "f8"), ("mag", "f8"), ("dn", "f8")])
"""What an object was in one exposure: zero-based pixel, position and PS1 magnitude at that time, light [DN] at mean response."""
STAR, GALAXY, TRANSIENT, MOVER = range(4)


@dataclass
class QuadrantExposure:
    """A simulated quadrant and its truth. Masks are bool (ny, nx); `cosmic_dn` float32 (ny, nx), what cosmic rays added [DN]."""

    raw: np.ndarray
    overscan: np.ndarray
    wcs: TpvWcs
    psf: TruePsf
    throughput: Throughput
    sky_dn: float
    objects: np.ndarray
    streaks: np.ndarray
    trails: np.ndarray
    saturated: np.ndarray
    cosmic_dn: np.ndarray
    trail_mask: np.ndarray
    detector: detectors.Detector


def expose(camera: Camera, ccdid: int, qid: int, sources: np.ndarray, field_centre: tuple[float, float], conditions: Conditions,
           seed: int, *, points: np.ndarray | None = None, streaks: np.ndarray | None = None, trails: np.ndarray | None = None,
           cosmic_rays: float = 1.0) -> QuadrantExposure:
    """Expose a quadrant to the sky.

    Parameters
    ----------
    sources : SOURCE rows of the sky around it. field_centre : commanded (ra, dec) [deg].
    points : POINT rows (transients with kind TRANSIENT; ids below 0 are movers). streaks : STREAK rows. trails : TRAIL rows.
    cosmic_rays : factor on their number.
    """
    camera = camera.on(conditions.obsjd)
    passband = camera.filter(conditions.filter)
    instrument = detectors.make_detector(camera, ccdid, qid, seed)
    wcs = optics.true_wcs(camera, ccdid, qid, field_centre, seed, conditions)
    psf = optics.true_psf(camera, ccdid, qid, seed, conditions)
    light = optics.throughput(camera, ccdid, qid, seed, conditions)
    steps = [generator(seed, step, conditions.number, ccdid, qid) for step in ("sky level", "cosmic rays", "read out")]

    objects, galaxies = observe(camera.shape, sources, wcs, light, passband, conditions)
    objects = _with_points(objects, points, wcs, light, camera.shape)
    streaks = np.zeros(0, STREAK) if streaks is None else streaks
    trails = np.zeros(0, TRAIL) if trails is None else trails

    image, sky_dn = sky_level(camera, passband, conditions, steps[0])
    faint = 0.03 * np.sqrt(sky_dn / instrument.amplifier.gain)
    stars = objects[objects["kind"] != GALAXY]
    add_points(image, psf, stars["x"], stars["y"], stars["dn"], faint)
    _add_galaxies(image, psf, camera, objects[objects["kind"] == GALAXY], galaxies, faint)
    bright = objects[objects["dn"] > 2e6]
    for ghost in camera.ghosts:
        kernels.add_rings(image, *ghost.centre(bright["x"], bright["y"], camera.shape), ghost.brightness(bright["dn"]), ghost.inner_pix,
                          ghost.outer_pix)
    for streak in streaks:
        (x1, x2), (y1, y2) = wcs.pixel(np.array([streak["ra1"], streak["ra2"]]), np.array([streak["dec1"], streak["dec2"]]))
        add_line(image, psf, x1, y1, x2, y2, float(light.dn(streak["mag"], 0.0)), faint)
    trail_mask = np.zeros(camera.shape, bool)
    for trail in trails:
        length = np.hypot(trail["x2"] - trail["x1"], trail["y2"] - trail["y1"])
        layer = np.zeros(camera.shape, np.float32)
        add_line(layer, psf, trail["x1"], trail["y1"], trail["x2"], trail["y2"], float(trail["dn_per_pix"] * length), faint)
        trail_mask |= layer > np.sqrt(sky_dn / instrument.amplifier.gain)
        image += layer
    cosmic = cosmic_charge(camera.shape, conditions.exptime, steps[1], cosmic_rays)
    readout = detectors.read_out(instrument, camera, image, conditions.exptime, steps[2], cosmic_electrons=cosmic)
    cosmic_dn = cosmic / np.float32(instrument.amplifier.gain)
    return QuadrantExposure(readout.raw, readout.overscan, wcs, psf, light, sky_dn, objects, streaks, trails, readout.saturated, cosmic_dn,
                            trail_mask, instrument)


def observe(shape, sources: np.ndarray, wcs: TpvWcs, light: Throughput, passband, conditions: Conditions) -> tuple[np.ndarray, np.ndarray]:
    """(OBSERVED rows of the sources that reach the quadrant, the SOURCE rows of the galaxies among them in the same order)."""
    ra, dec = sky.positions(sources, conditions.year)
    x, y = wcs.pixel(ra, dec)
    mag = sources[passband.code[1]] + sky.brightening(sources, conditions.mjd_mid)
    dn = light.dn(mag, optics.colour(passband, sources))
    near = _near(shape, x, y, dn)
    rows = sources[near]
    objects = np.zeros(len(rows), OBSERVED)
    for name, values in (("id", sources["id"]), ("x", x), ("y", y), ("ra", ra), ("dec", dec), ("mag", mag), ("dn", dn)):
        objects[name] = values[near]
    objects["kind"] = np.where(rows["galaxy"], GALAXY, STAR)
    return objects, rows[rows["galaxy"]]


def _near(shape, x, y, dn) -> np.ndarray:
    margin = np.where(dn > FAINT_DN, *MARGIN_PIX)
    return (x > -margin) & (x < shape[1] + margin) & (y > -margin) & (y < shape[0] + margin)


def _with_points(objects: np.ndarray, points, wcs: TpvWcs, light: Throughput, shape) -> np.ndarray:
    if points is None or not len(points):
        return objects
    added = np.zeros(len(points), OBSERVED)
    added["id"], added["ra"], added["dec"], added["mag"] = points["id"], points["ra"], points["dec"], points["mag"]
    added["kind"] = np.where(points["id"] < 0, MOVER, TRANSIENT)
    added["x"], added["y"] = wcs.pixel(points["ra"], points["dec"])
    added["dn"] = light.dn(points["mag"], 0.0)
    return np.concatenate([objects, added[_near(shape, added["x"], added["y"], added["dn"])]])


def sky_level(camera: Camera, passband, conditions: Conditions, rng) -> tuple[np.ndarray, float]:
    """(float32 image [DN] of the empty sky, its mean): a level with airmass, a gradient and a curvature of percents."""
    level = passband.sky_dn * conditions.sky_factor * (1.0 + 0.3 * (conditions.airmass - 1.0)) * conditions.exptime / camera.exposure_s
    u, v = np.linspace(-1, 1, camera.shape[1], dtype=np.float32)[None, :], np.linspace(-1, 1, camera.shape[0], dtype=np.float32)[:, None]
    slope = rng.normal(0.0, [0.012, 0.012, 0.004, 0.004, 0.004]).astype(np.float32)
    return np.float32(level) * (1.0 + slope[0] * u + slope[1] * v + slope[2] * u * u + slope[3] * u * v + slope[4] * v * v), float(level)


def add_points(image: np.ndarray, psf: TruePsf, x, y, dn, floor: float, sampling: tuple[float, float] = SAMPLING) -> None:
    """Add point sources of `dn` total light at zero-based pixels."""
    x, y = np.asarray(x, float), np.asarray(y, float)
    kernels.add_points(image, x, y, np.asarray(dn, float), psf.form(x, y), WIDE_FRACTION, WIDE_RATIO, floor, *sampling)


def add_line(image: np.ndarray, psf: TruePsf, x1: float, y1: float, x2: float, y2: float, dn: float, floor: float) -> None:
    """Add a straight trail of evenly spread light, a point every half pixel."""
    n = 2 * int(np.ceil(np.hypot(x2 - x1, y2 - y1))) + 1
    t = (np.arange(n) + 0.5) / n
    add_points(image, psf, x1 + t * (x2 - x1), y1 + t * (y2 - y1), np.full(n, dn / n), floor / 4)


def _add_galaxies(image: np.ndarray, psf: TruePsf, camera: Camera, objects: np.ndarray, shapes: np.ndarray, floor: float) -> None:
    if not len(objects):
        return
    radius = shapes["radius_arcsec"] / camera.pixel_scale_arcsec
    number = np.clip(np.maximum(objects["dn"] / 30.0, 3.0 * radius**2), 4, 1200).astype(np.int64)
    dx, dy = np.empty(number.sum()), np.empty(number.sum())
    kernels.galaxy_points(radius, shapes["axis_ratio"].astype(float), shapes["angle"].astype(float),
                          shapes["bulge"].astype(float), number, dx, dy)
    repeat = np.repeat(np.arange(len(objects)), number)
    add_points(image, psf, objects["x"][repeat] + dx, objects["y"][repeat] + dy, (objects["dn"] / number)[repeat], floor / 4, (0.0, 9.0))


def cosmic_charge(shape: tuple[int, int], exptime: float, rng, factor: float = 1.0) -> np.ndarray:
    """Charge of cosmic rays, float32 (ny, nx) [electron]: straight tracks, most of them short, with a long tail in length and charge."""
    charge = np.zeros(shape, np.float32)
    n = rng.poisson(factor * COSMIC_RAYS_PER_PIXEL * shape[0] * shape[1] * max(exptime, 1.0) / 30.0)
    length = np.minimum(rng.exponential(4.0, n), 80.0)
    electrons = (600.0 + 500.0 * length) * rng.lognormal(0.0, 0.7, n)
    kernels.add_tracks(charge, rng.uniform(-0.5, shape[1] - 0.5, n), rng.uniform(-0.5, shape[0] - 0.5, n), length, rng.uniform(0, np.pi, n),
                       electrons, 8)
    return charge
