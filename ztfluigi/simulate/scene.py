"""Simulated quadrants in memory, for tests and benchmarks: one call gives pixels, calibrators and every truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ztfluigi.model.camera import Camera
from ztfluigi.model.wcs import TpvWcs
from ztfluigi.simulate import detector as detectors
from ztfluigi.simulate import exposure, optics, sky
from ztfluigi.simulate.exposure import OBSERVED, POINT, STAR, STREAK, TRAIL  # noqa: F401  part of this interface
from ztfluigi.simulate.optics import Conditions, TruePsf
from ztfluigi.simulate.seeds import generator

DEFAULT_OBSJD = 2458430.8
"""2018-11-08; field 505 stands high then."""
DEFAULT_FIELD = 505
CALIBRATOR_MARGIN_DEG = 2.0 / 60.0


@dataclass
class SimulatedQuadrant:
    """One raw quadrant and all that is true of it. Arrays are [y, x], positions zero-based pixels, light in DN at mean response.

    raw uint16 (ny, nx), overscan uint16 (ny, columns). objects : OBSERVED rows (kind STAR, GALAXY, TRANSIENT, MOVER), also those up to
    100 pixels (faint ones 25) outside; `mag` is the PS1 magnitude in the band. streaks : STREAK rows; trails : TRAIL rows.
    true_wcs : where the pixels look; nominal_wcs : what the header claims (commanded pointing, no distortion).
    zero_point, colour_term : m_PS1 = m_inst + zero_point + colour_term * colour for all the light of a star; `aperture_fraction` of it
    lies within 12 pixels. psf : TruePsf (render, fwhm, effective_fwhm). response, bias : true flat (mean 1) and bias structure [DN].
    saturated, cosmic_ray_mask, trail_mask, dead, noisy : bool (ny, nx); cosmic_dn float32 [DN]; the cosmic-ray mask holds the pixels
    where a ray added more than three times the noise of the sky. gaia, ps1 : catalogues with a 2 arcmin margin. gain [electron/DN],
    read_noise [electron].
    """

    camera: Camera
    ccdid: int
    qid: int
    conditions: Conditions
    field_centre: tuple[float, float]
    raw: np.ndarray
    overscan: np.ndarray
    objects: np.ndarray
    streaks: np.ndarray
    trails: np.ndarray
    true_wcs: TpvWcs
    nominal_wcs: TpvWcs
    zero_point: float
    colour_term: float
    aperture_fraction: float
    sky_dn: float
    psf: TruePsf
    response: np.ndarray
    bias: np.ndarray
    dead: np.ndarray
    noisy: np.ndarray
    saturated: np.ndarray
    cosmic_dn: np.ndarray
    cosmic_ray_mask: np.ndarray
    trail_mask: np.ndarray
    gaia: np.ndarray
    ps1: np.ndarray
    gain: float
    read_noise: float
    saturation_dn: float
    nonlinearity: tuple[float, float]

    @property
    def stars(self) -> np.ndarray:
        """OBSERVED rows of the stars whose centre lies on the quadrant."""
        rows, (ny, nx) = self.objects, self.raw.shape
        return rows[(rows["kind"] == STAR) & (rows["x"] > -0.5) & (rows["x"] < nx - 0.5) & (rows["y"] > -0.5) & (rows["y"] < ny - 0.5)]

    @property
    def jd_mid(self) -> float:
        """Middle of the exposure, JD."""
        return self.conditions.mjd_mid + 2400000.5

    def linear(self) -> np.ndarray:
        """The perfectly calibrated image, float32 (ny, nx) [DN]: true overscan level, bias, non-linearity and response taken out; NaN
        where dead.

        The level is the mean of the clean overscan columns, row by row smoothed; so the noise of the level is small but not zero.
        """
        level = self.overscan[:, detectors.TRAILING_COLUMNS:].mean(axis=1)
        kernel = np.ones(25) / 25
        level = np.convolve(np.pad(level, 12, mode="edge"), kernel, mode="valid")
        amplifier = self.camera.amplifier(self.ccdid, self.qid)
        data = detectors.linear_dn(self.raw - level[:, None].astype(np.float32) - self.bias, amplifier)
        return np.where(self.dead, np.nan, data / np.where(self.dead, 1.0, self.response)).astype(np.float32)


def boost_of(camera: Camera) -> float:
    """How much denser a small camera's sky is made, so that its quadrants hold enough calibrators."""
    area = camera.shape[0] * camera.shape[1] * (camera.pixel_scale_arcsec / 3600.0) ** 2
    return float(np.clip(0.16 / area, 1.0, 25.0))


def default_quadrant(camera: Camera) -> tuple[int, int]:
    """A quadrant near the centre of the field."""
    best = min(camera.amplifiers, key=lambda a: (np.hypot(*a.offset_deg).round(3), a.ccdid, a.qid))
    return best.ccdid, best.qid


