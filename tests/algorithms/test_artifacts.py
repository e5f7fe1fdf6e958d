"""Artefact masks, on small images made here: Moffat stars on a flat noisy sky."""

import numpy as np
import pytest
from scipy.ndimage import binary_dilation

from ztfluigi.algorithms.artifacts import mask_cosmic_rays, mask_ghosts, mask_saturation, mask_tracks
from ztfluigi.model.camera import Ghost
from ztfluigi.model.config.detector import ArtifactConfig
from ztfluigi.model.errors import BadInput
from ztfluigi.model.images import Background
from ztfluigi.model.maskbits import Mask

SKY, GAIN, READ = 220.0, 6.2, 1.6
FULL = 58000.0


def stamp(x, y, fwhm, size=21, fine=5):
    """A Moffat star (beta 3), integrated over pixels, unit sum; x, y the offset of its centre."""
    place = (np.arange(size * fine) + 0.5) / fine - 0.5 - size // 2
    v, u = np.meshgrid(place - y, place - x, indexing="ij")
    profile = (1 + (u**2 + v**2) / (fwhm / 2) ** 2 * (2 ** (1 / 3) - 1)) ** -3.0
    profile = profile.reshape(size, fine, size, fine).sum(axis=(1, 3))
    return profile / profile.sum()


class Scene:
    """A sky with stars; `image()` draws the noise once everything is added."""

    def __init__(self, seed=1, shape=(256, 256), stars=80, fwhm=2.0, brightest=200000.0):
        self.rng, self.fwhm = np.random.default_rng(seed), fwhm
        self.light, self.hits = np.full(shape, SKY), np.zeros(shape)
        x, y = self.rng.uniform(12, shape[1] - 12, stars), self.rng.uniform(12, shape[0] - 12, stars)
        for a, b in zip(x, y, strict=True):
            self.star(a, b, min(200 / self.rng.uniform() ** 1.2, brightest))

    def star(self, x, y, flux):
        i, j = int(round(x)), int(round(y))
        self.light[j - 10:j + 11, i - 10:i + 11] += flux * stamp(x - i, y - j, self.fwhm)

    def track(self, x0, y0, x1, y1, peak):
        """A trail of Gaussian cross-section, FWHM as the stars', `peak` in units of the sky's noise."""
        y, x = np.mgrid[:self.light.shape[0], :self.light.shape[1]]
        length = np.hypot(x1 - x0, y1 - y0)
        along = ((x - x0) * (x1 - x0) + (y - y0) * (y1 - y0)) / length
        across = ((x - x0) * (y1 - y0) - (y - y0) * (x1 - x0)) / length
        band = peak * np.exp(-0.5 * (across / (self.fwhm / 2.355)) ** 2) * ((along >= 0) & (along <= length))
        self.light += band * np.hypot(np.sqrt(SKY / GAIN), READ)
        return band > 0.5 * peak

    def image(self):
        """data, sigma, mask, background; saturated pixels are marked."""
        expected = np.minimum(self.light, 1.1 * FULL)
        sigma = np.sqrt(expected / GAIN + READ**2)
        data = expected + self.hits + self.rng.normal(0, sigma)
        noise = np.sqrt((expected + self.hits) / GAIN + READ**2)
        shape = self.light.shape
        mask = np.where(expected >= FULL, np.uint16(Mask.SATURATED), np.uint16(0)).astype(np.uint16)
        flat = Background(np.full(shape, SKY, np.float32), np.full(shape, np.hypot(np.sqrt(SKY / GAIN), READ), np.float32), SKY, 6.2)
        return data.astype(np.float32), noise.astype(np.float32), mask, flat


def bit(mask, flag):
    return (mask & np.uint16(flag)) != 0


# --- radiation hits ---------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("fwhm", [1.3, 1.6, 2.0, 2.5, 4.0])
def test_no_star_is_taken_for_a_hit(fwhm):
    scene = Scene(seed=int(10 * fwhm), stars=400, fwhm=fwhm)
    data, sigma, mask, sky = scene.image()
    found, hits = mask_cosmic_rays(data, sigma, mask, sky, fwhm)
    assert hits <= 1 and bit(found, Mask.SPIKE).sum() <= 1
    np.testing.assert_array_equal(found & ~np.uint16(Mask.SPIKE), mask)


