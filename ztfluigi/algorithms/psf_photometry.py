"""Two-pass simultaneous PSF-fit photometry (paper section 3.5; Stetson 1987, PASP 99, 191)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from ztfluigi.algorithms import psf_kernels as kernels
from ztfluigi.algorithms.neighbours import find_neighbours
from ztfluigi.algorithms.source_search import box_or, find_sources, remove_mesh_sky
from ztfluigi.algorithms.wing_noise import wing_excess
from ztfluigi.model.columns import PSFCAT, dtype_of
from ztfluigi.model.config.photometry import PsfPhotometryConfig
from ztfluigi.model.maskbits import UNUSABLE, Mask
from ztfluigi.model.psf import PsfModel

#: Steps that lower chi-square by less than the square of this are not taken.
_TOLERANCE = 0.03
#: Stars of this much light over the noise of a sky pixel have wings that can be told from it.
_BRIGHT = 2000.0


@dataclass
class Noise:
    """Pixel noise of a fit: variance float32 (ny, nx) [DN^2] (infinite where unusable), its slope with counts [DN] (the inverse gain
    if `sigma` holds photon noise) and the least variance a pixel may have [DN^2]; sky_sigma [DN] is the typical sigma of empty sky."""

    variance: np.ndarray
    slope: float
    floor: float
    sky_sigma: float


def pixel_noise(data: np.ndarray, sigma: np.ndarray, mask: np.ndarray) -> Noise:
    """Variance per pixel with unusable pixels (mask bits 6141, non-finite or zero sigma) made infinite.

    The slope of variance with counts is measured between sky and bright pixels, so that the fit can exchange the noise of a pixel's
    own count for the noise of the model: weights that follow the noise would bias faint fluxes low.
    """
    variance = _variance(data, sigma, mask, np.uint16(UNUSABLE), np.uint16(Mask.SATURATED))
    sample = np.s_[2::5, 2::5]
    var, counts = variance[sample], data[sample]
    good = np.isfinite(var)
    if not good.any():
        return Noise(variance, 0.0, 1.0, 1.0)
    sky = float(np.median(var[good]))
    bright = good & (counts > 20.0 * np.sqrt(sky))
    slope = float(np.median((var[bright] - sky) / counts[bright])) if np.count_nonzero(bright) >= 10 else 0.0
    return Noise(variance, max(slope, 0.0), 0.5 * sky, float(np.sqrt(sky)))


@njit(cache=True, nogil=True)
def _variance(data, sigma, mask, unusable, saturated):
    ny, nx = data.shape
    out = np.empty((ny, nx), np.float32)
    for y in range(ny):
        for x in range(nx):
            v = np.float32(sigma[y, x] * sigma[y, x])
            good = mask[y, x] & unusable == 0 and v > 0 and v < np.float32(1e30) and np.isfinite(data[y, x])
            out[y, x] = v if good else np.float32(np.inf)
    for y in range(ny):
        for x in range(nx):
            if mask[y, x] & saturated:
                # The first pixel outside a saturated one holds spilled charge.
                out[max(0, y - 1):y + 2, max(0, x - 1):x + 2] = np.float32(np.inf)
    return out


@dataclass
class Stars:
    """Sources under fit, one array each: x, y zero-based [pix], flux [DN], the places (x0, y0) they stay near, PSF cell,
    half widths of the fitted disc and of the drawn box, and whether they were found in the residual of the first pass."""

    x: np.ndarray
    y: np.ndarray
    flux: np.ndarray
    x0: np.ndarray
    y0: np.ndarray
    cell: np.ndarray
    fit_half: np.ndarray
    draw_half: np.ndarray
    added: np.ndarray

    def keep(self, which: np.ndarray) -> Stars:
        """The chosen rows."""
        return Stars(*(getattr(self, name)[which] for name in self.__dataclass_fields__))

    def join(self, other: Stars) -> Stars:
        """Both lists, re-sorted by cell so that neighbours share cached tables."""
        both = [np.concatenate([getattr(self, n), getattr(other, n)]) for n in self.__dataclass_fields__]
        order = np.argsort(both[5], kind="stable")
        return Stars(*(column[order] for column in both))


class Fitter:
    """State of a fit: the residual image follows every change of a star."""

    def __init__(self, data: np.ndarray, noise: Noise, mask: np.ndarray, psf: PsfModel, config: PsfPhotometryConfig):
        self.noise, self.mask, self.psf, self.config = noise, mask, psf, config
        self.data = data
        self.residual = np.array(data, np.float32)
        self.residual[~np.isfinite(self.residual)] = 0.0
        self.grid = kernels.psf_grid(psf)
        self.fwhm = psf.fwhm()
        self.psf_error = max(config.psf_error, psf.error)
        self.stamp = psf.render((psf.shape[1] - 1) / 2, (psf.shape[0] - 1) / 2)
        self.norm = float(np.sum(self.stamp**2))
        self.excess = np.zeros(self.residual.shape, np.float32)
        self.fit_half = int(np.clip(np.ceil(config.fit_radius_fwhm * self.fwhm), 3, kernels.HALF))

    def stars(self, x, y, flux, *, added: bool = False) -> Stars:
        """Start a list, sorted by cell; sources with saturated pixels are fitted on their wings."""
        x, y, flux = (np.array(v, np.float64) for v in (x, y, flux))
        order = np.argsort(self.grid.cell(x, y), kind="stable")
        x, y, flux = x[order], y[order], flux[order]
        saturated = (box_or(self.mask, x, y, 3) & np.uint16(Mask.SATURATED)) != 0
        fit = np.where(saturated, kernels.HALF, self.fit_half)
        return Stars(x, y, flux, x.copy(), y.copy(), self.grid.cell(x, y), fit.astype(np.int64), self.draw_half(flux),
                     np.full(len(x), added))

    def draw_half(self, flux: np.ndarray) -> np.ndarray:
        """Half width at which the model of a source falls below a twentieth of the sky noise (25 x 25 pixels at most)."""
        profile = self.stamp.max(axis=0)[kernels.HALF:]
        profile = np.maximum.accumulate(profile[::-1])[::-1]
        half = np.searchsorted(-profile, -0.05 * self.noise.sky_sigma / np.maximum(flux, 1e-30))
        return np.clip(half, min(self.fit_half + 1, kernels.HALF), kernels.HALF).astype(np.int64)

    def draw(self, stars: Stars, sign: float) -> None:
        """Add (+1) the stars to the residual image or take them out (-1)."""
        kernels.add_stars(self.residual, self.grid.coefficients, stars.cell, stars.x, stars.y, stars.flux, sign, stars.draw_half)

    def sweep(self, stars: Stars, times: int, *, free: bool = True) -> None:
        """Gauss-Newton steps over all stars, `times` times."""
        n, shift = self.noise, max(1.0, 0.6 * self.fwhm)
        first, pairs = find_neighbours(stars.x, stars.y, self.residual.shape, self.fit_half + 2.0 * self.fwhm)
        active = np.ones(len(stars.x), bool)
        for _ in range(times):
            kernels.sweep(self.residual, n.variance, n.slope, n.floor, self.psf_error, self.grid.coefficients, stars.cell,
                          stars.x, stars.y, stars.flux, stars.fit_half, stars.draw_half, stars.x0, stars.y0, shift, free,
                          _TOLERANCE, active, first, pairs)

    def measure(self, stars: Stars, *, free: bool = True) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(sigflux, chi, sharp) of every star from the present residual."""
        n = self.noise
        information, quality = np.empty((len(stars.x), 6)), np.empty((len(stars.x), 3))
        common = (self.residual, n.variance, n.slope, n.floor, self.psf_error, self.grid.coefficients, stars.cell,
                  stars.x, stars.y, stars.flux, stars.fit_half)
        kernels.measure_stars(*common, information, quality)
        first, pairs = find_neighbours(stars.x, stars.y, self.residual.shape, 2.0 * self.fwhm)
        sigma = kernels.flux_sigma(*common, information, first, pairs, free)
        row, column = (np.clip(np.rint(v).astype(int), 0, n - 1) for v, n in zip((stars.y, stars.x), self.residual.shape, strict=True))
        return np.hypot(sigma, np.sqrt(self.excess[row, column]) / self.norm), quality[:, 0], quality[:, 1]

    def doubt_wings(self, stars: Stars) -> None:
        """Note what is left of the wings of bright stars: errors common to the pixels of a source, which add up in its flux."""
        bright = stars.keep((stars.flux > _BRIGHT * self.noise.sky_sigma) | (stars.fit_half > self.fit_half))
        wing_excess(self.residual, self.noise.variance, self.noise.slope, self.noise.floor, bright.x, bright.y,
                    np.full(len(bright.x), self.fwhm), bright.draw_half + 4.0, self.excess)

    def drop(self, stars: Stars, which: np.ndarray) -> Stars:
        """Give the light of some stars back to the residual and forget them."""
        if which.any():
            self.draw(stars.keep(which), 1.0)
            return stars.keep(~which)
        return stars

    def merge(self, stars: Stars, reach: float) -> Stars:
        """Of sources closer than `reach` [pix] only the brightest stays; the parts of a saturated star go to its brightest."""
        saturated = stars.fit_half > self.fit_half
        wide = max(reach, 2.5 * self.fwhm)
        first, pairs = find_neighbours(stars.x, stars.y, self.residual.shape, wide)
        owner = np.repeat(np.arange(len(stars.x)), np.diff(first))
        distance = np.hypot(stars.x[owner] - stars.x[pairs], stars.y[owner] - stars.y[pairs])
        close = distance < np.where(saturated[owner] & saturated[pairs], wide, reach)
        owner, pairs = owner[close], pairs[close]
        fainter = (stars.flux[owner] < stars.flux[pairs]) | ((stars.flux[owner] == stars.flux[pairs]) & (owner > pairs))
        lost = np.zeros(len(stars.x), bool)
        lost[owner[fainter]] = True
        return self.drop(stars, lost)

    def shreds(self, stars: Stars, chi: np.ndarray, sharp: np.ndarray) -> np.ndarray:
        """Added sources beside a brighter one that even with them is no star: pieces of a galaxy or of a bright star's wings."""
        extended = (chi > 1.8) & (sharp > 0.2 * self.fwhm**2 / (8.0 * np.log(2.0)))
        first, pairs = find_neighbours(stars.x, stars.y, self.residual.shape, 4.0 * self.fwhm)
        owner = np.repeat(np.arange(len(stars.x)), np.diff(first))
        beside = stars.added[owner] & extended[pairs] & (stars.flux[pairs] > stars.flux[owner])
        shred = np.zeros(len(stars.x), bool)
        shred[owner[beside]] = True
        return shred

    def remove_sky(self) -> None:
        """Take a smooth sky out of the residual."""
        if self.config.sky_mesh:
            remove_mesh_sky(self.residual, self.noise.variance, self.config.sky_mesh)

    def search(self) -> Stars:
        """Point sources in the residual, as stars yet to be drawn."""
        h = int(np.clip(round(1.8 * self.fwhm), 4, 6))
        stamp = np.ascontiguousarray(self.stamp[kernels.HALF - h:kernels.HALF + h + 1, kernels.HALF - h:kernels.HALF + h + 1])
        n = self.noise
        variance = n.variance + self.excess / np.float32(self.norm)
        y, x, flux = find_sources(self.residual, variance, n.slope, n.floor, self.data, n.sky_sigma, stamp,
                                  self.config.residual_error, self.config.detect_snr)
        return self.stars(x, y, flux, added=True)


