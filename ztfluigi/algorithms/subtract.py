"""Image differencing: science minus reference with matched throughput, place, background and PSFs (paper 3.6)."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numba import njit

from ztfluigi.algorithms.bright_stars import BrightStars
from ztfluigi.algorithms.features import fwhm_of_stamp
from ztfluigi.algorithms.image_match import (StarMatch, Surface, differential_background, fit_surface, match_stars, residual_background,
                                              stamp_of_reference, stamp_of_science)
from ztfluigi.algorithms.resample import GRID, resample, source_grid
from ztfluigi.algorithms.star_residuals import add_residual_noise
from ztfluigi.algorithms.zogy import TileGrid, proper_difference
from ztfluigi.model.config.difference import DifferenceConfig
from ztfluigi.model.errors import BadInput, Unusable
from ztfluigi.model.images import Calibrated, Coadd
from ztfluigi.model.maskbits import UNUSABLE, Mask
from ztfluigi.model.psf import PsfModel

#: One over the spacing of nodes, float32.
STEP = np.float32(1.0 / GRID)
#: Side of the PSF stamps that enter the subtraction [pix]: the wings of bright stars reach far.
STAMP = 49
#: Stars at least this bright measure the astrometric mismatch; fainter ones would add their own noise.
ASTROMETRY_SNR = 50.0
#: The relative error of the PSF is taken from the brightest static light within this many pixels: wings are known worse than cores.
ERROR_REACH = 2
#: Stars of more than this many noises of a pixel [DN] are resampled by their PSF.
BRIGHT = 300.0
#: About stars of more than this many noises of a pixel [DN] the error of the PSFs shows in frequencies that pass no other light.
LOUD = 3000.0
#: So far about such a star the difference goes without those [pix]; so much farther about one of ten times its flux; over so many pixels more
#: it goes without part of them.
CALM_RADIUS, CALM_GROWTH, CALM_EDGE = 4.0, 3.0, 2.0
#: Blocks of 8 x 8 pixels whose score exceeds this anywhere, in either sign, do not measure the background.
QUIET = 3.5
#: Width of the corrected score above which it is divided by that width.
WIDEST = 1.1
#: Inputs of which a mean can leave the outlier out; a reference of fewer has all its pixels used.
TRIMMED = 3.0
#: Pixels that differ from the reference by this many sigmas have changed.
CHANGED = 5.0
#: Largest variance given to a pixel for such errors, in variances of the sky.
MAX_VARIANCE = 1e5
#: Astrometric mismatch below which the score does not trust the catalogues [pix].
MIN_ASTROMETRIC_RMS = 0.005


@dataclass
class Difference:
    """Science minus reference on the science grid and zero point.

    data : float32 (ny, nx) [DN], 0 where there is no reference; about bright stars without the frequencies that its PSF barely passes.
    sigma : float32 [DN], noise of `data` elsewhere; all images are finite.
    mask : uint16, bits of science and reference; NAN where the reference has no data.
    psf : (25, 25), sum 1, at the centre; psf_grid : (rows, cols, 25, 25) of the tiles, place (x, y) -> `psf_at`.
    score : S over its sky noise; scorr : S over its full noise, 0 on unusable pixels. Both float32.
    reference : float32 [DN of science], the resampled, scaled reference. background : float32, level subtracted from the science image.
    magzp, fwhm_pix, diffmaglim describe the whole.
    """

    data: np.ndarray
    sigma: np.ndarray
    mask: np.ndarray
    psf: np.ndarray
    psf_grid: np.ndarray
    tiles: TileGrid
    score: np.ndarray
    scorr: np.ndarray
    reference: np.ndarray
    background: np.ndarray
    magzp: float
    diffmaglim: float
    metrics: dict = field(default_factory=dict)

    def psf_at(self, x, y) -> np.ndarray:
        """PSF stamps (..., 25, 25) of the tiles that hold zero-based pixels (x, y)."""
        j, i = self.tiles.index(x, y)
        return self.psf_grid[j, i]


def subtract(science: Calibrated, science_psf: PsfModel, science_zp: float, reference: Coadd, *, psfcat_sci: np.ndarray,
             psfcat_ref: np.ndarray, config: DifferenceConfig = DifferenceConfig()) -> Difference:
    """Difference two epochs with ZOGY in tiles over which PSFs and flux ratio are constant.

    science : with sky and wcs. science_zp : its zero point [mag]. reference : with psf (on its own grid).
    psfcat_sci, psfcat_ref : dtype PSFCAT, on their own images; matched stars give flux ratio and relative registration; where there are
        too few, the zero points and the WCS do.

    Unusable pixels of either image are neutralised before the transforms: both images take the value of the good one, with a generous
    error. Non-finite pixels count as unusable. Raises BadInput without psf or wcs; Unusable when no pixel is common to both.
    """
    if reference.psf is None or science.wcs is None:
        raise BadInput("subtract needs a WCS of the science image and a PSF of the reference")
    shape = science.data.shape
    stars = match_stars(psfcat_sci, psfcat_ref, science.wcs, reference.wcs, radius_pix=config.match_radius_pix, min_snr=config.match_snr)
    shift_x, shift_y, ratio = _relative_surfaces(stars, shape, 10.0 ** (0.4 * (science_zp - reference.magzp)))

    def registration(x, y):
        return shift_x(x, y), shift_y(x, y)

    mapped = {"order": config.kernel_order, "registration": registration}
    tiles = TileGrid.covering(shape, config.tile_size)
    coordinates = source_grid(reference.wcs, science.wcs, shape, registration=registration)[:2]
    bright, place, flux, clean = _bright_stars(psfcat_ref, science, reference, registration, tiles)
    ref_data, ref_bits = resample(bright.taken_from(reference.data), reference.wcs, science.wcs, shape, mask=_without_shallow(reference, config),
                                  **mapped)
    samples = [_samples(k // (len(tiles.cols) - 1), k % (len(tiles.cols) - 1), tiles, coordinates) for k in range(len(bright.tables))]
    bright.put_on(ref_data, *place[:, clean], samples, config.kernel_order)
    ref_sigma, _ = resample(reference.sigma, reference.wcs, science.wcs, shape, **{**mapped, "order": 1})
    node_y, node_x = np.mgrid[0:shape[0] + 2 * GRID:GRID, 0:shape[1] + 2 * GRID:GRID].astype(float)
    ratio_nodes = ratio(node_x, node_y).astype(np.float32)

    usable = _usable(science.data, science.mask, science.sigma, ref_data, ref_bits, ref_sigma)
    if not usable.any():
        raise Unusable("science image and reference have no usable pixel in common")
    level = float(np.median(science.data[::4, ::4][usable[::4, ::4]]))
    noise = float(np.median(science.sigma[::4, ::4][usable[::4, ::4]]))
    blank = usable & (np.abs(ref_data) < 2.0 * noise / float(np.median(ratio_nodes)))
    raw = np.empty(shape, np.float32)
    _scaled_difference(science.data, ref_data, ratio_nodes, raw)
    background_nodes = differential_background(raw, blank, config.background_mesh, node_x, node_y).astype(np.float32)

    background = raw
    v_sci, v_ref, sigma = (np.empty(shape, np.float32) for _ in range(3))
    mask = np.empty(shape, np.uint16)
    sci_data = np.empty(shape, np.float32)
    _prepare(science.data, science.sigma, science.mask, ref_data, ref_sigma, ref_bits, background_nodes, ratio_nodes,
             reference.noise_correlation, science.gain, (science.read_noise / science.gain) ** 2, config.masked_error, noise**2, usable,
             background, sci_data, v_sci, v_ref, sigma, mask)
    _add_psf_error(ref_data, config.psf_error, noise, MAX_VARIANCE * noise**2, v_sci)
    rms = _astrometric_rms(stars, shift_x, shift_y)
    loud = np.isfinite(place).all(axis=0) & (flux > LOUD * noise)
    data, score, scorr, response, psf_grid = proper_difference(
        sci_data, ref_data, v_sci, v_ref, lambda j, i: _stamps(j, i, tiles, science_psf, reference.psf, coordinates, config.kernel_order),
        tiles=tiles, astrometric_rms=rms,
        calm=_about(shape, *place[:, loud], CALM_RADIUS + CALM_GROWTH * np.log10(flux[loud] / (LOUD * noise)), CALM_EDGE))
    del sci_data, v_sci, v_ref
    known = np.isfinite(place).all(axis=0)
    residuals = add_residual_noise(score, scorr, usable, *place[:, known], flux[known], clean[known])
    # Static sources are gone from D, so what is left of the background shows there without their wings.
    quiet = _quiet(score, usable, QUIET)
    residual_nodes = residual_background(data, sigma, quiet, config.background_mesh, node_x, node_y).astype(np.float32)
    _finish(residual_nodes, response, tiles.rows, tiles.cols, usable, mask, int(Mask.NAN), background, data, score, scorr)
    psf = psf_grid[psf_grid.shape[0] // 2, psf_grid.shape[1] // 2]
    metrics = _metrics(data, sigma, score, scorr, mask, usable, psf)
    if (unit := _core_width(scorr[::3, ::3][usable[::3, ::3]])) > WIDEST:
        # Noise that nobody modelled (fringes, correlated pixels) shows in the score: its own width is then the unit.
        scorr /= np.float32(unit)
    limit = 5.0 * max(metrics["sky_score_width"], 1e-3) / float(np.median(response[:, :, 1]))
    metrics |= {"star_residual": float(np.sqrt(residuals.max())), "diffmaglim": float(science_zp - 2.5 * np.log10(limit)),
                "flux_ratio": float(ratio((shape[1] - 1) / 2, (shape[0] - 1) / 2)), "flux_ratio_scatter": ratio.scatter,
                "n_match": len(stars.x), "dx_rms": rms[0], "dy_rms": rms[1],
                "dx_mean": float(np.mean(shift_x(node_x, node_y))), "dy_mean": float(np.mean(shift_y(node_x, node_y))),
                "background_difference": float(np.median(background_nodes)), "science_level": level,
                "fwhm_science": science_psf.fwhm(), "fwhm_reference": reference.psf.fwhm()}
    return Difference(data, sigma, mask, psf, psf_grid, tiles, score, scorr, ref_data, background, float(science_zp),
                      metrics["diffmaglim"], metrics)


def _without_shallow(reference: Coadd, config: DifferenceConfig) -> np.ndarray:
    """The mask of the reference, NAN too where too few inputs lie."""
    covered = reference.depth[::8, ::8][reference.depth[::8, ::8] > 0]
    if not covered.size:
        return reference.mask
    median = float(np.median(covered))
    shallow = reference.depth < max(config.min_depth * median, min(TRIMMED, median))
    return np.where(shallow, reference.mask | np.uint16(Mask.NAN), reference.mask)


def _relative_surfaces(stars: StarMatch, shape, nominal_ratio: float) -> tuple[Surface, Surface, Surface]:
    """Offsets in x and y [pix] and flux ratio science over reference, as functions of the science pixel."""
    error = 1.0 / np.maximum(stars.snr, 1e-3)
    shift_x, shift_y = (fit_surface(stars.x, stars.y, d, error, shape, fallback=0.0) for d in (stars.dx, stars.dy))
    log_ratio = fit_surface(stars.x, stars.y, np.log(stars.flux_science / stars.flux_reference), np.hypot(error, 0.005), shape,
                            fallback=np.log(nominal_ratio))
    return shift_x, shift_y, _Exponential(log_ratio)


class _Exponential:
    """exp of a surface."""

    def __init__(self, surface: Surface):
        self.surface = surface
        self.scatter = surface.scatter

    def __call__(self, x, y):
        return np.exp(self.surface(x, y))


def _astrometric_rms(stars: StarMatch, shift_x: Surface, shift_y: Surface) -> tuple[float, float]:
    """Robust scatter of bright stars' offsets about their surfaces [pix]."""
    bright = stars.snr > ASTROMETRY_SNR
    if np.count_nonzero(bright) < 10:
        bright = stars.snr > np.median(stars.snr) if len(stars.snr) >= 10 else bright
    if np.count_nonzero(bright) < 5:
        return MIN_ASTROMETRIC_RMS, MIN_ASTROMETRIC_RMS
    x, y = stars.x[bright], stars.y[bright]
    rest = (stars.dx[bright] - shift_x(x, y), stars.dy[bright] - shift_y(x, y))
    return tuple(max(MIN_ASTROMETRIC_RMS, 1.4826 * float(np.median(np.abs(r)))) for r in rest)


