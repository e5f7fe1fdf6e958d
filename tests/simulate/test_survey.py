"""A small survey on disk: files that ingest takes, faults that it refuses, truth that agrees."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace

import numpy as np
import pytest

from targets.codecs import catalog, raw
from targets.paths import MPCORB, RawName, gaia, ps1
from ztfluigi.cli import simulate
from ztfluigi.model.camera import load_camera
from ztfluigi.model.errors import BadInput
from ztfluigi.model.ids import night_of
from ztfluigi.simulate import faults, plan, rawfile, survey
from ztfluigi.simulate.truth import Truth

pytestmark = pytest.mark.xdist_group("survey")  # its fixture is made once

CAMERA = replace(load_camera("ztf-mini"), shape=(160, 150))
PLAN = plan.SurveyPlan(field=505, transients=4, known=2, unknown=1,
                       nights=(plan.Night("2018-10-16", 2, (("zr", 2),), (("zr", 1),)),
                               plan.Night("2018-11-02", 2, (("zg", 2),), (("zr", 2), ("zg", 1)), cloudy=1, trails=1, streaks=1)))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("survey")
    return root, survey.simulate_survey(root, CAMERA, PLAN, 3, spoiled=True)


@pytest.fixture(scope="module")
def truth(made):
    root, _ = made
    found = Truth(root)
    found.__dict__["simulated"] = survey.Survey(CAMERA, PLAN, 3, spoiled=True)  # the shrunken camera has no description file
    return found


def test_ingest_takes_every_whole_file_and_refuses_every_damaged_one(made, truth):
    root, summary = made
    words = {"truncated": "cut short", "checksum": "DATASUM", "keyword": faults.MISSING_KEYWORD, "shutter": "SHUTOPEN"}
    for record in truth.exposures:
        for filename in record["files"]:
            path = root / RawName.parse(filename).incoming
            if record["fault"]:
                with pytest.raises(BadInput, match=words[record["fault"]]):
                    raw.verify_raw(path, CAMERA)
            else:
                assert raw.verify_raw(path, CAMERA).obsjd == pytest.approx(record["obsjd"], abs=1e-7)
    assert sorted(r["fault"] for r in truth.exposures if r["fault"]) == sorted(plan.FAULTS)
    assert summary.raw_files == len(truth.exposures) == len(list((root / "incoming").glob("*/*")))


def test_names_follow_the_request_and_obsjd_the_second(truth):
    for record in truth.exposures:
        assert record["night"] == night_of(record["exposure"])
        seconds = (record["obsjd"] - 2457754.5) * 86400
        assert abs(seconds - round(seconds)) < 1e-3
        requested = int(record["exposure"][8:]) / 1e6
        assert 0.9 < ((record["obsjd"] - 0.5) % 1.0 - requested) * 86400 < 51.0
    assert len({r["exposure"] for r in truth.exposures}) == len(truth.exposures)


@pytest.mark.real
def test_the_header_has_every_card_of_the_camera(made, truth, shared_spec):
    root, _ = made
    real = [card[0] for card in json.loads((shared_spec / "data/sciimg_header_2017.json").read_text())["cards"]]
    wanted = real[real.index("ORIGIN"):real.index("CCD_ROT") + 1]
    record = next(r for r in truth.exposures if r["type"] == "o" and not r["fault"])
    header = raw.read_quadrant(root / RawName.parse(record["files"][0]).incoming, 3)[2]
    assert [card[0] for card in header.cards] == wanted


def test_truth_renders_what_was_written(made, truth):
    root, _ = made
    record = next(r for r in truth.exposures if r["type"] == "o" and not r["fault"] and r["night"] == "2018-11-02")
    pixels, overscan, header = raw.read_quadrant(root / RawName.parse(record["files"][0]).incoming, 2)
    again = truth.render(record["exposure"], 1, 2)
    np.testing.assert_array_equal(pixels, again.raw)
    np.testing.assert_array_equal(overscan, again.overscan)
    assert truth.quadrant(record["exposure"], 1, 2)["zero_point"] == again.throughput.zero_point
    x, y = truth.wcs(record["exposure"], 1, 2).pixel(again.objects["ra"], again.objects["dec"])
    np.testing.assert_allclose(x, again.objects["x"], atol=1e-6)
    np.testing.assert_allclose(y, again.objects["y"], atol=1e-6)
    assert header["GAIN"] == CAMERA.amplifier(1, 2).gain


def test_transients_are_absent_before_they_begin(truth):
    early, late = ([r for r in truth.exposures if r["type"] == "o" and r["night"] == night][0] for night in ("2018-10-16", "2018-11-02"))
    assert np.sum(truth.points(early["exposure"])["id"] >= 0) == 0
    points = truth.points(late["exposure"])
    assert np.sum(points["id"] >= 0) == PLAN.transients and np.sum(points["id"] < 0) == PLAN.known + PLAN.unknown
    low, high = PLAN.transient_mags
    assert np.all(np.abs(points["mag"][points["id"] >= 0] - 0.5 * (low + high)) < 0.5 * (high - low) + 0.8)


def test_tables_and_orbits_are_in_place(made, truth):
    root, _ = made
    for qid in (1, 2, 3, 4):
        stars, header = catalog.read_gaia(root / gaia(505, 1, qid))
        assert len(stars) > 10 and (header["FIELDID"], header["CCDID"], header["QID"], header["CATNAME"]) == (505, 1, qid, "Gaia")
        assert len(catalog.read_ps1(root / ps1(505, 1, qid))[0]) > 10
    assert len((root / MPCORB).read_text().splitlines()) == 6 + PLAN.known
    assert len(truth.table("movers")) == 3 * sum(r["type"] == "o" for r in truth.exposures)
    assert len(truth.table("streaks")) == 1 and len(truth.table("trails")) == 1 and len(truth.table("transients")) == 4


def test_the_clouded_exposure_shows_nothing(truth):
    record = next(r for r in truth.exposures if r["cloudy"])
    assert truth.quadrant(record["exposure"], 1, 1)["zero_point"] < 20.0


def test_bias_and_flat_headers(made, truth):
    root, _ = made
    bias, flat = (next(r for r in truth.exposures if r["type"] == letter) for letter in "bf")
    name = RawName.parse(bias["files"][0])
    assert (name.field, name.filter) == (0, "bi")
    assert raw.read_quadrant(root / name.incoming, 1)[2]["EXPTIME"] == 0.0
    header = raw.read_quadrant(root / RawName.parse(flat["files"][0]).incoming, 1)[2]
    assert header["ILUM_LED"] in CAMERA.filter("zr").leds and header["ILUMWAVE"] > 300 and header["ILUMPOWR"] > 0


@pytest.mark.parametrize("degrees, text", [(23.92567, "+01h35m42.16s"), (359.999999, "+00h00m00.00s")])
def test_sexagesimal(degrees, text):
    assert rawfile._hms(degrees, "h m s") == text
    assert rawfile._dms(-0.5, ":") == "-00:30:00.0"


@pytest.mark.parametrize("words, sentence", [(["--preset", "huge"], "presets are demo, tiny"), (["--nights", "9"], "outside 1 to 3")])
def test_the_command_refuses_what_it_does_not_know(words, sentence, tmp_path):
    parser = argparse.ArgumentParser()
    simulate.add_parser(parser.add_subparsers())
    with pytest.raises(BadInput, match=sentence):
        simulate.run(parser.parse_args(["simulate", "--root", str(tmp_path), *words]))


@pytest.mark.slow
def test_two_processes_write_the_same_bytes(tmp_path):
    short = replace(PLAN, nights=(plan.Night("2018-11-02", 1, (("zr", 1),), (("zr", 1),)),))
    for processes in (1, 2):
        survey.simulate_survey(tmp_path / str(processes), CAMERA, short, 3, processes=processes)
    first, second = ({p.relative_to(tmp_path / n): p.read_bytes() for p in (tmp_path / n).rglob("*") if p.is_file()} for n in "12")
    assert len(first) == 3 + 8 + 1 + 7 and first == second