def fit_catalogue(data: np.ndarray, sigma: np.ndarray, mask: np.ndarray, detections: np.ndarray, psf: PsfModel, wcs, *,
                  config: PsfPhotometryConfig = PsfPhotometryConfig()) -> tuple[np.ndarray, np.ndarray]:
    """PSF-fit catalogue of a background-subtracted image: every source fitted with its neighbours subtracted, in two passes.

    Pass 1 fits (x, y, flux) of all detections by Gauss-Newton steps on the common residual; sources found in that residual by the
    matched filter join, and pass 2 fits all again.

    Parameters
    ----------
    data : float32 (ny, nx) [DN], background-subtracted. sigma : float32 [DN]. mask : uint16; pixels with UNUSABLE (6141) bits, NaN
        or zero sigma are not used. A source with saturated pixels is fitted on its unsaturated wings.
    detections : structured, at least x, y (zero-based) and flux [DN]. wcs : TpvWcs or None (ra, dec NaN).

    Returns
    -------
    psfcat : `dtype_of(PSFCAT)`, by descending flux; xpos, ypos are FITS one-based. Sources fitted below `min_snr` are left out.
        flux is free of the bias that fitting the position gives it (a percent at S/N 10). sigflux includes the covariance with the
        source's position and with neighbours. chi is the RMS of the weighted residuals; sharp [pix^2] the excess of the source's second
        moment over the PSF's (DAOPhot's meaning; about minus the PSF's own variance for a single-pixel spike). mag is -2.5 log10(flux),
        uncalibrated. flags: OR of the mask in 5 x 5 pixels.
    residual : float32 (ny, nx), data minus all models and minus the residual sky.
    """
    noise = pixel_noise(data, sigma, mask)
    fitter = Fitter(data, noise, mask, psf, config)
    x, y, flux = (np.asarray(detections[name], np.float64) for name in ("x", "y", "flux"))
    inside = _inside(x, y, data.shape)
    flux = np.where(np.isfinite(flux) & (flux > 0), flux, noise.sky_sigma)
    stars = fitter.stars(x[inside], y[inside], flux[inside])
    fitter.draw(stars, -1.0)
    fitter.sweep(stars, config.first_sweeps)
    stars = fitter.merge(stars, 0.4 * fitter.fwhm)
    stars.x0, stars.y0 = stars.x.copy(), stars.y.copy()
    fitter.remove_sky()
    fitter.doubt_wings(stars)
    found = fitter.search()
    fitter.draw(found, -1.0)
    stars = stars.join(found)
    fitter.sweep(stars, config.second_sweeps - 1)
    stars = fitter.merge(stars, 0.4 * fitter.fwhm)
    sigflux, chi, sharp = fitter.measure(stars)
    stars = fitter.drop(stars, ~(stars.flux > 0.8 * config.min_snr * sigflux) | fitter.shreds(stars, chi, sharp))
    fitter.sweep(stars, 1)
    sigflux, chi, sharp = fitter.measure(stars)
    weak = ~(stars.flux >= config.min_snr * sigflux)
    fitter.drop(stars, weak)
    stars, sigflux, chi, sharp = stars.keep(~weak), sigflux[~weak], chi[~weak], sharp[~weak]
    return _catalogue(stars, sigflux, chi, sharp, mask, wcs), fitter.residual


