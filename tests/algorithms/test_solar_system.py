"""Known objects: motion against Kepler's equation and energy, the search in a cone against a search of everything, and bad exposures."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.coordinates import EarthLocation
from astropy.time import Time
from astropy.utils import iers

from ztfluigi.algorithms import solar_system
from ztfluigi.model.camera import load_camera
from ztfluigi.model.errors import BadInput
from ztfluigi.model.orbits import BODY_STATE, STATE, NightStates
from ztfluigi.model.wcs import separation_arcsec

SITE = load_camera("ztf").site
NIGHT = 2458424.5
GM = solar_system.GM_SUN


def orbit_track(radius: float, times: np.ndarray) -> np.ndarray:
    """A body on a circle, as the Earth nearly is."""
    rows, rate = np.zeros(len(times), BODY_STATE), np.sqrt(GM / radius**3)
    turn = rate * (times - NIGHT) + 0.7
    rows["jd"], rows["x"], rows["y"] = times, radius * np.cos(turn), radius * np.sin(turn)
    rows["vx"], rows["vy"] = -radius * rate * np.sin(turn), radius * rate * np.cos(turn)
    return rows


def bodies(n: int, rng, low: float = 1.2, high: float = 4.0) -> np.ndarray:
    """Random states of bound, moderately eccentric orbits."""
    states = np.zeros(n, STATE)
    direction = rng.normal(size=(n, 3)) * [1.0, 1.0, 0.2]
    direction /= np.linalg.norm(direction, axis=1)[:, None]
    r = rng.uniform(low, high, n)
    along = np.cross([0.0, 0.0, 1.0], direction) + rng.normal(0.0, 0.1, (n, 3))
    for axis, p, v in zip("xyz", (direction * r[:, None]).T, (along * np.sqrt(GM / r)[:, None]).T, strict=True):
        states[axis], states["v" + axis] = p, v
    states["jd"], states["h"], states["slope"] = NIGHT + 0.3, 17.0, 0.15
    states["designation"] = [f"{k:05d}" for k in range(n)]
    return states


@pytest.fixture(scope="module")
def night():
    """20,000 objects, three of them near the Earth."""
    rng = np.random.default_rng(4)
    times = solar_system.night_times(NIGHT, SITE[0])[1]
    earth = orbit_track(1.0, times)
    close = np.concatenate([bodies(3, np.random.default_rng(5), 1.0, 1.0)] * len(times))
    close["jd"] = np.repeat(times, 3)
    for axis, shift in (("x", 0.02), ("y", 0.03), ("z", 0.01)):
        close[axis] = np.repeat(earth[axis], 3) + shift * np.tile([1.0, 2.0, -1.0], len(times))
        close["v" + axis] = np.repeat(earth["v" + axis], 3)
    close["designation"] = np.tile([b"K18V01A", b"K18V02A", b"K18V03A"], len(times))
    return NightStates(bodies(20_000, rng), close, earth)


@pytest.mark.parametrize("e", [0.0, 0.3, 0.95, 1.0, 2.5])
def test_two_body_motion_keeps_energy_momentum_and_keplers_law(e):
    """From perihelion the true anomaly after dt obeys Kepler's equation in its elliptic, parabolic or hyperbolic form."""
    q, dt = 1.3, np.array([-9.0, -0.5, 0.0, 0.2, 12.0])
    speed = np.sqrt(GM * (1 + e) / q)
    start = np.tile([q, 0.0, 0.0], (len(dt), 1)), np.tile([0.0, speed, 0.0], (len(dt), 1))
    place = solar_system.two_body(*start, dt)
    true = np.arctan2(place[:, 1], place[:, 0])
    np.testing.assert_allclose(np.linalg.norm(place, axis=1), q * (1 + e) / (1 + e * np.cos(true)), rtol=1e-13)
    half = np.tan(true / 2)
    if e < 1:
        eccentric = 2 * np.arctan(np.sqrt((1 - e) / (1 + e)) * half)
        time = (eccentric - e * np.sin(eccentric)) / np.sqrt(GM * ((1 - e) / q) ** 3)
    elif e == 1:
        time = np.sqrt(2 * q**3 / GM) * (half + half**3 / 3)
    else:
        hyperbolic = 2 * np.arctanh(np.sqrt((e - 1) / (e + 1)) * half)
        time = (e * np.sinh(hyperbolic) - hyperbolic) / np.sqrt(GM * ((e - 1) / q) ** 3)
    np.testing.assert_allclose(time, dt, atol=1e-10)


