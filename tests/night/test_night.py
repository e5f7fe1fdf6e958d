"""The small night, end to end: every requirement a test of its own."""

from __future__ import annotations

import io
import json

import fastavro
import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from targets.codecs import alert
from ztfluigi.cli import report
from ztfluigi.model.wcs import separation_arcsec
from ztfluigi.services import classifiers, database

pytestmark = [pytest.mark.xdist_group("night"), pytest.mark.night, pytest.mark.db, pytest.mark.slow, pytest.mark.timeout(1500)]


def test_both_nights_end_in_success(survey):
    for night, run in survey.runs.items():
        assert run.returncode == 0, f"{night}: {run.stderr[-3000:]}"
        assert "Traceback" not in run.stderr
        assert "Warning" not in run.stderr


def test_everything_that_came_in_has_a_fate(survey):
    first, last = survey.nights
    for night in (first, last):
        counts = survey.registry().counts(night)
        records = [r for r in survey.truth.exposures if r["night"] == night]
        assert sum(counts["raw files"].values()) == sum(len(r["files"]) for r in records)
        assert sum(counts["quadrants"].values()) == 4 * counts["raw files"]["sealed"]
        assert [row.exposure for row in survey.registry().exposures(night)] == sorted(r["exposure"] for r in records if not r["fault"])
        assert not {"waiting", "failed"} & (set(counts["quadrants"]) | set(counts["events"]) | set(counts["packets"]))
    assert survey.registry().counts(first)["quadrants"]["nothing-to-do"] == 4 * len(survey.sky(first))
    half = survey.root / "incoming" / last.replace("-", "") / "ztf_20181102191419_000505_zr_c01_o.fits.fz.part"
    half.write_bytes(b"half")
    shown = survey.command("ztf", "status", "--night", last)
    half.unlink()
    assert shown.returncode == 0 and "packets" in shown.stdout and "quarantined" in shown.stdout
    assert "left alone       1  in incoming, not named" in shown.stdout and half.name in shown.stdout


def test_damaged_files_are_quarantined_with_a_reason_a_person_understands(survey):
    last = survey.nights[-1]
    damaged = [r for r in survey.truth.exposures if r["fault"]]
    assert len(damaged) == 4
    for record in damaged:
        path = survey.root / "quarantine" / last.replace("-", "") / record["files"][0]
        assert path.exists()
        reason = json.loads(path.with_name(path.name + ".reason.json").read_text())["reason"]
        assert record["files"][0].removesuffix(".fz") in reason or record["files"][0] in reason
        row = survey.registry().current("IngestCcd", f"{record['exposure']}/1")
        assert (row.state, row.reason) == ("quarantined", reason)
        assert survey.registry().current("Quadrant", f"{record['exposure']}/1/1").state == "quarantined"


def test_a_clouded_exposure_is_unusable_with_bits_and_numbers_and_the_night_goes_on(survey):
    record = next(r for r in survey.truth.exposures if r["cloudy"])
    for qid in (1, 2, 3, 4):
        key = f"{record['exposure']}/1/{qid}"
        rows = [survey.registry().current(kind, key) for kind in ("CalibratedImage", "SourceCatalog", "ScienceImage", "Quadrant")]
        assert {row.state for row in rows} == {"unusable"} and {row.infobits for row in rows} == {rows[0].infobits}
        assert rows[0].infobits >> 12 & 1 and rows[0].numbers["noise_dn"] > 0 and rows[0].reason == rows[-1].reason
    seen = database.query("select metric, value from qa_metrics where kind = 'CalibratedImage' and exposure = %s", (record["exposure"],))
    assert {"background_dn", "noise_dn", "n_detections", "cpu_s"} <= {row["metric"] for row in seen}
    assert all(survey.registry().current("Quadrant", f"{clear['exposure']}/1/1").state == "sealed" for clear in survey.sky(survey.nights[-1]))


def test_the_same_night_again_runs_nothing(survey):
    again = survey.luigi("Night", "--night", survey.nights[-1])
    assert again.returncode == 0
    assert "0 tasks run, 0 failed attempts" in again.stderr


