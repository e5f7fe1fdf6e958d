"""Reference images: footprint, choice of epochs and outlier-trimmed average (paper 3.7)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numba import njit

from ztfluigi.algorithms.resample import GRID, noise_shrinkage, resample, source_grid
from ztfluigi.model.config.reference import ReferenceConfig, ReferenceInputsConfig
from ztfluigi.model.errors import BadInput, TooFewCalibrators, Unusable
from ztfluigi.model.images import Calibrated, Coadd
from ztfluigi.model.maskbits import SOURCE, UNUSABLE, Mask
from ztfluigi.model.wcs import TpvWcs, deproject, project

#: Side of a real ZTF reference over the longer side of a quadrant.
MARGIN = 3200.0 / 3080.0
FILTER_CODES = ("zg", "zr", "zi")
#: Bits that stay with the sky position: such pixels are added, and flagged if any epoch has them.
KEPT = int(Mask.SATURATED | Mask.GHOST | Mask.SPILLAGE | Mask.HALO)
#: Bits of passing or detector defects: such pixels are left out.
LEFT_OUT = UNUSABLE & ~KEPT
#: Around a trimmed pixel, those of its epoch within GROW_REACH pixels are trimmed from this many sigmas on, on the same side: the wings
#: of moving objects and cosmic rays.
GROW_SIGMA, GROW_REACH = 2.0, 3
#: Columns `select_inputs` reads.
INPUT_COLUMNS = ("seeing", "maglim", "magzp", "magzprms", "clrcoeff", "astrms", "background", "status")


def of_filter(values: Sequence[float], filter_code: str) -> float:
    """The entry of a g, r, i setting; BadInput for another filter."""
    if filter_code not in FILTER_CODES:
        raise BadInput(f"filter {filter_code!r} is not one of {', '.join(FILTER_CODES)}")
    return float(values[FILTER_CODES.index(filter_code)])


def footprint(wcs_list: Sequence[TpvWcs], shapes: Sequence[tuple[int, int]], *, size: tuple[int, int] | None = None
              ) -> tuple[TpvWcs, tuple[int, int]]:
    """Grid of a reference: tangent plane, north up, east left, centred on the mean of the epochs; (wcs, (ny, nx)).

    The side is 3200 pixels for ZTF quadrants and scales with others; it grows (in steps of 4) where the epochs reach farther.
    The pixel scale is the median of the epochs'. `size` overrides the shape.
    """
    if not wcs_list:
        raise BadInput("footprint: no epochs")
    corners = []
    for wcs, (ny, nx) in zip(wcs_list, shapes, strict=True):
        corners.append(wcs.sky(np.array([0, nx - 1, nx - 1, 0, (nx - 1) / 2]), np.array([0, 0, ny - 1, ny - 1, (ny - 1) / 2])))
    first = corners[0][0][-1], corners[0][1][-1]
    plane = np.array([project(ra, dec, *first) for ra, dec in corners])
    crval = tuple(float(v) for v in deproject(*plane[:, :, -1].mean(axis=0), *first))
    scale = float(np.median([wcs.pixel_scale_arcsec for wcs in wcs_list])) / 3600.0
    if size is None:
        reach = np.array([project(ra[:4], dec[:4], *crval) for ra, dec in corners]) / scale
        needed = 2.0 * np.abs(reach).max() + 1.0
        side = max(np.ceil(MARGIN * max(max(shape) for shape in shapes) / 4.0) * 4, np.ceil(needed / 4.0) * 4)
        size = int(side), int(side)
    crpix = (size[1] + 1) / 2.0, (size[0] + 1) / 2.0
    return TpvWcs(crpix, crval, ((-scale, 0.0), (0.0, scale))), size


def select_inputs(table: Mapping | np.ndarray, *, filter_code: str, zero_point: float | None = None,
                  config: ReferenceInputsConfig = ReferenceInputsConfig()) -> np.ndarray:
    """Indices of the epochs to add, by ascending FWHM: at most `max_inputs` of those that pass every cut.

    table : structured array or mapping with `INPUT_COLUMNS`: seeing [arcsec], maglim [mag], magzp [mag], magzprms [mag], clrcoeff,
        astrms [arcsec, the larger axis], background [DN, median], status (1 usable). NaN fails its cut.
    zero_point : the co-add's [mag], by default ReferenceConfig's for the filter.

    Raises Unusable, with the number of epochs each cut refuses, when fewer than `min_inputs` pass.
    """
    column = {name: np.asarray(table[name], float) for name in INPUT_COLUMNS}
    target = of_filter(ReferenceConfig().zero_points, filter_code) if zero_point is None else zero_point
    usable = column["status"] == 1
    colour = np.median(column["clrcoeff"][usable]) if usable.any() else np.nan
    cuts = {
        "status": usable,
        "seeing": (column["seeing"] >= config.seeing[0]) & (column["seeing"] <= config.seeing[1]),
        "magzprms": column["magzprms"] <= config.max_magzprms,
        "astrms": column["astrms"] <= config.max_astrometric_rms,
        "magzp": column["magzp"] >= target - config.max_extinction,
        "clrcoeff": np.abs(column["clrcoeff"] - colour) <= config.max_colour_deviation,
        "maglim": column["maglim"] >= of_filter(config.min_maglim, filter_code),
        "background": column["background"] <= of_filter(config.max_background, filter_code),
    }
    chosen = np.flatnonzero(np.logical_and.reduce(list(cuts.values())))
    if len(chosen) < config.min_inputs:
        refused = {f"refused_{name}": int(np.count_nonzero(~passed)) for name, passed in cuts.items()}
        raise Unusable(f"reference needs {config.min_inputs} good epochs, found {len(chosen)} of {len(usable)}",
                       found=len(chosen), needed=config.min_inputs, **refused)
    return chosen[np.argsort(column["seeing"][chosen], kind="stable")][:config.max_inputs]


def coadd(read_epoch: Callable[[int], Calibrated], magzp: Sequence[float], *, wcs: TpvWcs, shape: tuple[int, int], filter_code: str,
          scratch=None, config: ReferenceConfig = ReferenceConfig()) -> Coadd:
    """Average of epochs on one grid, gain-matched to the filter's fixed zero point.

    read_epoch : i -> Calibrated (with wcs and sky) of the i-th epoch; called once per epoch, in order.
    magzp : zero point of each epoch [mag]. wcs, shape : the reference grid (`footprint`).
    scratch : where the resampled epochs wait, (n, ny, nx) float32; any object with `scratch[i] = plane` and `scratch[:, a:b]`
        (a numpy memmap or an h5py dataset keeps memory independent of n); by default an array in memory.

    Each epoch loses its global median background, is resampled, and pixels with `LEFT_OUT` bits are dropped; those with `KEPT`
    bits are added, and the result carries the bit when any epoch has it (saturation depends on seeing). A pixel farther than
    `clip_sigma` percentile sigmas (never less than the pixel noise) from its stack's median is trimmed, and so is what lies about it.
    Returns a Coadd without PSF: NaN data, infinite sigma and the bits common to all epochs plus NAN where nothing is left.
    `sigma` is the scatter of single pixels, lower than of independent ones because interpolation correlates neighbours:
    `noise_correlation` is the ratio. Raises TooFewCalibrators when there are no epochs.
    """
    n = len(magzp)
    if n == 0:
        raise TooFewCalibrators("reference epochs", found=0, needed=1)
    target_zp = of_filter(config.zero_points, filter_code)
    scratch = np.empty((n, *shape), np.float32) if scratch is None else scratch
    union, common = np.zeros(shape, np.uint16), np.full(shape, 0xFFFF, np.uint16)
    sky_variance, per_dn, saturate = 0.0, 0.0, np.inf
    for i in range(n):
        epoch = read_epoch(i)
        scale = 10.0 ** (0.4 * (target_zp - float(magzp[i])))
        background = _global_median(epoch)
        plane, bits = resample(epoch.data - np.float32(background), epoch.wcs, wcs, shape, order=config.kernel_order, mask=epoch.mask)
        plane *= np.float32(scale)
        plane[(bits & np.uint16(LEFT_OUT)) != 0] = np.nan
        scratch[i] = plane
        union |= bits
        common &= bits
        sky_variance = sky_variance + scale**2 * _sky_variance_grid(epoch, background, wcs, shape) / n
        per_dn += scale / epoch.gain / n
        saturate = min(saturate, scale * (epoch.saturate - background))
    shrinkage = noise_shrinkage(config.kernel_order)
    data, depth = np.empty(shape, np.float32), np.empty(shape, np.int16)
    floor = shrinkage * float(np.sqrt(np.median(sky_variance)))
    trimmed = 0
    for y0 in range(0, shape[0], config.band_rows):
        band = slice(y0, min(shape[0], y0 + config.band_rows))
        first = max(0, y0 - GROW_REACH)
        stack = np.ascontiguousarray(scratch[:, first:band.stop + GROW_REACH])
        trimmed += _trimmed_mean(stack, config.clip_sigma, floor, config.min_clip_depth, y0 - first, data[band], depth[band])
    sigma = np.empty(shape, np.float32)
    _pixel_sigma(data, depth, sky_variance, GRID, per_dn, shrinkage, sigma)
    mask = union & np.uint16(KEPT)
    empty = depth == 0
    mask[empty] |= (common[empty] & np.uint16(LEFT_OUT)) | np.uint16(Mask.NAN)
    return Coadd(data, sigma, depth, mask, wcs, target_zp, n / per_dn, float(saturate), 1.0 / shrinkage,
                 metrics=_metrics(data, sigma, depth, mask, n, trimmed))


def _global_median(epoch: Calibrated) -> float:
    """Median of the unflagged pixels [DN], from every second row and column."""
    data, mask = epoch.data[::2, ::2], epoch.mask[::2, ::2]
    good = (mask & np.uint16(UNUSABLE | SOURCE)) == 0
    if np.count_nonzero(good) < 0.05 * good.size:
        good = (mask & np.uint16(UNUSABLE)) == 0
    return float(np.median(data[good])) if good.any() else float(np.median(data))


def _sky_variance_grid(epoch: Calibrated, background: float, wcs: TpvWcs, shape: tuple[int, int]) -> np.ndarray:
    """Variance of one pixel without its sources' photons [DN^2], at the nodes of the interpolation grid: medians of 32-pixel blocks."""
    step = GRID // 4
    variance = epoch.sigma[step // 2::step, step // 2::step].astype(float) ** 2
    variance -= (epoch.data[step // 2::step, step // 2::step] - background) / epoch.gain
    ny, nx = (max(1, v // 4) for v in variance.shape)
    blocks = np.empty((ny, nx))
    for j in range(ny):
        for i in range(nx):
            blocks[j, i] = np.median(variance[4 * j:4 * j + 4, 4 * i:4 * i + 4])
    gx, gy, area = source_grid(epoch.wcs, wcs, shape)
    rows = np.clip((gy / GRID).astype(int), 0, ny - 1)
    cols = np.clip((gx / GRID).astype(int), 0, nx - 1)
    return np.maximum(blocks[rows, cols], 1e-6) * area


def _metrics(data, sigma, depth, mask, n: int, trimmed: int) -> dict:
    covered = depth > 0
    if not covered.any():
        raise Unusable("no pixel of the reference is covered by good epochs", nframes=n)
    values = data[covered][::7]
    low, middle, high = np.percentile(values, (15.865, 50.0, 84.135))
    spread = float(0.5 * (high - low))
    inside = values[np.abs(values - middle) < 5.0 * spread] if spread > 0 else values
    return {"nframes": n, "npixsat": int(np.count_nonzero(mask & Mask.SATURATED)), "npixnan": int(np.count_nonzero(~covered)),
            "clipped_mean": float(inside.mean()), "clipped_stddev": float(inside.std()), "clipped_outliers": int(values.size - inside.size),
            "global_median": float(middle), "robust_spread": spread, "minimum": float(values.min()), "maximum": float(values.max()),
            "cov5percent": float(100.0 * np.mean(depth >= 5)), "median_depth": float(np.median(depth[covered])),
            "median_sigma": float(np.median(sigma[covered])),
            "trimmed_fraction": trimmed / max(1, int(depth.sum(dtype=np.int64)) + trimmed)}


@njit(cache=True, nogil=True)
def _trimmed_mean(stack, clip, floor, min_depth, top, mean, depth):
    """Per-pixel mean of the finite values not trimmed; returns the number trimmed.

    Trimmed are values farther than clip x max(0.5 (p84 - p16), floor) from their median, and those about them (`GROW_SIGMA`). `mean` is
    of the rows of the stack from `top` on.
    """
    n, ny, nx = stack.shape
    values, middle, width = np.empty(n, np.float32), np.zeros((ny, nx), np.float32), np.full((ny, nx), np.inf, np.float32)
    outlier = np.zeros((n, ny, nx), np.int8)
    for y in range(ny):
        for x in range(nx):
            m = 0
            for i in range(n):
                value = stack[i, y, x]
                if np.isfinite(value):
                    j = m
                    while j > 0 and values[j - 1] > value:
                        values[j] = values[j - 1]
                        j -= 1
                    values[j] = value
                    m += 1
            if m < min_depth:
                continue
            middle[y, x] = 0.5 * (values[(m - 1) // 2] + values[m // 2])
            width[y, x] = max(0.5 * (_percentile(values, m, 0.84135) - _percentile(values, m, 0.15865)), floor)
            if values[0] < middle[y, x] - clip * width[y, x] or values[m - 1] > middle[y, x] + clip * width[y, x]:
                for i in range(n):
                    rest = (stack[i, y, x] - middle[y, x]) / width[y, x]
                    outlier[i, y, x] = 1 if rest > clip else (-1 if rest < -clip else 0)
    trimmed = 0
    near = np.zeros((2, ny, nx), np.bool_)
    total = np.zeros(mean.shape, np.float64)
    depth[:] = 0
    for i in range(n):
        near[:] = False
        for y in range(ny):
            for x in range(nx):
                if outlier[i, y, x]:
                    side = 0 if outlier[i, y, x] > 0 else 1
                    for v in range(max(0, y - GROW_REACH), min(ny, y + GROW_REACH + 1)):
                        for u in range(max(0, x - GROW_REACH), min(nx, x + GROW_REACH + 1)):
                            near[side, v, u] = True
        for y in range(mean.shape[0]):
            for x in range(nx):
                value = stack[i, y + top, x]
                if not np.isfinite(value):
                    continue
                rest = value - middle[y + top, x]
                most = GROW_SIGMA * width[y + top, x]
                if outlier[i, y + top, x] or (near[0, y + top, x] and rest > most) or (near[1, y + top, x] and rest < -most):
                    trimmed += 1
                else:
                    total[y, x] += value
                    depth[y, x] += 1
    for y in range(mean.shape[0]):
        for x in range(nx):
            mean[y, x] = total[y, x] / depth[y, x] if depth[y, x] else np.nan
    return trimmed


@njit(cache=True, nogil=True)
def _percentile(ordered, m, fraction):
    place = fraction * (m - 1)
    k = int(place)
    return ordered[k] if k + 1 >= m else ordered[k] + (place - k) * (ordered[k + 1] - ordered[k])


@njit(cache=True, nogil=True)
def _pixel_sigma(data, depth, sky_variance, step, per_dn, shrinkage, sigma):
    """1-sigma of the mean: sky of the grid (bilinear) plus the source's photons, over the depth."""
    for y in range(data.shape[0]):
        j = y // step
        fy = (y - j * step) / step
        for x in range(data.shape[1]):
            if depth[y, x] == 0:
                sigma[y, x] = np.inf
                continue
            i = x // step
            fx = (x - i * step) / step
            sky = ((1 - fy) * ((1 - fx) * sky_variance[j, i] + fx * sky_variance[j, i + 1])
                   + fy * ((1 - fx) * sky_variance[j + 1, i] + fx * sky_variance[j + 1, i + 1]))
            sigma[y, x] = shrinkage * np.sqrt((sky + per_dn * max(data[y, x], 0.0)) / depth[y, x])