def add_hits(scene, n=120):
    """Straight tracks of one to twelve pixels, of 60 to 1500 DN a pixel, one pixel wide."""
    for _ in range(n):
        x, y = scene.rng.uniform(5, 250, 2)
        length, angle, charge = scene.rng.exponential(3), scene.rng.uniform(0, np.pi), 60 * 25 ** scene.rng.uniform()
        steps = np.linspace(0, length, 40)
        j, i = np.rint(y + steps * np.sin(angle)).astype(int), np.rint(x + steps * np.cos(angle)).astype(int)
        inside = (i >= 0) & (i < 256) & (j >= 0) & (j < 256)
        np.add.at(scene.hits, (j[inside], i[inside]), charge * (length + 1) / 40)


@pytest.mark.parametrize(("fwhm", "recall"), [(1.6, 0.93), (2.0, 0.98), (2.5, 0.98)])
def test_hits_are_found_and_little_else(fwhm, recall):
    scene = Scene(seed=7, stars=60, fwhm=fwhm)
    add_hits(scene)
    data, sigma, mask, sky = scene.image()
    found, hits = mask_cosmic_rays(data, sigma, mask, sky, fwhm)
    spike, strong = bit(found, Mask.SPIKE), scene.hits > 8 * sigma
    assert (spike & strong).sum() >= recall * strong.sum()
    # faint pixels beside a hit join it, and some are noise
    assert (spike & (scene.hits > 0)).sum() >= 0.95 * spike.sum()
    assert (spike & binary_dilation(scene.hits > 0, np.ones((3, 3)))).sum() >= 0.98 * spike.sum()
    assert 80 < hits < 150


def test_a_long_thin_track_is_found_whole_in_any_direction():
    scene = Scene(seed=3, stars=0)
    places = [(60, 60), (60, 128), (60, 196), (128, 60), (128, 196), (196, 60), (196, 128), (196, 196)]
    for angle, (x, y) in zip(np.linspace(0, 3, 8), places, strict=True):
        t = np.arange(-20, 20, 0.5)
        scene.hits[np.rint(y + t * np.sin(angle)).astype(int), np.rint(x + t * np.cos(angle)).astype(int)] = 150.0
    data, sigma, mask, sky = scene.image()
    found, hits = mask_cosmic_rays(data, sigma, mask, sky, 2.0)
    true = scene.hits > 0
    assert (bit(found, Mask.SPIKE) & true).sum() > 0.95 * true.sum()
    assert bit(found, Mask.SPIKE).sum() < 1.04 * true.sum()


@pytest.mark.parametrize("fwhm", [2.2, 3.0])
def test_hits_on_the_wings_of_stars_are_found_and_the_stars_are_not(fwhm):
    scene = Scene(seed=12, stars=0, fwhm=fwhm)
    places = [(x, y) for x in range(20, 240, 24) for y in range(20, 240, 24)]
    for x, y in places:
        a, b = scene.rng.uniform(-0.5, 0.5, 2)
        scene.star(x + a, y + b, 8000.0)
        i, j = int(x + round(1.6 * fwhm)), y
        scene.hits[j:j + 3, i] = 12 * np.sqrt(scene.light[j:j + 3, i] / GAIN + READ**2)
    data, sigma, mask, sky = scene.image()
    found, _ = mask_cosmic_rays(data, sigma, mask, sky, fwhm)
    spike = bit(found, Mask.SPIKE)
    cores = np.array([spike[y - 1:y + 2, x - 1:x + 2].any() for x, y in places])
    assert spike[scene.hits > 0].mean() > 0.9 and not cores.any()


def test_hits_on_the_border_and_beside_dead_pixels_are_found():
    scene = Scene(seed=4, stars=0)
    scene.hits[0, 100], scene.hits[255, 200], scene.hits[80, 0] = 500, 500, 500
    scene.hits[40, 40] = 500
    data, sigma, mask, sky = scene.image()
    mask[40, 41] = Mask.DEAD
    found, hits = mask_cosmic_rays(data, sigma, mask, sky, 2.2)
    assert hits == 4 and all(bit(found, Mask.SPIKE)[at] for at in ((0, 100), (255, 200), (80, 0), (40, 40)))
    assert found[40, 41] == Mask.DEAD