def test_a_deleted_science_image_is_rebuilt_alone(survey):
    night = survey.nights[-1]
    row = survey.registry().select("ScienceImage", night=night)[0]
    path = survey.root / next(entry["path"] for entry in row.files if entry["role"] == "image")
    pixels = fits.getdata(path)
    newest = "select max(id) as id from products"
    before = database.query(newest)[0]["id"]
    path.unlink()
    assert survey.luigi("Night", "--night", night).returncode == 0
    made = database.query("select kind, key, provid from products where id > %s", (before,))
    assert [(one["kind"], one["key"], one["provid"]) for one in made] == [("ScienceImage", row.key, row.provid)]
    np.testing.assert_array_equal(fits.getdata(path), pixels)


def test_a_setting_of_the_difference_makes_it_and_its_alerts_stale_and_nothing_before(survey, tmp_path):
    key = survey.registry().select("DifferenceImage", night=survey.nights[-1])[0].key
    (tmp_path / "luigi.cfg").write_text("[difference]\nmatch_snr = 25\n")
    told = {kind: survey.command("ztf", "why", kind, key, "--depth", "1", folder=tmp_path).stdout.splitlines()[0]
            for kind in ("SourceCatalog", "ScienceImage", "DifferenceImage", "AlertPackets")}
    assert "difference.match_snr was 20.0, is 25.0" in told["DifferenceImage"]
    assert "stale: its inputs changed: DifferenceImage" in told["AlertPackets"]
    assert " sealed" in told["SourceCatalog"] and " sealed" in told["ScienceImage"]


def test_why_tells_what_was_never_built_and_what_was_refused(survey):
    refused = next(r for r in survey.truth.exposures if r["fault"])["exposure"]
    told = survey.command("ztf", "why", "ScienceImage", f"{refused}/1/1").stdout
    assert "quarantined" in told
    unknown = survey.command("ztf", "why", "Nonsense", "1/2/3")
    assert unknown.returncode == 1 and "there is no product 'Nonsense'" in unknown.stderr


def test_astrometry_and_photometry_agree_with_truth(survey):
    rows = survey.registry().select("SourceCatalog", night=survey.nights[-1])
    figures = [report.science_figures(survey.root, survey.truth, row) for row in rows]
    assert len(figures) >= 10
    assert report.rms(np.concatenate([one["offsets"] for one in figures])) < 85
    assert abs(np.median([one["zero_point"] for one in figures])) < 0.02
    assert abs(np.median([one["colour"] for one in figures])) < 0.01
    assert report.rms(np.concatenate([one["bright"] for one in figures])) < 0.025


def test_transients_and_asteroids_are_found(survey):
    night = survey.nights[-1]
    wanted = [one for one in report.expected_sources(survey.truth, night) if one["snr"] >= 8]
    candidates = [c for c in report.night_candidates(night) if c["fate"] == "packet"]
    found = [one for one in wanted if any(c["pid"] == one["row"].pid and report.is_at(c, one) for c in candidates)]
    assert len(wanted) >= 20
    assert len(found) >= 0.95 * len(wanted)
    false = sum(kind == "false" for _, kind in report.classified(survey.truth, candidates))
    assert false <= 5 * len(survey.registry().select("DifferenceImage", night=night))


def test_products_open_in_the_field_s_tools(survey):
    row = survey.registry().select("ScienceImage", night=survey.nights[-1])[0]
    with fits.open(survey.root / row.files[0]["path"], checksum=True) as hdus:
        header = hdus[0].header
        assert hdus[0].data.shape == (770, 768) and header["BITPIX"] == -32 and len(hdus) == 1
        assert header["PROVID"] == row.provid and header["STATUS"] == 1 and header["CTYPE1"] == "RA---TPV"
        sky = WCS(header).pixel_to_world(383.5, 384.5)
    truth = survey.truth.wcs(row.exposure, row.ccdid, row.qid).sky(383.5, 384.5)
    assert abs(sky.ra.deg - truth[0]) < 1e-4 and abs(sky.dec.deg - truth[1]) < 1e-4
    difference = survey.registry().select("DifferenceImage", night=survey.nights[-1])[0]
    files = {entry["role"]: survey.root / entry["path"] for entry in difference.files}
    with fits.open(files["image"]) as hdus:
        assert hdus[1].data.shape == (770, 768) and hdus[1].header["MAGZP"] > 20
    stamp = fits.getdata(files["psf"])
    assert stamp.shape == (25, 25) and stamp.sum() == pytest.approx(1.0, abs=1e-4)


