"""Telescope and atmosphere: the true point-spread function, the true sky coordinates, the throughput."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ztfluigi.model.camera import Camera
from ztfluigi.model.wcs import TpvWcs, deproject, project
from ztfluigi.simulate import kernels
from ztfluigi.simulate.seeds import generator

BETA = 3.5
WIDE_FRACTION = 0.10
"""Part of the light in a second, wider profile, so that the PSF is no plain Moffat function."""
WIDE_RATIO = 1.7
SAMPLING = (20.0, 150.0)
"""Squared distances [pix^2] inside which a pixel is integrated with nine and with four samples."""
EXTINCTION = {"zg": 0.20, "zr": 0.12, "zi": 0.07}
"""Magnitudes per airmass."""
MJD_2000 = 51544.5
SHUTTER_LOSS_S = 0.035
"""By how much the shutter is open shorter than EXPTIME."""


@dataclass(frozen=True)
class Conditions:
    """What differs from exposure to exposure. `number` selects the random numbers of this exposure.

    seeing_arcsec : FWHM of the star images at the centre of the quadrant, before the pixels. pointing_error_arcsec : (east, north).
    """

    filter: str
    obsjd: float
    number: int = 0
    seeing_arcsec: float = 2.0
    airmass: float = 1.1
    clouds_mag: float = 0.0
    sky_factor: float = 1.0
    pointing_error_arcsec: tuple[float, float] = (0.0, 0.0)
    exptime: float = 30.0
    shutter_delay_s: float = 1.0

    @property
    def mjd_mid(self) -> float:
        """Middle of the shutter's opening, which starts `shutter_delay_s` after OBSJD."""
        return self.obsjd - 2400000.5 + (self.shutter_delay_s + 0.5 * (self.exptime - SHUTTER_LOSS_S)) / 86400

    @property
    def year(self) -> float:
        return 2000.0 + (self.mjd_mid - MJD_2000) / 365.25


@dataclass(frozen=True)
class TruePsf:
    """Elliptical Moffat profile (beta 3.5) with a wider companion; width and shape vary over the quadrant.

    width : coefficients of the FWHM [pix] and e1, e2 : of the ellipticity (a - b)/(a + b) cos, sin 2 theta, each for 1, u, v, u^2, uv, v^2
    with u, v in -1..1 over the quadrant.
    """

    width: np.ndarray
    e1: np.ndarray
    e2: np.ndarray
    shape: tuple[int, int]

    def _terms(self, x, y) -> np.ndarray:
        u = 2.0 * np.asarray(x, float) / (self.shape[1] - 1) - 1.0
        v = 2.0 * np.asarray(y, float) / (self.shape[0] - 1) - 1.0
        return np.array([np.ones_like(u), u, v, u * u, u * v, v * v])

    def fwhm(self, x, y) -> np.ndarray:
        """FWHM of the main profile [pix], geometric mean of the axes, pixels not included."""
        return np.tensordot(self.width, self._terms(x, y), axes=1)

    def form(self, x, y) -> np.ndarray:
        """Quadratic forms (n, 3) as `kernels.add_points` takes them."""
        terms = self._terms(np.atleast_1d(x), np.atleast_1d(y))
        alpha = self.width @ terms / (2.0 * np.sqrt(2.0 ** (1.0 / BETA) - 1.0))
        e1, e2 = self.e1 @ terms, self.e2 @ terms
        e = np.hypot(e1, e2)
        norm = (1.0 - e * e) * alpha**2
        return np.stack([(1.0 + e * e - 2.0 * e1) / norm, -2.0 * e2 / norm, (1.0 + e * e + 2.0 * e1) / norm], axis=1)

    def render(self, x: float, y: float, size: int = 25, dx: float = 0.0, dy: float = 0.0) -> np.ndarray:
        """Unit-flux, pixel-integrated image (size, size) of the PSF at (x, y), its centre (dx, dy) from the middle pixel."""
        stamp = np.zeros((size, size))
        middle = size // 2
        kernels.add_points(stamp, np.array([middle + dx]), np.array([middle + dy]), np.ones(1), self.form(x, y), WIDE_FRACTION, WIDE_RATIO,
                           1e-30, *SAMPLING)
        return stamp

    def aperture_fraction(self, x: float, y: float, radius: float = 12.0) -> float:
        """Part of the light within `radius` pixels."""
        size = 2 * int(radius) + 3
        offset = np.arange(size) - size // 2
        return float(self.render(x, y, size)[np.hypot(offset[:, None], offset) <= radius].sum())

    def effective_fwhm(self, x: float, y: float) -> float:
        """FWHM [pix] with the pixel response, from the area above half the peak of the pixel-convolved profile."""
        reach = 1.2 * float(self.fwhm(x, y)) + 1.0
        grid = np.linspace(-reach, reach, 101)
        a, b, c = self.form(x, y)[0]
        nodes, weights = np.polynomial.legendre.leggauss(3)
        image = 0.0
        for xn, xw in zip(nodes / 2, weights / 2, strict=True):
            for yn, yw in zip(nodes / 2, weights / 2, strict=True):
                xx, yy = grid[None, :] + xn, grid[50:, None] + yn  # the lower half mirrors the upper one
                q = a * xx**2 + 2 * b * xx * yy + c * yy**2
                wing = (1 + q / WIDE_RATIO**2) ** -BETA / WIDE_RATIO**2
                image += xw * yw * ((1 - WIDE_FRACTION) * (1 + q) ** -BETA + WIDE_FRACTION * wing)
        level = 0.5 * image.max()
        soft = np.clip((image - level) / (0.06 * level) + 0.5, 0.0, 1.0)  # a soft edge counts parts of samples
        area = (2.0 * soft[1:].sum() + soft[0].sum()) * (grid[1] - grid[0]) ** 2
        return float(2.0 * np.sqrt(area / np.pi))


