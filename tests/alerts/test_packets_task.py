"""The packets of one small quadrant, from files and the real database: every field, the past at the place, and what may go wrong."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from targets import paths
from targets.codecs import alert, catalog
from targets.codecs import image as image_codec
from targets.current import registry
from targets.registry import ProductRow
from targets.sealed import Stage
from tests.support import database, survey_root  # noqa: F401
from ztfluigi.model import alert_schema
from ztfluigi.model.columns import GAIA, PS1, dtype_of
from ztfluigi.model.event_columns import EVENT
from ztfluigi.model.ids import processing_id
from ztfluigi.model.wcs import TpvWcs
from ztfluigi.services import candidates, coverage
from ztfluigi.tasks import headers
from ztfluigi.tasks.alert_context import Candidates
from ztfluigi.tasks.alerts import AlertPackets

pytestmark = pytest.mark.db
SIZE, NOISE, JD = 200, 10.0, 2458424.69
PLACES = np.array([[60.0, 60.0], [140.0, 60.0], [60.0, 140.0]])
PAGE = (Path(__file__).parents[2] / "docs" / "alert_packets.md").read_text()
HEADER = {"MAGZP": 26.2, "MAGZPUNC": 1e-4, "MAGZPRMS": 0.03, "CLRCOEFF": 0.08, "CLRCOUNC": 1e-4, "PROGRMID": 1, "PROGRMPI": "Kulkarni",
          "EXPTIME": 30.0, "NMATCHES": 900, "ZPCLRCOV": 1e-5, "ZPMED": 26.2, "CLRMED": 0.6, "CLRRMS": 0.2, "SEEING": 2.0,
          "ASTRRMS1": 1e-5, "ASTRRMS2": 1e-5}
REFERENCE = {"DBRFID": 505120200, "JDSTART": JD - 200, "JDEND": JD - 100, "NFRAMES": 20}


def table(section: str) -> list[tuple[str, str]]:
    """(field, what its null or sentinel means) from a section of docs/alert_packets.md."""
    rows = [row.strip("|").split("|") for row in PAGE.split(f"## {section}\n")[1].split("\n## ")[0].splitlines() if row.startswith("| `")]
    return [(name, meaning.strip()) for fields, _, meaning in rows for name in re.findall("`([^`]+)`", fields)]


@pytest.mark.parametrize("section, fields", [("candidate", alert_schema.CANDIDATE), ("prv_candidates", alert_schema.PRV_CANDIDATE),
                                             ("fp_hists", alert_schema.FP_HIST)])
def test_the_page_explains_every_field_once(section, fields):
    assert sorted(name for name, _ in table(section)) == sorted(field.name for field in fields)


class Sky:
    """A field with one past and one present image of quadrant 1; every test has its own part of the sky."""

    count = 0

    def __init__(self, root: Path):
        Sky.count += 1
        self.root, self.exposure = root, "20181102191419"
        self.wcs = TpvWcs((100.5, 100.5), (20.0 * Sky.count, 10.0), ((-2.8e-4, 0.0), (0.0, 2.8e-4)))
        self.field = 600 + Sky.count
        self.name = paths.RawName(self.exposure, self.field, "zr", 1, "o")
        self.ra, self.dec = self.wcs.sky(*PLACES.T)
        (root / self.name.incoming).parent.mkdir(parents=True, exist_ok=True)
        for other in (root / self.name.incoming).parent.iterdir():
            other.unlink()
        (root / self.name.incoming).touch()
        for path, columns, names in ((paths.ps1(self.field, 1, 1), PS1, ("raMean", "decMean")), (paths.gaia(self.field, 1, 1), GAIA, ("ra", "dec"))):
            rows = np.zeros(1, dtype_of(columns))
            rows[names[0]], rows[names[1]] = self.ra[0], self.dec[0] + 2 / 3600
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            catalog.write_table(root / path, rows)

    def events(self, jd: float, rows, **changes) -> list[dict]:
        """Events of an image at some of the places."""
        found = np.zeros(len(rows), dtype_of(EVENT))
        for column in EVENT:
            if column.dtype[0] == "f":
                found[column.name] = 19.0
        found["tblid"], found["isdiffpos"] = np.arange(len(rows)), "t"
        found["xpos"], found["ypos"] = PLACES[rows].T + 1
        found["ra"], found["dec"] = self.ra[rows], self.dec[rows]
        task = SimpleNamespace(name=self.name, files=lambda: {"image": paths.science(self.name, 1, "scimrefdiffimg.fits.fz")})
        made = headers.candidate_rows(task, {"jd": jd, "pid": processing_id(jd, 1, 1)}, found, np.full(len(rows), "packet"), HEADER, REFERENCE,
                                      {"rb": np.full(len(rows), 0.9), "drb": np.full(len(rows), 0.9)})
        for row in made:
            row |= changes
        return made

    def image(self, database, jd: float, exposure: str, flux, events: list[dict]) -> None:  # noqa: F811
        """A past difference image with sources of `flux` at the places (NaN: masked), its events and its registry row."""
        rng, pid = np.random.default_rng(3), processing_id(jd, 1, 1)
        y, x = np.mgrid[0:SIZE, 0:SIZE]
        pixels = rng.normal(0, NOISE, (SIZE, SIZE))
        stamp = np.exp(-np.hypot(*np.mgrid[-12:13, -12:13]) ** 2 / 2.0)
        for (px, py), light in zip(PLACES, flux, strict=True):
            near = np.hypot(x - px, y - py)
            pixels = np.where(near < 6, np.nan, pixels) if np.isnan(light) else pixels + light * np.exp(-near**2 / 2) / stamp.sum()
        name, cards = paths.RawName(exposure, self.field, "zr", 1, "o"), {**self.wcs.cards(), "GAIN": 6.2}
        path = {role: paths.science(name, 1, suffix) for role, suffix in (("image", "scimrefdiffimg.fits.fz"), ("psf", "diffimgpsf.fits"))}
        (self.root / path["image"]).parent.mkdir(parents=True, exist_ok=True)
        image_codec.write_difference(self.root / path["image"], pixels, cards, noise=NOISE)
        image_codec.write_difference_psf(self.root / path["psf"], stamp, np.tile(stamp, (2, 3, 1, 1)))
        image_codec.write_science(self.root / paths.science(name, 1, "sciimg.fits"), (pixels + 200).astype(np.float32), cards)
        catalogue = SimpleNamespace(numbers={"background_dn": 200.0, "noise_dn": 9.0})
        numbers = {**headers.image_numbers(HEADER), **headers.forced_numbers(HEADER, catalogue), "diffmaglim": 20.5}

        def rows(cursor) -> None:
            candidates.replace_events(cursor, pid, "p", pid // 10**9, 0, events)
            coverage.replace_limits(cursor, pid, np.full((3, 3), 20.4))

        registry().seal(ProductRow(
            "DifferenceImage", f"{exposure}/1/1", f"p{pid}", pid=pid, jd=jd, fid=2, filter="zr", field=self.field, rcid=0, nid=pid // 10**9,
            exposure=exposure, ccdid=1, qid=1, numbers=numbers, files=[{"role": role, "path": str(one), "size": 1} for role, one in path.items()],
            **headers.footprint(self.wcs, (SIZE, SIZE))), also=rows)

    def pack(self, database, changes: dict = {}, schema: str = "4.02"):  # noqa: F811
        """Packets of the present image's three candidates, and the ledger's rows."""
        rows = self.events(JD, [0, 1, 2])
        rows[1] |= changes
        pid = processing_id(JD, 1, 1)
        with database.transaction() as cursor:
            candidates.replace_events(cursor, pid, "p", pid // 10**9, 0, rows)
        image_codec.write_image(self.root / "cutouts.fits", np.random.default_rng(1).normal(200, 9, (3, 3, 63, 63)).astype(np.float32))
        task = AlertPackets(self.exposure, 1, 1)
        task.difference = lambda: SimpleNamespace(path=lambda role: self.root / "cutouts.fits")
        stage, rows = Stage(self.root, task.files()), candidates.events(pid)
        made = task.pack(stage, rows, Candidates(self.exposure, task.cell, pid, JD, 30.0, *(np.array([row[name] for row in rows])
                                                                                            for name in ("candid", "ra", "dec"))))
        return [alert.read_packets(packet)[0] for _, packet in alert.unpack_alerts(stage["packets"])], made.ledger


@pytest.fixture
def sky(database, survey_root, monkeypatch):  # noqa: F811
    monkeypatch.setenv("ZTF_CAMERA", "ztf-mini")
    registry().record(ProductRow("KnownOrbits", "2018-11-02", "none", state="nothing-to-do", reason="there is no MPCORB.DAT"))
    return Sky(survey_root)


def test_every_field_and_the_past_at_the_place(database, sky):  # noqa: F811
    jd, flux = JD - 5.0, [3000.0, 0.0, np.nan]
    sky.image(database, jd, "20181028191419", flux, sky.events(jd, [0], isdiffpos="t"))
    (seen, unseen, masked), ledger = sky.pack(database)
    assert [row["state"] for row in ledger] == ["sealed"] * 3 and len({row["objectid"] for row in ledger}) == 3
    for section, record in (("candidate", seen["candidate"]), ("prv_candidates", seen["prv_candidates"][0]), ("fp_hists", seen["fp_hists"][0])):
        meaning = dict(table(section))
        assert {name for name, value in record.items() if value is None and meaning[name].startswith("never")} == set()
        assert {name for name in meaning if record[name] is None} <= {"ssdistnr", "ssmagnr", "ssnamenr"}, section
    assert "solar-system" in ledger[0]["reason"] and seen["candidate"]["distpsnr1"] == pytest.approx(2.0, abs=0.01)
    assert seen["candidate"]["neargaiabright"] == pytest.approx(2.0, abs=0.01) and seen["candidate"]["sgscore2"] == -999.0
    assert (seen["candidate"]["ndethist"], unseen["candidate"]["ndethist"], seen["candidate"]["ncovhist"]) == (2, 1, 1)
    before, = seen["prv_candidates"]
    assert before["candid"] and before["isdiffpos"] == "t" and before["pdiffimfilename"].startswith("/ztf/archive/sci/2018/")
    forced = [packet["fp_hists"][0] for packet in (seen, unseen, masked)]
    assert [one["procstatus"] for one in forced] == ["0", "0", "55"]
    for one, light in zip(forced[:2], flux):
        assert abs(one["forcediffimflux"] - light) < 4 * one["forcediffimfluxunc"]
    assert forced[0]["distnr"] == -99999.0 and forced[2]["forcediffimflux"] == -99999.0
    (limit,), (nothing,) = unseen["prv_candidates"], masked["prv_candidates"]
    assert limit["candid"] is limit["magpsf"] is nothing["candid"] is nothing["diffmaglim"] is None
    assert limit["diffmaglim"] == pytest.approx(26.2 - 2.5 * np.log10(5 * forced[1]["forcediffimfluxunc"]), abs=1e-4)


def test_other_programmes_are_not_shown_and_files_that_are_gone_are_said(database, sky):  # noqa: F811
    for days, exposure, changes in ((5.0, "20181028191419", {}), (4.0, "20181029191419", {"PROGRMID": 3})):
        HEADER.update({"PROGRMID": 1} | changes)
        try:
            sky.image(database, JD - days, exposure, [900.0, 0.0, 0.0], sky.events(JD - days, [0]))
        finally:
            HEADER.update({"PROGRMID": 1})
    gone = sky.root / paths.science(paths.RawName("20181028191419", sky.field, "zr", 1, "o"), 1, "sciimg.fits")
    gone.unlink()
    packets, _ = sky.pack(database)
    for packet in packets:
        assert {row["programid"] for row in packet["prv_candidates"] + packet["fp_hists"]} == {1}
        assert [one["procstatus"] for one in packet["fp_hists"]] == ["255"]
    assert packets[1]["prv_candidates"][0]["diffmaglim"] == pytest.approx(20.4)  # of the cell about the place


def test_a_missing_catalogue_and_a_record_that_fits_no_schema(database, sky):  # noqa: F811
    (sky.root / paths.ps1(sky.field, 1, 1)).unlink()
    packets, ledger = sky.pack(database, {"magpsf": None})
    assert [packet["candid"] for packet in packets] == [ledger[0]["candid"], ledger[2]["candid"]]
    assert [row["state"] for row in ledger] == ["sealed", "failed", "sealed"]
    assert "magpsf" in ledger[1]["reason"] and "file" not in ledger[1]
    assert f"ps1_{sky.field:06d}_c01_q1.fits is missing" in ledger[0]["reason"]
    shown = packets[0]["candidate"]
    assert shown["sgmag1"] is shown["objectidps1"] is None and shown["nmtchps"] == -999 and shown["neargaia"] > 0
    assert packets[0]["prv_candidates"] is packets[0]["fp_hists"] is None


def test_an_image_made_again_without_events_leaves_no_packet_in_the_ledger(database, sky):  # noqa: F811
    _, ledger = sky.pack(database)
    pid, task = processing_id(JD, 1, 1), AlertPackets(sky.exposure, 1, 1)
    with database.transaction() as cursor:
        candidates.replace_alerts(cursor, pid, "p", "2018-11-02", ledger)
        candidates.replace_events(cursor, pid, "p2", pid // 10**9, 0, [])
    task.difference = lambda: SimpleNamespace(row=lambda: SimpleNamespace(pid=pid, jd=JD))
    built = task.build(Stage(sky.root, task.files()))
    assert built.state == "nothing-to-do" and "no event" in built.reason
    task.provid = lambda: "p2"
    with database.transaction() as cursor:
        built.also(cursor)
    assert database.query("select count(*) as n from alerts where pid = %s and state = 'sealed'", (pid,)) == [{"n": 0}]
