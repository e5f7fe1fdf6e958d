"""The known orbits of a night, from the orbit file to the neighbours of candidates, through kete itself."""

from __future__ import annotations

import luigi
import numpy as np
import pytest

from targets import paths
from ztfluigi.algorithms import solar_system
from ztfluigi.model.camera import load_camera
from ztfluigi.model.ids import SkyCell
from ztfluigi.model.orbits import ELEMENT, STATE
from ztfluigi.model.wcs import separation_arcsec
from ztfluigi.services import ephemeris
from ztfluigi.simulate import solar_system as sky
from ztfluigi.tasks import alert_context, process
from ztfluigi.tasks.known_orbits import KnownOrbits, carry

CAMERA = load_camera("ztf")
EXPOSURE, MJD = "20181106300000", 58428.3
SAID = "no solar-system neighbours: "


def orbits(n: int) -> np.ndarray:
    """Simulated orbits near (43.7, 11.8) at MJD."""
    place, jd = sky.observer(CAMERA, MJD)
    rng = np.random.default_rng(8)
    return np.concatenate([sky.make_orbit(k, 43.7 + 0.1 * k, 11.8, 19.0, True, place, jd, rng) for k in range(n)])


def ask(known: KnownOrbits) -> bool:
    process.PROVIDS.clear()
    return luigi.build([known], local_scheduler=True, log_level="CRITICAL")


def candidates_at(ra, dec) -> alert_context.Candidates:
    ra = np.atleast_1d(ra)
    return alert_context.Candidates(EXPOSURE, SkyCell(600, "zr", 1, 1), 1, MJD + 2400000.5 - 15.0 / 86400.0, 30.0, np.arange(len(ra)), ra,
                                    np.atleast_1d(dec))


def test_simulated_asteroids_get_their_names(registry):
    """The simulator's places come from its own two-body ephemeris and astropy's Earth."""
    made, root = orbits(12), registry_root()
    sky.write_mpcorb(root / paths.MPCORB, made)
    lines = (root / paths.MPCORB).read_text().splitlines()
    (root / paths.MPCORB).write_text("\n".join([*lines, "00001 is cut sho"]) + "\n")
    known = KnownOrbits.of_exposure(EXPOSURE)
    assert ask(known)
    row = known.row()
    assert row.state == "sealed" and (row.numbers["n_orbits"], row.numbers["n_bad_lines"], row.numbers["n_lost"]) == (12, 1, 0)
    assert row.numbers["bad_lines"] == [f"line {len(lines) + 1}: has 16 characters, expected at least 103"]
    assert row.reason.startswith("lines of MPCORB.DAT that are no orbits, left out: 1, the first is line ")
    seen = [sky.see(orbit, *sky.observer(CAMERA, MJD)) for orbit in made]
    around = alert_context.known_objects(candidates_at([one.ra for one in seen] + [44.0], [one.dec for one in seen] + [14.0]))
    assert not around.note
    names = [orbit["readable"].decode().strip("()") for orbit in made]
    assert list(around.columns["ssnamenr"]) == [*names, "null"]
    assert np.max(around.columns["ssdistnr"][:-1]) < 0.1
    np.testing.assert_allclose(around.columns["ssmagnr"][:-1], [one.v_mag for one in seen], atol=0.01)
    (root / paths.MPCORB).unlink()  # what is sealed stands, whatever becomes of the file
    process.PROVIDS.clear()
    assert known.complete()


def registry_root():
    from ztfluigi.tasks.settings import root

    (root() / paths.MPCORB).parent.mkdir(parents=True, exist_ok=True)
    return root()


def test_no_file_a_bad_file_and_a_switch_each_say_so(registry, monkeypatch):
    root, known = registry_root(), KnownOrbits.of_exposure(EXPOSURE)
    assert ask(known) and known.row().state == "nothing-to-do"
    seen = candidates_at(43.7, 11.8)
    assert alert_context.known_objects(seen) == alert_context.Around({}, SAID + "there is no ops/static/sso/MPCORB.DAT")
    (root / paths.MPCORB).write_text("<html>404</html>\n")
    process.PROVIDS.clear()
    assert not known.complete() and ask(known) and known.row().state == "unusable"
    assert alert_context.known_objects(seen).note.startswith(SAID + "MPCORB.DAT has no orbit in the Minor Planet Center's columns (line 1: ")
    monkeypatch.setitem(luigi.configuration.get_config()._sections, "known_orbits", {"use": "false"})
    alert_context.configuration.cache_clear()
    assert alert_context.known_objects(seen) == alert_context.Around({}, SAID + "[known_orbits] use is false")
    alert_context.configuration.cache_clear()


@pytest.mark.parametrize("mjd, ra, dec", [(58658.17362037037, 209.29817, -6.04964), (58658.208469907404, 209.29792, -6.04828)])
def test_a_real_asteroid_is_where_ztf_saw_it(mjd, ra, dec):
    """2363 Cebriones: state of JPL's Small-Body Database four days before, two I41 positions of the Minor Planet Center."""
    body = np.array([-3.9036176986866913, -3.2049993900695304, 0.42143932882404506])
    velocity = np.array([0.004588748528382595, -0.004749041377875873, 0.00405058842483648])
    real, elements = sky._elements(body, velocity, 2458654.5), np.zeros(1, ELEMENT)
    for name in ("mean_anomaly", "peri", "node", "inclination", "e", "a"):
        elements[name] = real[name]
    elements["epoch"], elements["h"], elements["slope"], elements["designation"] = 2458654.5, 9.1, 0.15, b"02363"
    seen, = solar_system.predict(carry(elements, "2019-06-24", CAMERA.longitude_deg), jd_utc=mjd + 2400000.5, site=CAMERA.site, ra=ra, dec=dec,
                                 radius_deg=1.0)
    assert separation_arcsec(seen["ra"], seen["dec"], ra, dec) < 0.06
    assert 15.0 < seen["v_mag"] < 17.0


def test_near_the_earth_the_integration_is_followed_through_the_night():
    """A body that passes 0.004 AU from the Earth: two-body motion from midnight is arcseconds off six hours later, the sealed track is not."""
    midnight, times = solar_system.night_times(2458424.5, CAMERA.longitude_deg)
    times = np.array([solar_system.dynamical_time(time) for time in times])
    earth = ephemeris.earth(times)
    state = np.zeros(1, STATE)
    here = solar_system.body_at(earth, solar_system.dynamical_time(midnight))
    state["jd"], state["h"], state["designation"] = solar_system.dynamical_time(midnight), 25.0, b"K18V00A"
    for n, (axis, shift) in enumerate((("x", 0.004), ("y", 0.0), ("z", 0.001))):
        state[axis], state["v" + axis] = here[n] + shift, here[3 + n] + (0.006 if axis == "y" else 0.0)
    assert solar_system.is_close(state, earth)[0]
    night = solar_system.NightStates(state[:0], ephemeris.trace(state, times), earth)
    options = {"jd_utc": midnight + 0.2567, "site": CAMERA.site, "ra": 0.0, "dec": 0.0, "radius_deg": 180.0}
    followed, = solar_system.predict(night, **options)
    exact = ephemeris.trace(state, [solar_system.dynamical_time(options["jd_utc"])])
    right, = solar_system.predict(solar_system.NightStates(exact, exact[:0], earth), **options)
    simple, = solar_system.predict(solar_system.NightStates(state, state[:0], earth), **options)
    assert separation_arcsec(followed["ra"], followed["dec"], right["ra"], right["dec"]) < 0.01
    assert separation_arcsec(simple["ra"], simple["dec"], right["ra"], right["dec"]) > 2.0