def test_saturated_stars_are_left_alone():
    scene = Scene(seed=5, stars=0)
    scene.star(100.3, 100.4, 3e6)
    data, sigma, mask, sky = scene.image()
    assert bit(mask, Mask.SATURATED).any()
    data[90:111, 100] = 1.05 * FULL
    mask[90:111, 100] = Mask.SATURATED
    assert mask_cosmic_rays(data, sigma, mask, sky, 2.0)[1] == 0


def test_senseless_requests_are_refused():
    data, sigma, mask, sky = Scene(stars=0).image()
    with pytest.raises(BadInput):
        mask_cosmic_rays(data, sigma, mask[1:], sky, 2.0)
    with pytest.raises(BadInput):
        mask_cosmic_rays(data, sigma, mask, sky, 0.0)


# --- saturation -------------------------------------------------------------------------------------------------------------------

def test_bleed_is_followed_along_the_column_only():
    scene = Scene(seed=6, stars=0)
    scene.light[100:121, 60] = 1.2 * FULL
    scene.light[121:140, 60] = np.linspace(20000, 3000, 19)
    scene.light[80:100, 60] = 5000
    data, _, mask, _ = scene.image()
    found, added = mask_saturation(data, mask, FULL)
    full = bit(found, Mask.SATURATED)
    assert full[80:140, 60].all() and full[79:141, 59:62].all()
    assert not full[:78].any() and not full[142:].any() and not full[:, :58].any() and not full[:, 63:].any()
    assert added == full.sum() - 21
    assert not bit(mask, Mask.SATURATED)[80:100].any()


def test_stars_without_bleed_hardly_grow():
    scene = Scene(seed=7, stars=0)
    scene.star(100, 100, 1.0e6)
    data, _, mask, _ = scene.image()
    core = bit(mask, Mask.SATURATED)
    found, _ = mask_saturation(data, mask, FULL)
    y, x = np.nonzero(bit(found, Mask.SATURATED))
    cy, cx = np.nonzero(core)
    assert (x.min(), x.max()) == (cx.min() - 1, cx.max() + 1)
    assert cy.min() - 3 <= y.min() and y.max() <= cy.max() + 3
    untouched, added = mask_saturation(data, np.zeros_like(mask), FULL)
    assert added == 0 and not untouched.any()


# --- tracks -----------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("x0", "y0", "x1", "y1"), [(-10, 40, 522, 470), (30, -10, 90, 522), (-10, 300, 522, 290), (500, -10, -10, 480),
                                                    (250, -10, 251, 522), (100, 120, 350, 300), (400, 500, 520, 350)])
def test_faint_tracks_are_masked_along_their_length(x0, y0, x1, y1):
    scene = Scene(seed=8, shape=(512, 512), stars=250)
    core = scene.track(x0, y0, x1, y1, 2.0)
    found, tracks = mask_tracks(*scene.image()[:3], scene.image()[3])
    got = bit(found, Mask.TRACK)
    assert tracks == 1
    assert (got & core).sum() > 0.95 * core.sum()
    assert got.sum() < 8 * core.sum()


def test_two_tracks_are_two():
    scene = Scene(seed=9, shape=(512, 512), stars=250)
    first, second = scene.track(-10, 40, 522, 470, 3.0), scene.track(-10, 400, 522, 100, 30.0)
    data, sigma, mask, sky = scene.image()
    found, tracks = mask_tracks(data, sigma, mask, sky)
    got = bit(found, Mask.TRACK)
    assert tracks == 2 and (got & first).sum() > 0.95 * first.sum() and (got & second).sum() > 0.95 * second.sum()
    assert mask_tracks(data, sigma, mask, sky, config=ArtifactConfig(max_tracks=1))[1] == 1
    assert mask_tracks(data, sigma, mask, sky, config=ArtifactConfig(max_tracks=0))[1] == 0