def test_packets_are_valid_and_carry_their_history(survey):
    rows = survey.registry().select("AlertPackets", night=survey.nights[-1])
    packets = [packet for row in rows for packet in alert.unpack_alerts(survey.root / row.files[0]["path"])]
    records = []
    for candid, data in packets:
        reader = fastavro.reader(io.BytesIO(data))
        record = next(reader)
        assert fastavro.validate(record, reader.writer_schema)
        assert record["candid"] == candid and record["schemavsn"] == "4.02"
        assert alert.decode_cutout(record["cutoutDifference"]["stampData"]).shape[0] <= 63
        records.append(record)
    ledger = database.query("select candid from alerts")
    assert sorted(one["candid"] for one in ledger) == sorted(record["candid"] for record in records)
    histories = [len(record["prv_candidates"] or ()) for record in records]
    assert max(histories) >= 2  # the third exposure of the night has seen the first two
    code = survey.nights[-1].replace("-", "")
    handed_out = alert.unpack_alerts(survey.root / f"depot/{code}/ztf_public_{code}.tar.gz")
    assert sorted(candid for candid, _ in handed_out) == sorted(one["candid"] for one in ledger)
    assert np.median(forced_over_fitted(records)) == pytest.approx(1.0, abs=0.03)
    names = {}
    for record in records:
        names.setdefault(record["objectId"], []).append((record["candidate"]["ra"], record["candidate"]["dec"]))
    for places in names.values():
        assert max(np.ptp(np.array(places), axis=0)) * 3600 < 3.5


def forced_over_fitted(records: list[dict]) -> list[float]:
    """Flux of forced photometry at a candidate's place over that of the detection which the same image gave there."""
    ratios = []
    for record in records:
        forced = {entry["pid"]: entry for entry in record["fp_hists"] or ()}
        for one in record["prv_candidates"] or ():
            if one["candid"] is None:
                assert one["pid"] in forced and one["magpsf"] is None
            else:
                flux = 10 ** (0.4 * (forced[one["pid"]]["magzpsci"] - one["magpsf"])) * (1 if one["isdiffpos"] == "t" else -1)
                ratios.append(forced[one["pid"]]["forcediffimflux"] / flux)
    return ratios


def test_known_asteroids_are_named_in_their_candidates_and_nothing_else_is(survey):
    night, orbits = survey.nights[-1], survey.truth.table("orbits")
    names = {int(row["id"]): row["readable"].strip(" ()") for row in orbits if row["known"]}
    found = [c for c in report.night_candidates(night) if c["fate"] == "packet"]
    right = {"named": 0, "nameless": 0}
    for one in found:
        points = survey.truth.points(one["exposure"])
        movers = points[np.isin(points["id"], list(names))]
        away = separation_arcsec(movers["ra"], movers["dec"], one["ra"], one["dec"])
        if away.min() < 1.5:
            assert one["ssnamenr"] == names[int(movers["id"][away.argmin()])] and one["ssdistnr"] < 1.5
            assert abs(one["ssmagnr"] - 0.2 - movers["mag"][away.argmin()]) < 0.02  # V - r = 0.2 in the simulated sky
            right["named"] += 1
        elif away.min() > 31.0:
            assert (one["ssnamenr"], one["ssdistnr"], one["ssmagnr"]) == ("null", -999.0, -999.0)
            right["nameless"] += 1
    assert min(right.values()) >= 4
    known = survey.registry().current("KnownOrbits", night)
    assert (known.state, known.numbers["n_orbits"], known.numbers["n_bad_lines"]) == ("sealed", len(names), 0)


def test_nothing_is_left_half_written(survey):
    assert not list(survey.root.glob("**/.tmp-*"))


def test_a_difference_of_an_old_epoch_can_be_asked_for_by_hand(survey):
    exposure = survey.sky(survey.nights[0])[0]["exposure"]
    assert survey.registry().current("DifferenceImage", f"{exposure}/1/1") is None
    asked = survey.luigi("DifferenceImage", "--exposure", exposure, "--ccdid", "1", "--qid", "1")
    assert asked.returncode == 0
    assert survey.registry().current("DifferenceImage", f"{exposure}/1/1").state == "sealed"