def _inside(x, y, shape) -> np.ndarray:
    return (x > -0.5) & (y > -0.5) & (x < shape[1] - 0.5) & (y < shape[0] - 0.5)


def _catalogue(stars: Stars, sigflux, chi, sharp, mask, wcs) -> np.ndarray:
    # The place with the best fit is where noise adds light: one sigma^2 / flux on average, half of it for each coordinate.
    unbiased = stars.flux - sigflux**2 / stars.flux
    order = np.argsort(-unbiased, kind="stable")
    table = np.zeros(len(order), dtype_of(PSFCAT))
    x, y, flux, sigflux = stars.x[order], stars.y[order], unbiased[order], sigflux[order]
    table["sourceid"] = np.arange(len(order))
    table["xpos"], table["ypos"] = x + 1.0, y + 1.0
    table["ra"], table["dec"] = wcs.sky(x, y) if wcs is not None else (np.nan, np.nan)
    table["flux"], table["sigflux"], table["snr"] = flux, sigflux, flux / sigflux
    table["mag"], table["sigmag"] = -2.5 * np.log10(flux), 2.5 / np.log(10.0) * sigflux / flux
    table["chi"], table["sharp"] = chi[order], sharp[order]
    table["flags"] = box_or(mask, x, y, 2).astype(np.int16)
    return table