def quadrant_sky(camera: Camera, ccdid: int, qid: int, field_centre: tuple[float, float], universe: sky.Sky,
                 margin_deg: float = CALIBRATOR_MARGIN_DEG) -> np.ndarray:
    """SOURCE rows of a quadrant's nominal footprint and a margin."""
    centre = camera.nominal_wcs(ccdid, qid, *field_centre).crval
    turn = abs(optics.convergence_rad(camera, ccdid, qid, *field_centre))
    half = [0.5 * n * camera.pixel_scale_arcsec / 3600.0 for n in camera.shape[::-1]]
    return universe.around(*centre, half[0] + turn * half[1] + margin_deg, half[1] + turn * half[0] + margin_deg)


def calibrators(camera: Camera, ccdid: int, qid: int, field_centre: tuple[float, float],
                universe: sky.Sky) -> tuple[np.ndarray, np.ndarray]:
    """(Gaia, PS1) tables of a field quadrant with the 2 arcmin margin."""
    sources = quadrant_sky(camera, ccdid, qid, field_centre, universe)
    return sky.gaia_table(sources, universe.seed), sky.ps1_table(sources, universe.seed)


def simulate_quadrant(camera: Camera, *, density: str = "high-lat", seed: int = 1, filter: str = "zr", seeing_arcsec: float = 2.0,
                      pointing_error_arcsec: tuple[float, float] | None = None, clouds_mag: float = 0.0, airmass: float = 1.1,
                      sky_factor: float = 1.0, number: int = 0, obsjd: float = DEFAULT_OBSJD, ccdid: int | None = None,
                      qid: int | None = None, field: int | tuple[float, float] = DEFAULT_FIELD, boost: float | None = None,
                      points: np.ndarray | None = None, streaks: np.ndarray | None = None, trails: int | np.ndarray = 0,
                      cosmic_rays: float = 1.0) -> SimulatedQuadrant:
    """Simulate one quadrant of one exposure.

    `seed` is the sky and the instrument, `number` the exposure: the same seed with another number is another epoch of the same sky.
    seeing_arcsec : FWHM before the pixels. pointing_error_arcsec : (east, north); None draws it (15 arcsec per axis). field : a field of
    the camera's grid, or (ra, dec) [deg]. boost : factor on the numbers of objects, None for the camera's own. points : POINT rows
    (id 0 and up: transients; below: movers). streaks : STREAK rows. trails : a number of satellite trails to draw, or TRAIL rows.
    cosmic_rays : factor on their number (about 75 in a full quadrant).
    A camera with another shape: `dataclasses.replace(camera, shape=(256, 256))`.
    """
    camera = camera.on(obsjd)
    chosen = default_quadrant(camera)
    ccdid, qid = (chosen[0] if ccdid is None else ccdid), (chosen[1] if qid is None else qid)
    centre = camera.fields()[field] if isinstance(field, int) else field
    draw = generator(seed, "pointing", number)
    error = tuple(draw.normal(0.0, 15.0, 2)) if pointing_error_arcsec is None else pointing_error_arcsec
    conditions = Conditions(filter, obsjd, number, seeing_arcsec, airmass, clouds_mag, sky_factor, error, camera.exposure_s)
    universe = sky.Sky(seed, density, boost_of(camera) if boost is None else boost)
    sources = quadrant_sky(camera, ccdid, qid, centre, universe, CALIBRATOR_MARGIN_DEG + np.hypot(*error) / 3600.0)
    if isinstance(trails, int):
        trails = random_trails(camera, trails, generator(seed, "trails", number, ccdid, qid))
    made = exposure.expose(camera, ccdid, qid, sources, centre, conditions, seed, points=points, streaks=streaks, trails=trails,
                           cosmic_rays=cosmic_rays)
    gaia, ps1 = calibrators(camera, ccdid, qid, centre, universe)
    amplifier = camera.amplifier(ccdid, qid)
    noise = np.hypot(np.sqrt(made.sky_dn / amplifier.gain), amplifier.read_noise / amplifier.gain)
    middle = (camera.crpix[0] - 1, camera.crpix[1] - 1)
    return SimulatedQuadrant(
        camera=camera, ccdid=ccdid, qid=qid, conditions=conditions, field_centre=centre, raw=made.raw, overscan=made.overscan,
        objects=made.objects, streaks=made.streaks, trails=made.trails, true_wcs=made.wcs,
        nominal_wcs=camera.nominal_wcs(ccdid, qid, *centre),
        zero_point=made.throughput.zero_point, colour_term=made.throughput.colour_term,
        aperture_fraction=made.psf.aperture_fraction(*middle),
        sky_dn=made.sky_dn, psf=made.psf, response=made.detector.response, bias=made.detector.bias, dead=made.detector.dead,
        noisy=made.detector.noisy, saturated=made.saturated, cosmic_dn=made.cosmic_dn, cosmic_ray_mask=made.cosmic_dn > 3.0 * noise,
        trail_mask=made.trail_mask, gaia=gaia, ps1=ps1, gain=amplifier.gain, read_noise=amplifier.read_noise,
        saturation_dn=camera.saturation_dn, nonlinearity=amplifier.nonlinearity)