def true_psf(camera: Camera, ccdid: int, qid: int, seed: int, conditions: Conditions) -> TruePsf:
    """The PSF of one exposure and quadrant: optics of the quadrant, seeing and guiding of the exposure."""
    optics = generator(seed, "psf", ccdid, qid)
    night = generator(seed, "psf of exposure", conditions.number)
    base = conditions.seeing_arcsec / camera.pixel_scale_arcsec
    width = base * np.array([1.0, *optics.normal(0.0, 0.015, 2), *optics.normal(0.0, 0.010, 3)])
    e1 = np.array([0.0, *optics.normal(0.0, 0.012, 2), *optics.normal(0.0, 0.008, 3)])
    e2 = np.array([0.0, *optics.normal(0.0, 0.012, 2), *optics.normal(0.0, 0.008, 3)])
    e1[0] += night.normal(0.0, 0.02)
    e2[0] += night.normal(0.0, 0.02)
    return TruePsf(width, e1, e2, camera.shape)


def convergence_rad(camera: Camera, ccdid: int, qid: int, ra: float, dec: float) -> float:
    """Angle of the camera's north (that of the field centre) at a quadrant, from local north through east [rad]."""
    east, north = camera.amplifier(ccdid, qid).offset_deg
    centre = deproject(east, north, ra, dec)
    xi, eta = project(*deproject(east, north + 1e-3, ra, dec), float(centre[0]), float(centre[1]))
    return float(np.arctan2(xi, eta))


def true_wcs(camera: Camera, ccdid: int, qid: int, field_centre: tuple[float, float], seed: int, conditions: Conditions) -> TpvWcs:
    """Where the pixels of an exposure really look.

    Pointing error of the exposure, mounting error of the quadrant, rotation (mounting, tracking and the convergence of the meridians),
    a scale error, and a distortion that the camera description does not know, with a small part that changes from exposure to exposure.
    """
    mount = generator(seed, "mount", ccdid, qid)
    shake = generator(seed, "flexure", conditions.number, ccdid, qid)
    roll = generator(seed, "roll", conditions.number).normal(0.0, 0.004)
    error = np.array(conditions.pointing_error_arcsec) / 3600.0
    pointing = deproject(error[0], error[1], *field_centre)
    prior = camera.nominal_wcs(ccdid, qid, float(pointing[0]), float(pointing[1]))
    offset = mount.normal(0.0, 2.0, 2) / 3600.0
    centre = deproject(offset[0], offset[1], *prior.crval)
    angle = np.radians(mount.normal(0.0, 0.03) + roll) + convergence_rad(camera, ccdid, qid, *field_centre)
    scale = camera.pixel_scale_arcsec / 3600.0 * (1.0 + mount.normal(0.0, 5e-4) + shake.normal(0.0, 2e-5))
    cd = ((-scale * np.cos(angle), -scale * np.sin(angle)), (scale * np.sin(angle), -scale * np.cos(angle)))
    pv = [_distortion(known, mount, shake) for known in (prior.pv1, prior.pv2)]
    return replace(prior, crval=(float(centre[0]), float(centre[1])), cd=cd, pv1=pv[0], pv2=pv[1])


def _distortion(known, mount, shake) -> dict[int, float]:
    # Typical sizes of the coefficients in real headers (PV1_4 about -4.5e-4, PV1_7 1.3e-4, PV1_12 7.5e-4).
    sizes = {4: 4e-4, 5: 2e-4, 6: 2.5e-4, 7: 2e-4, 8: 1e-4, 9: 2e-4, 10: 1e-4, 12: 6e-4, 13: 4e-4, 14: 2e-4, 15: 3e-4, 16: 4e-4}
    terms = dict(known)
    for number, size in sizes.items():
        terms[number] = terms.get(number, 0.0) + mount.normal(0.0, size) + shake.normal(0.0, 0.02 * size)
    return terms


@dataclass(frozen=True)
class Throughput:
    """m_PS1 = zero_point - 2.5 log10(DN) + colour_term * colour, for the whole light of a star at the quadrant's mean response."""

    zero_point: float
    colour_term: float

    def dn(self, mag, colour):
        """Flux [DN] of an object of PS1 magnitude `mag` in the band and PS1 colour."""
        return 10.0 ** (-0.4 * (np.asarray(mag, float) - self.zero_point - self.colour_term * np.asarray(colour, float)))


def throughput(camera: Camera, ccdid: int, qid: int, seed: int, conditions: Conditions) -> Throughput:
    """Zero point and colour term of one exposure and quadrant."""
    passband = camera.filter(conditions.filter)
    coating = generator(seed, "throughput", ccdid, qid, passband.fid)
    air = generator(seed, "transparency", conditions.number)
    zero_point = (passband.zero_point + 2.5 * np.log10(conditions.exptime / camera.exposure_s) + coating.normal(0.0, 0.03)
                  - EXTINCTION.get(passband.code, 0.1) * (conditions.airmass - 1.0) - conditions.clouds_mag + air.normal(0.0, 0.008))
    return Throughput(float(zero_point), float(passband.colour_coefficient + coating.normal(0.0, 0.005)))


def colour(passband, table) -> np.ndarray:
    """PS1 colour of the passband's colour term: g-r, or r-i for `R - i`."""
    return table["r"] - table["i"] if passband.colour.startswith("R") else table["g"] - table["r"]
