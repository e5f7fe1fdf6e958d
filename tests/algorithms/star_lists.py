"""Made star lists with a known sky: what the astrometry tests solve."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ztfluigi.algorithms.detection import DETECTION
from ztfluigi.model.columns import GAIA, dtype_of
from ztfluigi.model.wcs import TpvWcs, deproject

JD = 2458270.75
MINI = (770, 768)
SCALE = 1.0125 / 3600.0
DISTORTION = ({1: 1.0, 4: -4.5e-4, 5: -8e-5, 6: -2.6e-4, 7: 1.3e-4, 9: -2.2e-4, 12: 7.5e-4, 16: 6e-4},
              {1: 1.0, 4: -5.4e-4, 5: -2.4e-4, 6: -2e-4, 7: -2.2e-4, 9: -2.7e-4, 12: 7.6e-4, 16: 2.7e-4})


def prior_wcs(shape=MINI, crval=(150.0, 30.0), distortion=({1: 1.0}, {1: 1.0})) -> TpvWcs:
    return TpvWcs(((shape[1] + 1) / 2, (shape[0] + 1) / 2), crval, ((-SCALE, 0.0), (0.0, -SCALE)), *distortion)


def true_wcs(prior: TpvWcs, *, offset_arcsec=(0.0, 0.0), rotation_deg=0.0, scale=1.0, distortion=None) -> TpvWcs:
    """The prior moved, turned and scaled, with its own distortion."""
    angle = np.radians(rotation_deg)
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) @ np.array(prior.cd)
    crval = deproject(offset_arcsec[0] / 3600.0, offset_arcsec[1] / 3600.0, *prior.crval)
    pv1, pv2 = distortion or (prior.pv1, prior.pv2)
    return replace(prior, crval=tuple(map(float, crval)), cd=tuple(map(tuple, turn.tolist())), pv1=pv1, pv2=pv2)


def lists(rng, truth: TpvWcs, prior: TpvWcs, *, shape=MINI, n=100, margin_arcsec=120.0, galaxies=0.5, junk=0.05, floor_pix=0.03, jd=JD):
    """(detections, gaia): `n` Gaia stars with 12 < G < 20 in and around the frame of `prior`, of which those on the frame of `truth` and
    bright enough are detected, with errors; besides galaxies that Gaia lacks, and junk."""
    ny, nx = shape
    m = margin_arcsec / prior.pixel_scale_arcsec
    total = rng.poisson(n * (nx + 2 * m) * (ny + 2 * m) / (nx * ny))
    ra, dec = prior.sky(rng.uniform(-m, nx + m, total), rng.uniform(-m, ny + m, total))
    gaia = np.zeros(total, dtype_of(GAIA))
    gaia["source_id"] = np.arange(total) + 1000
    g = 20.0 - np.minimum(rng.exponential(2.2, total), 9.0)
    gaia["phot_g_mean_mag"], gaia["ref_epoch"] = g, 2015.5
    gaia["pmra"], gaia["pmdec"] = rng.normal(0, 8, (2, total))
    gaia["ra_error"], gaia["dec_error"] = 0.1, 0.1
    years = 2000.0 + (jd - 2451545.0) / 365.25 - 2015.5
    now = deproject(gaia["pmra"] * years / 3.6e6, gaia["pmdec"] * years / 3.6e6, ra, dec)
    gaia["ra"], gaia["dec"] = ra, dec
    x, y = truth.pixel(*now)
    r = g - 0.2 + rng.normal(0, 0.4, total)
    seen = (x > 2) & (x < nx - 3) & (y > 2) & (y < ny - 3) & (r < 20.5) & (rng.uniform(size=total) > 0.03)
    extra = rng.poisson(galaxies * n)
    x = np.r_[x[seen], rng.uniform(0, nx - 1, extra)]
    y = np.r_[y[seen], rng.uniform(0, ny - 1, extra)]
    r = np.r_[r[seen], 20.5 - rng.exponential(0.9, extra)]
    wild = rng.uniform(size=x.size) < junk
    r[wild] -= rng.uniform(0, 4, wild.sum())
    flux = 10 ** (0.4 * (26.275 - r))
    detections = np.zeros(x.size, dtype_of(DETECTION))
    detections["flux"], detections["fluxerr"] = flux, np.sqrt(20.0**2 + flux / 6.2)
    error = np.hypot(0.9 * detections["fluxerr"] / flux, 0.0)
    detections["x_err"] = detections["y_err"] = error
    scatter = np.hypot(error, floor_pix)
    detections["x"], detections["y"] = x + rng.normal(0, 1, x.size) * scatter, y + rng.normal(0, 1, x.size) * scatter
    detections["mask_bits"][r < 12.8] = 1 << 8
    return detections[np.argsort(-detections["flux"])], gaia


def frame_error_mas(wcs: TpvWcs, truth: TpvWcs, shape=MINI, n=9) -> np.ndarray:
    """Distance [mas] between two solutions on a grid over the frame."""
    from ztfluigi.model.wcs import separation_arcsec
    y, x = np.mgrid[0:shape[0] - 1:n * 1j, 0:shape[1] - 1:n * 1j]
    return 1000.0 * separation_arcsec(*wcs.sky(x, y), *truth.sky(x, y))