def fit_fixed(data: np.ndarray, sigma: np.ndarray, mask: np.ndarray, psf: PsfModel, x, y, *, sweeps: int = 4,
              config: PsfPhotometryConfig = PsfPhotometryConfig()) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Forced PSF photometry at given zero-based positions of a background-subtracted (or difference) image.

    Positions stay; fluxes of all positions are fitted together (overlapping ones share the light). Negative fluxes are normal.

    Returns
    -------
    flux, sigflux : (N,) [DN], chi : (N,). NaN where the position is off the image or has no usable pixel.
    """
    noise = pixel_noise(data, sigma, mask)
    fitter = Fitter(data, noise, mask, psf, config)
    x, y = np.atleast_1d(np.asarray(x, np.float64)), np.atleast_1d(np.asarray(y, np.float64))
    flux, sigflux, chi = (np.full(len(x), np.nan) for _ in range(3))
    inside = np.flatnonzero(_inside(x, y, data.shape))
    inside = inside[np.argsort(fitter.grid.cell(x[inside], y[inside]), kind="stable")]
    stars = fitter.stars(x[inside], y[inside], np.zeros(len(inside)))
    fitter.sweep(stars, sweeps, free=False)
    sigma_fit, chi_fit, _ = fitter.measure(stars, free=False)
    seen = np.isfinite(sigma_fit)
    flux[inside[seen]], sigflux[inside[seen]], chi[inside[seen]] = stars.flux[seen], sigma_fit[seen], chi_fit[seen]
    return flux, sigflux, chi
