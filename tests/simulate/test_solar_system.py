"""Orbits, ephemerides and the orbit file."""

from __future__ import annotations

import numpy as np
import pytest

from ztfluigi.model.camera import load_camera
from ztfluigi.model.wcs import separation_arcsec
from ztfluigi.simulate import solar_system

CAMERA = load_camera("ztf")


@pytest.mark.parametrize("mjd, ra, dec", [(58658.17362037037, 209.29817, -6.04964), (58658.208469907404, 209.29792, -6.04828)])
def test_a_real_asteroid_is_where_ztf_saw_it(mjd, ra, dec):
    """2363 Cebriones: state of JPL's Small-Body Database at MJD 58654 (ecliptic, AU, AU/day); two I41 positions of the Minor Planet Center
    four days later, given to 0.036 arcsec."""
    body = np.array([-3.9036176986866913, -3.2049993900695304, 0.42143932882404506])
    velocity = np.array([0.004588748528382595, -0.004749041377875873, 0.00405058842483648])
    place, jd = solar_system.observer(CAMERA, mjd)
    seen = solar_system.see(solar_system._elements(body, velocity, 2458654.5), place, jd)
    assert separation_arcsec(seen.ra, seen.dec, ra, dec) < 0.06


def test_an_asteroid_is_made_where_it_was_asked_for():
    rng = np.random.default_rng(3)
    place, jd = solar_system.observer(CAMERA, 58424.3)
    for ra, dec in ((43.7, 11.8), (43.5, 12.0)):
        orbit = solar_system.make_orbit(1, ra, dec, 19.0, True, place, jd, rng)[0]
        seen = solar_system.see(orbit, place, jd)
        assert separation_arcsec(seen.ra, seen.dec, ra, dec) < 1.0  # the digits of the orbit file
        assert abs(seen.v_mag - 19.0) < 0.01 and 1.5 < orbit["a"] < 4.5 and orbit["e"] < 0.4
        later = solar_system.see(orbit, *solar_system.observer(CAMERA, 58424.3 + 1 / 24))
        assert 10.0 < separation_arcsec(seen.ra, seen.dec, later.ra, later.dec) < 60.0  # per hour


def test_the_orbit_file_says_the_orbit(tmp_path):
    """Columns as the Minor Planet Center documents them (one-based): epoch 21-25, M 27-35, ..., a 93-103, readable name 167-194."""
    place, jd = solar_system.observer(CAMERA, 58424.3)
    orbits = np.concatenate([solar_system.make_orbit(n, 43.7, 11.8, 19.0, True, place, jd, np.random.default_rng(n)) for n in range(3)])
    path = tmp_path / "MPCORB.DAT"
    solar_system.write_mpcorb(path, orbits)
    lines = path.read_text().splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith("-----")) + 1
    assert len(lines[start:]) == 3
    for line, orbit in zip(lines[start:], orbits, strict=True):
        assert len(line) == 202 and line[20:25] == solar_system.pack_epoch(orbit["epoch_jd"])
        for name, first, last in (("h", 9, 13), ("slope", 15, 19), ("mean_anomaly", 27, 35), ("peri", 38, 46), ("node", 49, 57),
                                  ("inclination", 60, 68), ("e", 71, 79), ("a", 93, 103)):
            assert float(line[first - 1:last]) == pytest.approx(float(orbit[name]), abs=1e-9)
        assert line[166:194].strip() == orbit["readable"].decode()
        assert float(line[80:91]) == pytest.approx(0.9856076686 / orbit["a"] ** 1.5, abs=2e-8)


def test_packed_dates():
    """Examples of the Minor Planet Center's guide to packed dates: 1996 Sept. 1 is J9611, 2001 Oct. 22 is K01AM."""
    assert solar_system.pack_epoch(2450327.5) == "J9691"
    assert solar_system.pack_epoch(2452204.5) == "K01AM"