def test_a_cone_holds_what_a_search_of_the_whole_sky_finds_in_it(night):
    for fraction in (0.05, 0.3, 0.95):
        everything = solar_system.predict(night, jd_utc=NIGHT + fraction, site=SITE, ra=0.0, dec=0.0, radius_deg=180.0)
        assert len(everything) == 20_003
        for ra, dec, radius in ((20.0, 5.0, 4.0), (200.0, -10.0, 0.7), (everything["ra"][-1], everything["dec"][-1], 1.0)):
            found = solar_system.predict(night, jd_utc=NIGHT + fraction, site=SITE, ra=ra, dec=dec, radius_deg=radius)
            inside = separation_arcsec(everything["ra"], everything["dec"], ra, dec) <= 3600.0 * radius
            np.testing.assert_array_equal(np.sort(found["designation"]), np.sort(everything["designation"][inside]))
        assert found["designation"][-1] == b"K18V03A" and found["distance"][-1] < 0.04


def test_faint_objects_are_left_out_and_unknown_magnitudes_kept(night):
    options = {"jd_utc": NIGHT + 0.3, "site": SITE, "ra": 20.0, "dec": 5.0, "radius_deg": 20.0}
    every = solar_system.predict(night, **options)
    night.states["h"][::2] = np.nan
    some = solar_system.predict(night, faintest=20.0, **options)
    night.states["h"][::2] = 17.0
    assert 0 < len(some) < len(every)
    assert np.isnan(some["v_mag"]).sum() > 20 and np.nanmax(some["v_mag"]) <= 20.0 < every["v_mag"].max()


def test_the_observatory_stands_where_astropy_puts_it():
    """And at the Minor Planet Center's constants of code I41."""
    with iers.conf.set_temp("auto_download", False):
        for jd in (2458424.8, 2459300.3):
            there = EarthLocation.from_geodetic(*SITE).get_gcrs_posvel(Time(jd, format="jd", scale="utc"))[0].xyz.to_value("au")
            ours = solar_system.site_position(*SITE, jd)
            assert np.linalg.norm(ours - there) * solar_system.AU_M < 500.0
    assert ours[2] * solar_system.AU_M / 6378137.0 == pytest.approx(0.546877, abs=2e-3)  # precession tilts the axis since 2000


def test_a_track_is_followed_between_its_nodes():
    times = solar_system.night_times(NIGHT, SITE[0])[1]
    track = orbit_track(1.0, times)
    for jd in NIGHT + np.array([0.0, 0.013, 0.5, 0.987, 1.0]):
        exact = orbit_track(1.0, np.array([jd]))[0]
        np.testing.assert_allclose(solar_system.body_at(track, jd), [exact[n] for n in ("x", "y", "z", "vx", "vy", "vz")], atol=1e-12)
    assert solar_system.night_times(NIGHT, 15.0)[0] == pytest.approx(NIGHT + 23 / 24)


def test_neighbours_and_the_words_for_none(night):
    places = solar_system.predict(night, jd_utc=NIGHT + 0.3, site=SITE, ra=20.0, dec=5.0, radius_deg=5.0)
    places["v_mag"][1] = np.nan
    shift = np.array([0.0, 3.0, 29.0, 31.0]) / 3600.0
    lonely = np.array([places["ra"][0], places["ra"][1], places["ra"][2], 200.0]), places["dec"][[0, 1, 2, 3]] + shift
    found = solar_system.nearest_known(*lonely, places)
    np.testing.assert_allclose(found["ssdistnr"], [0.0, 3.0, 29.0, -999.0], atol=1e-6)
    assert found["ssmagnr"].tolist() == [places["v_mag"][0], -999.0, places["v_mag"][2], -999.0]
    assert found["ssnamenr"].tolist() == [str(int(n)) for n in places["designation"][:3]] + ["null"]
    nothing = solar_system.nearest_known(*lonely, places[:0])
    assert set(nothing["ssnamenr"]) == {"null"} and set(nothing["ssdistnr"]) == set(nothing["ssmagnr"]) == {-999.0}


def test_a_cone_around_candidates_reaches_every_neighbour():
    ra, dec = np.array([359.9, 0.2, 0.1]), np.array([-1.0, 0.3, 0.9])
    centre_ra, centre_dec, radius = solar_system.cone_around(ra, dec)
    far = separation_arcsec(ra, dec, centre_ra, centre_dec).max()
    assert radius * 3600.0 == pytest.approx(far + 30.0, abs=1e-6) and radius < 1.2


@pytest.mark.parametrize("changes, said", [({"ra": np.nan}, "ra nan"), ({"jd_utc": np.nan}, "JD nan"),
                                           ({"jd_utc": NIGHT + 3.0}, "outside the night")])
def test_an_exposure_without_coordinates_or_of_another_night_says_so(night, changes, said):
    with pytest.raises(BadInput, match=said):
        solar_system.predict(night, **({"jd_utc": NIGHT + 0.3, "site": SITE, "ra": 20.0, "dec": 5.0, "radius_deg": 1.0} | changes))
