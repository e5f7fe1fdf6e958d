"""Reference co-adds: footprint, choice of epochs, average, noise and masks."""

from __future__ import annotations

import numpy as np
import pytest

from ztfluigi.algorithms.coadd import INPUT_COLUMNS, coadd, footprint, select_inputs
from ztfluigi.model.config.reference import ReferenceConfig, ReferenceInputsConfig
from ztfluigi.model.errors import TooFewCalibrators, Unusable
from ztfluigi.model.images import Calibrated
from ztfluigi.model.maskbits import Mask
from ztfluigi.model.psf import PsfModel
from ztfluigi.model.wcs import TpvWcs

SCALE = 1.0125 / 3600.0
SHAPE = (128, 120)
N = 16
STARS = [(30.3, 40.7, 2e4), (90.6, 50.2, 6e3), (60.5, 100.4, 1e3)]
SKY, GAIN, READ_NOISE = 200.0, 6.2, 10.0


def epoch_wcs(dx=0.0, dy=0.0):
    return TpvWcs(((SHAPE[1] + 1) / 2 + dx, (SHAPE[0] + 1) / 2 + dy), (150.0, 30.0), ((-SCALE, 0.0), (0.0, -SCALE)))


def make_epoch(i):
    """Epoch i of a small sky: own dither, seeing, zero point (0.05 mag steps) and noise; star places are those of the undithered frame."""
    rng = np.random.default_rng(100 + i)
    dx, dy = rng.uniform(-3, 3, 2)
    zero_point = 26.275 - 0.05 * (i % 4)
    psf = PsfModel.gaussian(2.0 + 0.05 * (i % 5), SHAPE)
    data = np.full(SHAPE, SKY)
    for x, y, flux in STARS:
        ix, iy = round(x + dx), round(y + dy)
        stamp = psf.render(x, y, 25, x + dx - ix, y + dy - iy)
        data[iy - 12:iy + 13, ix - 12:ix + 13] += flux * 10 ** (0.4 * (zero_point - 26.275)) * stamp
    sigma = np.sqrt(data / GAIN + (READ_NOISE / GAIN) ** 2)
    noisy = (data + sigma * rng.normal(size=SHAPE)).astype(np.float32)
    epoch = Calibrated(noisy, sigma.astype(np.float32), np.zeros(SHAPE, np.uint16), GAIN, READ_NOISE, 5e4, epoch_wcs(dx, dy))
    return epoch, zero_point


@pytest.fixture(scope="module")
def epochs():
    return [make_epoch(i) for i in range(N)]


@pytest.fixture(scope="module")
def grid(epochs):
    return footprint([e.wcs for e, _ in epochs], [SHAPE] * N)


@pytest.fixture(scope="module")
def result(epochs, grid):
    return coadd(lambda i: epochs[i][0], [zp for _, zp in epochs], wcs=grid[0], shape=grid[1], filter_code="zr")


def place(result, x, y):
    return tuple(float(v) for v in result.wcs.pixel(*epoch_wcs().sky(x, y)))


def test_footprint_is_north_up_and_holds_every_epoch(epochs, grid):
    wcs, shape = grid
    assert wcs.cd[0][0] < 0 < wcs.cd[1][1] and wcs.cd[0][1] == wcs.cd[1][0] == 0 and not wcs.distorted
    for epoch, _ in epochs:
        x, y = wcs.pixel(*epoch.wcs.sky(np.array([0, SHAPE[1] - 1]), np.array([0, SHAPE[0] - 1])))
        assert (x >= 0).all() and (x <= shape[1] - 1).all() and (y >= 0).all() and (y <= shape[0] - 1).all()


def test_footprint_of_a_real_quadrant_has_the_real_size():
    wcs = TpvWcs((1536.5, 1540.5), (150.0, 30.0), ((-SCALE, 0.0), (0.0, -SCALE)))
    grid, shape = footprint([wcs] * 3, [(3080, 3072)] * 3)
    assert shape == (3200, 3200) and grid.crpix == (1600.5, 1600.5)
    assert grid.crval == pytest.approx((150.0, 30.0))


def test_fluxes_come_on_the_fixed_zero_point(result):
    assert result.magzp == 26.275
    for x, y, flux in STARS:
        cx, cy = (round(v) for v in place(result, x, y))
        stamp = result.data[cy - 8:cy + 9, cx - 8:cx + 9]
        noise = 17 * float(np.median(result.sigma)) * result.noise_correlation
        assert stamp.sum() == pytest.approx(flux, abs=4 * noise + 0.005 * flux)


def test_sources_lie_where_the_wcs_says(result):
    x, y = place(result, *STARS[0][:2])
    ix, iy = round(x), round(y)
    stamp = result.data[iy - 6:iy + 7, ix - 6:ix + 7]
    offset = np.arange(-6, 7)
    assert ix + (stamp.sum(axis=0) * offset).sum() / stamp.sum() == pytest.approx(x, abs=0.03)
    assert iy + (stamp.sum(axis=1) * offset).sum() / stamp.sum() == pytest.approx(y, abs=0.03)