@pytest.mark.parametrize("seed", range(3))
def test_crowded_fields_have_no_tracks(seed):
    data, sigma, mask, sky = Scene(seed=20 + seed, shape=(512, 512), stars=2500).image()
    found, tracks = mask_tracks(data, sigma, mask, sky)
    assert tracks == 0 and not found[~bit(mask, Mask.SATURATED)].any()


def test_what_looks_like_a_line_but_is_none():
    scene = Scene(seed=10, shape=(512, 512), stars=200)
    y, x = np.mgrid[:512, :512]
    scene.light[:, 77] += 30.0  # a bad column
    scene.light[200:330, 300] = 1.2 * FULL  # a saturated column with its glow
    scene.light += 400 * np.exp(-np.hypot(x - 300, y - 265) / 25)
    u, v = (x - 150) * 0.8 + (y - 380) * 0.6, (y - 380) * 0.8 - (x - 150) * 0.6
    scene.light += 120 * np.exp(-np.hypot(u / 45, v / 14))  # a large inclined galaxy
    data, sigma, mask, sky = scene.image()
    mask, _ = mask_saturation(data, mask, FULL)
    assert mask_tracks(data, sigma, mask, sky)[1] == 0


def test_a_short_streak_is_no_track():
    scene = Scene(seed=11, shape=(512, 512), stars=100)
    scene.track(200, 200, 260, 240, 20.0)
    assert mask_tracks(*scene.image())[1] == 0


# --- ghosts and halos -------------------------------------------------------------------------------------------------------------

def test_halos_are_circles_around_very_bright_stars():
    mask = np.full((300, 300), Mask.NOISY, np.uint16)
    x, y = np.array([100.0, 310.0, 200.0, -500.0]), np.array([120.0, 150.0, 200.0, 0.0])
    found, stars = mask_ghosts(mask, x, y, np.array([6.5, 4.0, 9.0, 5.0]), config=ArtifactConfig(halo_radius_pix=20))
    y, x = np.mgrid[:300, :300]
    expected = ((x - 100) ** 2 + (y - 120) ** 2 <= 400) | ((x - 310) ** 2 + (y - 150) ** 2 <= 1600)
    np.testing.assert_array_equal(bit(found, Mask.HALO), expected)
    assert stars == 2 and np.all(bit(found, Mask.NOISY)) and not bit(found, Mask.GHOST).any()


def test_ghosts_lie_where_the_geometry_says():
    ghost = Ghost(light=0.01, inner_pix=10.0, outer_pix=20.0, scale=-1.0, offset_pix=(5.0, -7.0))
    edge = 0.25 * 6.0 / ghost.brightness(1.0)  # as bright as a quarter of the noise
    options = dict(light=np.array([1.1 * edge, 0.9 * edge]), noise=6.0, ghosts=(ghost,))
    found, halos = mask_ghosts(np.zeros((301, 301), np.uint16), np.array([200.0, 100.0]), np.array([150.0, 80.0]), np.array([9.0, 9.1]),
                               **options)
    y, x = np.nonzero(bit(found, Mask.GHOST))
    distance = np.hypot(x - 105, y - 143)
    assert halos == 0 and distance.min() == pytest.approx(9, abs=0.5) and distance.max() == pytest.approx(21, abs=0.5)
    assert len(x) == pytest.approx(np.pi * (21**2 - 9**2), rel=0.03)


@pytest.mark.real
def test_a_real_long_streak_is_masked(shared_data):
    """YSTAR image with one trail across the frame."""
    import fitsio
    import sep

    data = fitsio.read(str(shared_data / "images-streak" / "ystar_saao_long_streak.fits.gz")).astype(np.float32)
    sky = sep.Background(data)
    noise = sky.rms(dtype=np.float32)
    background = Background(sky.back(dtype=np.float32), noise, sky.globalback, sky.globalrms)
    found, tracks = mask_tracks(data, noise, np.zeros(data.shape, np.uint16), background)
    assert tracks == 1
    assert 2000 < bit(found, Mask.TRACK).sum() < 20000