def _bright_stars(psfcat, science: Calibrated, reference: Coadd, registration, tiles: TileGrid) -> tuple[BrightStars, np.ndarray, ...]:
    """The reference's clean stars high above the noise; and place (2, n) on the science grid, flux and cleanness of all high ones."""
    noise = float(np.median(science.sigma[::16, ::16]))
    stars = psfcat[psfcat["flux"] > BRIGHT * noise]
    rx, ry = stars["xpos"].astype(float) - 1.0, stars["ypos"].astype(float) - 1.0
    place = np.array(science.wcs.pixel(*reference.wcs.sky(rx, ry)))
    place += registration(*place)
    clean = ((stars["flags"].astype(int) & UNUSABLE) == 0) & np.isfinite(place).all(axis=0)
    j, i = tiles.index(*place[:, clean])
    tile = j * (len(tiles.cols) - 1) + i
    bright = BrightStars(reference.psf, rx[clean], ry[clean], stars["flux"][clean], tile, (len(tiles.rows) - 1) * (len(tiles.cols) - 1))
    return bright, place, stars["flux"].astype(float), clean


def _stamps(j: int, i: int, tiles: TileGrid, science_psf: PsfModel, reference_psf: PsfModel, coordinates, order: int):
    """PSFs of both images at the centre of a tile, on the science grid."""
    x, y = 0.5 * (tiles.cols[i] + tiles.cols[i + 1] - 1), 0.5 * (tiles.rows[j] + tiles.rows[j + 1] - 1)
    return stamp_of_science(science_psf, x, y, STAMP), stamp_of_reference(reference_psf, *_samples(j, i, tiles, coordinates), order, STAMP)