def simulate_epochs(camera: Camera, count: int, *, first: int = 0, seeing_arcsec: tuple[float, float] = (2.0, 2.6),
                    airmass: tuple[float, float] = (1.05, 1.5), days: float = 1.0, points=None, **options) -> list[SimulatedQuadrant]:
    """Several epochs of one sky, `days` apart, seeing and airmass drawn between the limits; `points` is a list, one table (or None) an
    epoch.

    Options are those of `simulate_quadrant`. For many full-size epochs call `epoch_options` and simulate them one at a time.
    """
    points = [None] * count if points is None else points
    return [simulate_quadrant(camera, points=points[n], **epoch_options(first + n, seeing_arcsec=seeing_arcsec, airmass=airmass, days=days,
                                                                        **options))
            for n in range(count)]


def epoch_options(number: int, *, seeing_arcsec: tuple[float, float] = (2.0, 2.6), airmass: tuple[float, float] = (1.05, 1.5),
                  days: float = 1.0, seed: int = 1, obsjd: float = DEFAULT_OBSJD, **options) -> dict:
    """Arguments of `simulate_quadrant` for epoch `number` of a series."""
    draw = generator(seed, "epoch", number)
    return {"number": number, "seed": seed, "obsjd": obsjd + days * number, "seeing_arcsec": float(draw.uniform(*seeing_arcsec)),
            "airmass": float(draw.uniform(*airmass)), "sky_factor": float(draw.uniform(0.85, 1.3)), **options}


def simulate_bias(camera: Camera, number: int, *, seed: int = 1, ccdid: int | None = None,
                  qid: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """(raw, overscan) uint16 of a bias frame of the same detector."""
    ccdid, qid = (ccdid, qid) if ccdid and qid else default_quadrant(camera)
    instrument = detectors.make_detector(camera, ccdid, qid, seed)
    rng = generator(seed, "bias", number, ccdid, qid)
    made = detectors.read_out(instrument, camera, np.zeros(camera.shape, np.float32), 0.0, rng, shot_noise=False,
                              cosmic_electrons=exposure.cosmic_charge(camera.shape, 8.0, rng))
    return made.raw, made.overscan


def simulate_flat(camera: Camera, number: int, *, seed: int = 1, filter: str = "zr", led: int | None = None, level_dn: float = 15000.0,
                  exptime: float = 10.0, ccdid: int | None = None, qid: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """(raw, overscan) uint16 of a lamp flat of the same detector; the LEDs of the filter take turns."""
    ccdid, qid = (ccdid, qid) if ccdid and qid else default_quadrant(camera)
    instrument = detectors.make_detector(camera, ccdid, qid, seed)
    rng = generator(seed, "flat", number, ccdid, qid, camera.filter(filter).fid)
    leds = camera.filter(filter).leds
    light = detectors.lamp_pattern(camera, leds[number % len(leds)] if led is None else led, camera.shape)
    light *= np.float32(level_dn * (1.0 + 0.02 * rng.normal()))
    made = detectors.read_out(instrument, camera, light, exptime, rng,
                              cosmic_electrons=exposure.cosmic_charge(camera.shape, exptime + 8.0, rng))
    return made.raw, made.overscan


def random_trails(camera: Camera, count: int, rng) -> np.ndarray:
    """TRAIL rows of satellites that cross the whole quadrant."""
    ny, nx = camera.shape
    trails = np.zeros(count, TRAIL)
    for trail in trails:
        angle, reach = rng.uniform(0, np.pi), 1.5 * np.hypot(ny, nx)
        x, y = rng.uniform(0.25, 0.75) * nx, rng.uniform(0.25, 0.75) * ny
        trail["x1"], trail["y1"] = x - reach * np.cos(angle), y - reach * np.sin(angle)
        trail["x2"], trail["y2"] = x + reach * np.cos(angle), y + reach * np.sin(angle)
        trail["dn_per_pix"] = rng.uniform(60.0, 400.0)
    return trails


def transient_points(quadrant: SimulatedQuadrant, mags, *, seed: int = 1, first_id: int = 0, in_hosts: bool = False) -> np.ndarray:
    """POINT rows at random places on a quadrant, or inside galaxies drawn by light, for the exposure of `quadrant` or another epoch."""
    mags = np.asarray(mags, float)
    rng = generator(seed, "transients")
    ny, nx = quadrant.raw.shape
    x, y = rng.uniform(20, nx - 20, len(mags)), rng.uniform(20, ny - 20, len(mags))
    if in_hosts:
        rows = quadrant.objects
        rows = rows[(rows["kind"] == exposure.GALAXY) & (rows["mag"] < 20.5) & (np.abs(rows["x"] - nx / 2) < nx / 2 - 20)
                    & (np.abs(rows["y"] - ny / 2) < ny / 2 - 20)]
        chosen = rng.choice(len(rows), len(mags), replace=len(rows) < len(mags))
        x, y = rows["x"][chosen] + rng.normal(0, 1.0, len(mags)), rows["y"][chosen] + rng.normal(0, 1.0, len(mags))
    points = np.zeros(len(mags), POINT)
    points["id"], points["mag"] = first_id + np.arange(len(mags)), mags
    points["ra"], points["dec"] = quadrant.true_wcs.sky(x, y)
    return points