def test_sigma_is_the_scatter_and_correlation_that_of_sums(result):
    full = (result.depth == N) & (result.data < 5 * result.sigma)
    score = (result.data / result.sigma)[full]
    assert 0.5 * np.subtract(*np.percentile(score, (84.135, 15.865))) == pytest.approx(1.0, abs=0.06)
    blank = np.where(full, result.data / result.sigma, np.nan)[16:112, 16:112]
    sums = blank.reshape(12, 8, 12, 8).sum(axis=(1, 3))
    assert np.nanstd(sums) / 8 == pytest.approx(result.noise_correlation, rel=0.2)


def test_cosmic_rays_are_trimmed_and_defects_left_out(epochs, grid):
    planted = []
    for i, (epoch, zp) in enumerate(epochs):
        data, mask = epoch.data.copy(), epoch.mask.copy()
        if i == 4:
            data[70:72, 70] += 3e4
        if i == 7:
            data[:, 20], mask[:, 20] = 6e4, Mask.NOISY
        planted.append((Calibrated(data, epoch.sigma, mask, GAIN, READ_NOISE, 5e4, epoch.wcs), zp))
    clean = coadd(lambda i: epochs[i][0], [zp for _, zp in epochs], wcs=grid[0], shape=grid[1], filter_code="zr")
    dirty = coadd(lambda i: planted[i][0], [zp for _, zp in epochs], wcs=grid[0], shape=grid[1], filter_code="zr")
    both = (clean.depth > 8) & (dirty.depth > 8)
    # A lost epoch moves the mean of a pixel by its noise over sqrt(n (n-1)), so far less than 5 sigma of the mean.
    assert np.abs((dirty.data - clean.data)[both] / clean.sigma[both]).max() < 3.0
    assert dirty.metrics["trimmed_fraction"] > 0


def test_saturation_is_the_union_and_common_holes_are_nan(epochs, grid):
    marked = []
    for i, (epoch, zp) in enumerate(epochs):
        mask = epoch.mask.copy()
        if i == 3:
            mask[60, 60] |= np.uint16(Mask.SATURATED)
        x, y = (round(float(v)) for v in epoch.wcs.pixel(*epoch_wcs().sky(90, 90)))
        mask[y - 6:y + 7, x - 6:x + 7] |= np.uint16(Mask.DEAD)
        marked.append(Calibrated(epoch.data, epoch.sigma, mask, GAIN, READ_NOISE, 5e4, epoch.wcs))
    out = coadd(lambda i: marked[i], [zp for _, zp in epochs], wcs=grid[0], shape=grid[1], filter_code="zr")
    x, y = (round(v) for v in place(out, 90, 90))
    assert np.isnan(out.data[y, x]) and out.mask[y, x] & Mask.NAN and out.mask[y, x] & Mask.DEAD and out.depth[y, x] == 0
    assert np.isinf(out.sigma[y, x])
    x, y = (float(v) for v in out.wcs.pixel(*marked[3].wcs.sky(60, 60)))
    assert out.mask[round(y), round(x)] & Mask.SATURATED and np.isfinite(out.data[round(y), round(x)])


def test_order_of_epochs_and_scratch_do_not_matter(epochs, grid, result, tmp_path):
    order = np.random.default_rng(3).permutation(N)
    disk = np.memmap(tmp_path / "stack", np.float32, "w+", shape=(N, *grid[1]))
    other = coadd(lambda i: epochs[order[i]][0], [epochs[i][1] for i in order], wcs=grid[0], shape=grid[1], filter_code="zr",
                  scratch=disk, config=ReferenceConfig(band_rows=17))
    np.testing.assert_allclose(other.data, result.data, rtol=1e-5, atol=1e-4)
    np.testing.assert_array_equal(other.depth, result.depth)


def test_no_epochs_raise(grid):
    with pytest.raises(TooFewCalibrators):
        coadd(lambda i: None, [], wcs=grid[0], shape=grid[1], filter_code="zr")


def metrics_table(n=60, seed=5):
    rng = np.random.default_rng(seed)
    table = np.zeros(n, [(name, "f8") for name in INPUT_COLUMNS])
    table["seeing"] = rng.uniform(1.6, 3.2, n)
    table["maglim"], table["magzp"], table["magzprms"], table["status"] = 20.5, 26.25, 0.03, 1
    table["clrcoeff"], table["astrms"], table["background"] = 0.08, 0.06, 250.0
    return table


def test_inputs_are_the_best_seeing_within_the_cuts():
    table = metrics_table()
    table["status"][:5] = 0
    table["magzp"][5] = 25.0
    table["maglim"][6] = 18.0
    table["background"][7] = 5000.0
    table["clrcoeff"][8] = 0.4
    table["astrms"][9] = np.nan
    chosen = select_inputs(table, filter_code="zr", config=ReferenceInputsConfig(max_inputs=20))
    assert len(chosen) == 20 and chosen.min() > 9
    assert (np.diff(table["seeing"][chosen]) >= 0).all() and table["seeing"][chosen].min() >= 2.0
    left = np.setdiff1d(np.flatnonzero((table["seeing"] >= 2.0) & (np.arange(60) > 9)), chosen)
    assert table["seeing"][left].min() >= table["seeing"][chosen].max()


def test_too_few_epochs_raise_with_the_reasons():
    table = metrics_table(20)
    table["magzprms"][:10] = 0.5
    with pytest.raises(Unusable) as caught:
        select_inputs(table, filter_code="zg")
    assert caught.value.numbers["needed"] == 15 and caught.value.numbers["refused_magzprms"] == 10