def _samples(j: int, i: int, tiles: TileGrid, coordinates):
    """Reference pixels (x, y) of five by five pixels of a tile, which give the mean smoothing of the interpolation, and the Jacobian."""
    gx, gy = coordinates
    sx = np.rint(np.linspace(tiles.cols[i], tiles.cols[i + 1] - 1, 5))[None, :]
    sy = np.rint(np.linspace(tiles.rows[j], tiles.rows[j + 1] - 1, 5))[:, None]
    rx, ry = _bilinear(gx, sx, sy), _bilinear(gy, sx, sy)
    width, height = sx[0, -1] - sx[0, 0], sy[-1, 0] - sy[0, 0]
    jacobian = np.array([[(r[2, -1] - r[2, 0]) / width, (r[-1, 2] - r[0, 2]) / height] for r in (rx, ry)])
    return rx, ry, jacobian


def _bilinear(nodes: np.ndarray, x, y) -> np.ndarray:
    """Values between the nodes of the GRID at science pixels."""
    i, j = (x // GRID).astype(int), (y // GRID).astype(int)
    fx, fy = x / GRID - i, y / GRID - j
    return ((1 - fy) * ((1 - fx) * nodes[j, i] + fx * nodes[j, i + 1]) + fy * ((1 - fx) * nodes[j + 1, i] + fx * nodes[j + 1, i + 1]))


def _core_width(values: np.ndarray) -> float:
    """Width of a normal distribution from its middle 38 per cent, which sources reach last; 1 where there are too few values."""
    return float(np.subtract(*np.percentile(values, (69.146, 30.854)))) if len(values) > 300 else 1.0


def _metrics(data, sigma, score, scorr, mask, usable, psf) -> dict:
    """Numbers of the whole difference, from every third row and column."""
    good = usable[::3, ::3]

    def spread(image):
        low, middle, high = np.percentile(image[::3, ::3][good], (15.865, 50.0, 84.135))
        return float(middle), 0.5 * float(high - low)

    score_mean, score_width = spread(scorr)
    return {"score_mean": score_mean, "score_width": score_width, "sky_score_width": spread(score)[1], "noise": spread(data)[1],
            "noise_expected": float(np.median(sigma[::3, ::3][good])),
            "masked_percent": 100.0 * float(np.mean((mask & np.uint16(UNUSABLE)) != 0)), "fwhm_difference": fwhm_of_stamp(psf)}


@njit(cache=True, nogil=True)
def _about(shape, x, y, radius, edge):
    """1 within `radius` of places, falling to 0 over `edge` pixels beyond; float32."""
    out = np.zeros(shape, np.float32)
    for k in range(len(x)):
        ix, iy, reach = int(np.rint(x[k])), int(np.rint(y[k])), int(radius[k] + edge) + 1
        for j in range(max(0, iy - reach), min(shape[0], iy + reach + 1)):
            for i in range(max(0, ix - reach), min(shape[1], ix + reach + 1)):
                share = 1.0 - (np.hypot(j - y[k], i - x[k]) - radius[k]) / edge
                out[j, i] = max(out[j, i], np.float32(min(1.0, max(0.0, share))))
    return out


@njit(cache=True, nogil=True)
def _quiet(score, usable, limit):
    """Usable pixels of the blocks of 8 x 8 in which no |score| exceeds `limit`."""
    out = usable.copy()
    ny, nx = score.shape
    for y0 in range(0, ny, 8):
        for x0 in range(0, nx, 8):
            loud = False
            for y in range(y0, min(ny, y0 + 8)):
                for x in range(x0, min(nx, x0 + 8)):
                    loud |= abs(score[y, x]) > limit
            if loud:
                out[y0:y0 + 8, x0:x0 + 8] = False
    return out


@njit(cache=True, nogil=True)
def _usable(data, mask, sigma, ref_data, ref_bits, ref_sigma):
    """Pixels finite and unflagged in both images."""
    out = np.empty(data.shape, np.bool_)
    for y in range(data.shape[0]):
        for x in range(data.shape[1]):
            out[y, x] = ((mask[y, x] | ref_bits[y, x]) & UNUSABLE == 0 and np.isfinite(data[y, x]) and np.isfinite(ref_data[y, x])
                         and np.isfinite(sigma[y, x]) and np.isfinite(ref_sigma[y, x]))
    return out


@njit(cache=True, nogil=True, inline="always")
def _between(nodes, y, x):
    """Bilinear value at a pixel (not negative) between float32 nodes every GRID pixels."""
    j, i = y // GRID, x // GRID
    fy, fx = np.float32(y % GRID) * STEP, np.float32(x % GRID) * STEP
    one = np.float32(1.0)
    return ((one - fy) * ((one - fx) * nodes[j, i] + fx * nodes[j, i + 1]) + fy * ((one - fx) * nodes[j + 1, i] + fx * nodes[j + 1, i + 1]))


@njit(cache=True, nogil=True)
def _scaled_difference(data, ref_data, ratio, out):
    for y in range(data.shape[0]):
        for x in range(data.shape[1]):
            out[y, x] = data[y, x] - _between(ratio, y, x) * ref_data[y, x]


@njit(cache=True, nogil=True)
def _prepare(data, noise, bits, ref_data, ref_noise, ref_bits, background_nodes, ratio_nodes, correlation, gain, floor, masked_error, var_sky,
             usable, background, sci_data, v_sci, v_ref, sigma, mask):
    """Background-free science, reference scaled in place, variances and mask; unusable pixels neutralised in both images.

    Where nothing is seen to have changed, the variance of the score is that of the counts expected from background and reference: from the
    counts themselves a fluctuation upwards would seem less significant than the same one downwards.
    """
    gain, floor, changed = np.float32(gain), np.float32(floor), np.float32(CHANGED * CHANGED)
    correlation, zero, most = np.float32(correlation), np.float32(0.0), np.float32(MAX_VARIANCE * var_sky)
    masked_error = np.float32(masked_error)
    for y in range(data.shape[0]):
        for cell in range(0, data.shape[1], GRID):
            # Both surfaces are linear along a row between two nodes.
            last = min(data.shape[1], cell + GRID)
            level, tilt = _line(background_nodes, y, cell)
            ratio, slope = _line(ratio_nodes, y, cell)
            for x in range(cell, last):
                step = np.float32(x - cell)
                background[y, x] = level + step * tilt
                sci = data[y, x] - background[y, x]
                ref = ref_data[y, x] * (ratio + step * slope)
                ref_sigma = ref_noise[y, x] * ratio * correlation
                var_sci, var_ref = noise[y, x] * noise[y, x], ref_sigma * ref_sigma
                mask[y, x] = bits[y, x] | (ref_bits[y, x] & UNUSABLE)
                if not usable[y, x]:
                    sci_good = bits[y, x] & UNUSABLE == 0 and np.isfinite(sci)
                    ref_good = ref_bits[y, x] & UNUSABLE == 0 and np.isfinite(ref)
                    sci = sci if np.isfinite(sci) else (ref if np.isfinite(ref) else zero)
                    ref = ref if np.isfinite(ref) else sci
                    common = min(sci, ref) if sci_good == ref_good else (sci if sci_good else ref)
                    sci, ref = common, common
                    var_sci = var_sci if np.isfinite(var_sci) else zero
                    var_ref = var_ref if np.isfinite(var_ref) else zero
                total = var_sci + var_ref
                sigma[y, x] = np.sqrt(total)
                if usable[y, x]:
                    if (sci - ref) * (sci - ref) < changed * total:
                        var_sci = max(background[y, x] + ref, zero) / gain + floor
                else:
                    # Capped: float32 transforms would carry the rounding of a larger value into the noise of the whole tile.
                    var_sci += min((masked_error * sci) ** 2, most)
                sci_data[y, x], ref_data[y, x] = sci, ref
                v_sci[y, x], v_ref[y, x] = var_sci, var_ref


@njit(cache=True, nogil=True, inline="always")
def _line(nodes, y, x):
    """Value at pixel (x, y), x a node, and slope along the row to the next node."""
    j, i = y // GRID, x // GRID
    f = np.float32(y - j * GRID) * STEP
    left = nodes[j, i] + f * (nodes[j + 1, i] - nodes[j, i])
    right = nodes[j, i + 1] + f * (nodes[j + 1, i + 1] - nodes[j, i + 1])
    return left, (right - left) * STEP


@njit(cache=True, nogil=True)
def _add_psf_error(reference, psf_error, noise, most, variance):
    """Add (psf_error x highest reference value within ERROR_REACH)^2 [DN^2], at most `most`, where it matters."""
    ny, nx = reference.shape
    extra = np.zeros((ny, nx), np.float32)
    for y in range(ny):
        for x in range(nx):
            error = psf_error * reference[y, x]
            if error > 0.1 * noise:
                value = np.float32(min(error * error, most))
                for j in range(max(0, y - ERROR_REACH), min(ny, y + ERROR_REACH + 1)):
                    for i in range(max(0, x - ERROR_REACH), min(nx, x + ERROR_REACH + 1)):
                        extra[j, i] = max(extra[j, i], value)
    for y in range(ny):
        for x in range(nx):
            variance[y, x] += extra[y, x]


@njit(cache=True, nogil=True)
def _finish(residual, response, rows, cols, usable, mask, nan_bit, background, data, score, scorr):
    """Take the residual background from difference and scores; no score on unusable pixels, no difference where there are no data.

    `scorr` comes in as the factor from score to corrected score. `response` holds the score of a level of 1 DN in each tile.
    """
    for j in range(len(rows) - 1):
        for i in range(len(cols) - 1):
            for y in range(rows[j], rows[j + 1]):
                for x in range(cols[i], cols[i + 1]):
                    level = _between(residual, y, x)
                    background[y, x] += level
                    data[y, x] -= level
                    score[y, x] -= level * response[j, i, 0]
                    scorr[y, x] = scorr[y, x] * score[y, x] if usable[y, x] else 0.0
                    if mask[y, x] & nan_bit:
                        data[y, x] = 0.0