def test_a_difference_against_a_reference_of_ones_own_stands_apart(survey):
    row = survey.registry().select("DifferenceImage", night=survey.nights[-1])[0]
    place, before = ("--exposure", row.exposure, "--ccdid", str(row.ccdid), "--qid", str(row.qid)), survey.nights[-1]
    tables = "select (select count(*) from candidates) as events, (select count(*) from alerts) as alerts, " \
             "(select count(*) from difference_limits) as limits"
    counts = database.query(tables)
    assert survey.luigi("DifferenceImage", *place, "--before", before).returncode == 0
    own = survey.registry().current("DifferenceImage", f"{row.key}/before={before}")
    assert own.state == "sealed" and own.night is None and own.provid != row.provid
    assert database.query(tables) == counts and survey.registry().current("DifferenceImage", row.key).provid == row.provid
    files = {entry["role"]: survey.root / entry["path"] for entry in own.files}
    theirs = next(entry["path"] for entry in row.files if entry["role"] == "image")
    assert files["image"].parent.name == "before20181102" and files["image"].name == theirs.rsplit("/", 1)[1]
    # the survey's reference is of the same epochs, so that the events are too
    table, kept = fits.getdata(files["events"]), database.query("select candid, xpos, fate from candidates where pid = %s", (row.pid,))
    np.testing.assert_allclose(np.sort(table["xpos"]), np.sort([one["xpos"] for one in kept]), rtol=1e-6)
    assert sorted(table["fate"]) == sorted(one["fate"] for one in kept) and np.isfinite(table["drb"][table["fate"] == "packet"]).all()
    assert f"before={before}  sealed" in survey.command("ztf", "why", "DifferenceImage", own.key, "--depth", "1").stdout
    shown = survey.command("ztf", "reference", "list").stdout
    assert f"/before={before} " in shown and "unlocked" not in shown


def test_doctor_finds_nothing_wrong(survey):
    healthy = survey.command("ztf", "doctor", "--content")
    assert healthy.returncode == 0, healthy.stdout


def test_events_are_scored_by_the_classifiers_that_ship(survey):
    rows = survey.registry().select("AlertPackets", night=survey.nights[-1])
    packets = [data for row in rows for _, data in alert.unpack_alerts(survey.root / row.files[0]["path"])]
    shown = [next(fastavro.reader(io.BytesIO(data)))["candidate"] for data in packets]
    assert all(0 <= one["rb"] <= 1 and 0 <= one["drb"] <= 1 for one in shown)
    assert {(one["rbversion"], one["drbversion"]) for one in shown} == {tuple(classifiers.versions().values())}
    night = survey.nights[-1]
    kinds = report.classified(survey.truth, [c for c in report.night_candidates(night) if c["fate"] == "packet"])
    real = np.array([c["drb"] for c, kind in kinds if kind != "false"])
    assert np.mean(real > 0.5) > 0.9


def test_synthetic_sources_are_given_back_and_reach_no_one_else(survey):
    row = survey.registry().select("DifferenceImage", night=survey.nights[-1])[0]
    place = ("--exposure", row.exposure, "--ccdid", str(row.ccdid), "--qid", str(row.qid))
    before = database.query("select count(*) as n from candidates")[0]["n"], database.query("select count(*) as n from alerts")[0]["n"]
    assert survey.luigi("Injection", *place).returncode == 0
    made = survey.registry().current("Injection", row.key)
    assert made.state == "sealed" and made.numbers["n_injected"] >= 20
    counts = np.array(made.numbers["blank_in_bin"][4:])
    complete = np.array([0.0 if share is None else share for share in made.numbers["blank_complete"][4:]])
    assert counts.sum() >= 5 and np.sum(counts * complete) >= 0.9 * counts.sum()
    after = database.query("select count(*) as n from candidates")[0]["n"], database.query("select count(*) as n from alerts")[0]["n"]
    assert after == before
    told = survey.command("ztf", "inject", *place, "--json")
    assert told.returncode == 0 and json.loads(told.stdout) == made.numbers
    refused = survey.command("ztf", "inject", "--exposure", row.exposure, "--ccdid", "9", "--qid", "1")
    assert refused.returncode == 1 and "not built" in refused.stderr
