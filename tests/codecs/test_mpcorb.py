"""MPCORB.DAT: what the simulator writes comes back; lines that are no orbits are named and left out; packed designations."""

from __future__ import annotations

import numpy as np
import pytest

from targets.codecs.mpcorb import read_mpcorb
from ztfluigi.model.camera import load_camera
from ztfluigi.model.errors import BadInput
from ztfluigi.model.orbits import object_name
from ztfluigi.simulate import solar_system as sky

CERES = ("00001    3.34  0.15 K2555 188.70269   73.27343   80.25221   10.58780  0.0794013  0.21424651   2.7660512  0 E2024-V47  7330 125 "
         "1801-2024 0.80 M-v 3Ek MPCLINUX   4000      (1) Ceres              20241101")


@pytest.fixture
def simulated(tmp_path):
    """(orbits, path of their file)."""
    place, jd = sky.observer(load_camera("ztf"), 58424.3)
    orbits = np.concatenate([sky.make_orbit(n, 43.7, 11.8, 19.0, n % 2 == 0, place, jd, np.random.default_rng(n)) for n in range(40)])
    sky.write_mpcorb(tmp_path / "MPCORB.DAT", orbits)
    return orbits, tmp_path / "MPCORB.DAT"


def test_simulated_orbits_come_back(simulated):
    orbits, path = simulated
    read, bad = read_mpcorb(path)
    assert not bad and len(read) == len(orbits)
    np.testing.assert_array_equal(read["designation"], orbits["packed"])
    np.testing.assert_array_equal(read["epoch"], orbits["epoch_jd"])
    for name in ("h", "slope", "mean_anomaly", "peri", "node", "inclination", "e", "a"):
        np.testing.assert_allclose(read[name], orbits[name], rtol=1e-6 if name in ("h", "slope") else 1e-15, err_msg=name)


def test_bad_lines_are_named_and_left_out(simulated):
    orbits, path = simulated
    lines = path.read_text().splitlines()
    first = len(lines) - len(orbits)
    spoilt = {0: (lambda s: s[:60], "has 60 characters, expected at least 103"),
              1: (lambda s: s[:59] + "  1O.5871" + s[68:], "inclination '  1O.5871' in columns 60-68 is not a number"),
              2: (lambda s: s[:70] + "1.0794013" + s[79:], "eccentricity 1.0794 in columns 71-79 is outside 0..1"),
              3: (lambda s: s[:20] + "K18D6" + s[25:], "epoch 'K18D6' is not a packed date"),
              4: (lambda s: s[:20] + "K182U" + s[25:], "epoch 'K182U' is not a packed date"),
              5: (lambda s: " " * 7 + s[7:], "has no designation in columns 1-7"),
              6: (lambda s: s[:37] + " 1 2.3456" + s[46:], "argument of perihelion ' 1 2.3456' in columns 38-46 is not a number"),
              7: (lambda s: s[:92] + "  -2.766051" + s[103:], "semi-major axis -2.76605 in columns 93-103 is outside")}
    for n, (spoil, _) in spoilt.items():
        lines[first + n] = spoil(lines[first + n])
    lines[first + 9] = lines[first + 9][:8] + " " * 11 + lines[first + 9][19:]  # neither H nor G: allowed
    lines.insert(first + 20, "")
    path.write_bytes("\r\n".join(lines).encode())
    read, bad = read_mpcorb(path)
    assert [line.number for line in bad] == [first + n + 1 for n in spoilt]
    for line, (_, said) in zip(bad, spoilt.values(), strict=True):
        assert said in str(line), str(line)
    np.testing.assert_array_equal(read["designation"], orbits["packed"][len(spoilt):])
    assert np.isnan(read["h"][1]) and read["slope"][1] == np.float32(0.15) and np.isfinite(read["h"][2:]).all()


def test_a_line_of_the_minor_planet_center_without_header(tmp_path):
    path = tmp_path / "MPCORB.DAT"
    path.write_text(CERES)
    (ceres,), bad = read_mpcorb(path)
    assert not bad and ceres["designation"] == b"00001" and ceres["epoch"] == 2460800.5
    assert (ceres["mean_anomaly"], ceres["e"], ceres["a"]) == (188.70269, 0.0794013, 2.7660512)


@pytest.mark.parametrize("text, said", [("", "no line after the header"), ("-----\n", "no line after the header"),
                                        ("<html>gone</html>\n" * 3, "line 1: has 17 characters")])
def test_a_file_without_orbits_is_refused(tmp_path, text, said):
    path = tmp_path / "MPCORB.DAT"
    path.write_text(text)
    with pytest.raises(BadInput, match=f"MPCORB.DAT has no orbit.*{said}"):
        read_mpcorb(path)


@pytest.mark.parametrize("packed, name", [("00433", "433"), ("A0345", "100345"), ("~0000", "620000"), ("~AZaz", "3140113"),
                                          (b"K18V00A", "2018VA00"), ("J95X01L", "1995XL01"), ("K07Tf8A", "2007TA418"),
                                          ("_QC0aEM", "2026CZ6190"), ("PLS2040", "2040P-L"), ("T3S4101", "4101T-3"), ("odd", "odd")])
def test_designations_are_written_as_in_zwicky_packets(packed, name):
    """Examples of the Minor Planet Center's guide to packed designations."""
    assert object_name(packed) == name
