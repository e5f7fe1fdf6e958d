import json
import os
import subprocess
import sys

import numpy as np
import pytest

from targets.registry import PostgresRegistry, ProductRow
from ztfluigi.model import ids
from ztfluigi.services import candidates, coverage, healpix, ledger

pytestmark = pytest.mark.db

ARCSEC = 1 / 3600


def pid_of(nid: int, channel: int, fraction: int = 30000) -> int:
    return ((nid * 100000 + fraction) * 100 + channel) * 100 + 15


def jd_of(pid: int) -> float:
    return 2457754.5 + pid // 10000 / 100000


def event(pid: int, tblid: int, ra: float, dec: float, **values) -> dict:
    return {"candid": ids.candidate_id(pid, tblid, True), "jd": jd_of(pid), "fid": 2, "field": 633, "ra": ra, "dec": dec, "isdiffpos": "t",
            "tblid": tblid, "programid": 1, "magpsf": 18.5, "sigmapsf": 0.05} | values


def store(database, pid: int, rows, provid: str = "p") -> int:
    with database.transaction() as cursor:
        return candidates.replace_events(cursor, pid, provid, *candidates.night_and_channel(pid), rows)


def assign(database, rows) -> dict:
    with database.transaction() as cursor:
        return candidates.assign_object_ids(cursor, rows)


def test_night_and_channel_are_those_of_the_ids():
    jd = 2458270.62345
    pid = ids.processing_id(jd, 7, 3)
    assert candidates.night_and_channel(pid) == (ids.night_id(jd), ids.rcid(7, 3))


def test_columns_are_the_alert_schema(database, shared_spec):
    def names(record):
        return [field["name"] for field in json.loads((shared_spec / f"data/avro_v4.02/{record}.avsc").read_text())["fields"]]

    assert list(candidates.columns()) == ["run", "provid", *names("candidate"), "hpx", "objectid", "fate"]
    assert list(candidates.HISTORY) == names("prv_candidate")


def test_events_come_back_and_are_replaced_whole(database):
    pid, other = pid_of(516, 3), pid_of(516, 3, 40000)
    array = np.zeros(2, [("candid", "i8"), ("jd", "f8"), ("fid", "i4"), ("field", "i4"), ("ra", "f8"), ("dec", "f8"), ("magpsf", "f4"),
                         ("distnr", "f4"), ("isdiffpos", "U1"), ("ssnamenr", "S8"), ("fate", "U20")])
    array["candid"] = [ids.candidate_id(pid, i, True) for i in (0, 1)]
    array["jd"], array["fid"], array["field"], array["ra"], array["dec"] = jd_of(pid), 2, 633, [0.1, 359.9], [-1.5, 2.5]
    array["magpsf"], array["distnr"] = [18.25, np.inf], [np.nan, 2.5]
    array["isdiffpos"], array["ssnamenr"], array["fate"] = "f", b"null", "a\tb\\c\nd"
    assert store(database, pid, array) == 2 and store(database, other, [event(other, 0, 5.0, 5.0)]) == 1
    rows = candidates.events(pid)
    assert [r["candid"] for r in rows] == array["candid"].tolist()
    assert (rows[0]["magpsf"], rows[1]["magpsf"], rows[0]["distnr"], rows[1]["distnr"]) == (18.25, None, None, 2.5)
    assert rows[0]["isdiffpos"] == "f" and rows[0]["ssnamenr"] == "null" and rows[0]["fate"] == "a\tb\\c\nd" and rows[0]["drb"] is None
    assert [r["hpx"] for r in rows] == healpix.index(array["ra"], array["dec"]).tolist() and rows[0]["jd"] == jd_of(pid)
    assert (rows[0]["pid"], rows[0]["nid"], rows[0]["rcid"], rows[0]["provid"], rows[0]["objectid"]) == (pid, 516, 3, "p", None)
    store(database, pid, [event(pid, 7, 1.0, 1.0)], "p2")
    assert [(r["tblid"], r["provid"]) for r in candidates.events(pid)] == [(7, "p2")] and len(candidates.events(other)) == 1
    assert store(database, pid, []) == 0 and candidates.events(pid) == [] and len(candidates.events(other)) == 1


def test_nights_to_come_are_prepared(database):
    assert candidates.prepare(range(800, 802), (3, 1)) == 4 and candidates.prepare(range(801, 803), (1, 3)) == 2
    for view in ("candidates_20190312", "candidates_20190314"):
        assert database.query(f"select count(*) as n from {view}") == [{"n": 0}]


def test_wrong_rows_are_refused_and_nothing_changes(database):
    pid = pid_of(516, 4)
    store(database, pid, [event(pid, 0, 1.0, 1.0)])
    with pytest.raises(ValueError, match="no column magpfs"):
        store(database, pid, [event(pid, 0, 1.0, 1.0, magpfs=3)])
    with pytest.raises(ValueError, match="not every candid is of pid"):
        store(database, pid, [event(pid_of(517, 4), 0, 1.0, 1.0)])
    assert len(candidates.events(pid)) == 1


def test_update_of_some_columns(database):
    pid = pid_of(516, 5)
    store(database, pid, [event(pid, i, 1.0 + i, 1.0) for i in range(3)])
    first = [r["candid"] for r in candidates.events(pid)]
    with database.transaction() as cursor:
        n = candidates.update_events(cursor, pid, [
            {"candid": first[0], "fate": "packet", "ndethist": 3, "sgmag1": np.float32(17.5), "rfid": 1},
            {"candid": first[2], "fate": "nbad > 0", "ndethist": None, "sgmag1": np.nan, "rfid": None}])
        assert candidates.update_events(cursor, pid, []) == 0
    assert n == 2
    assert [(r["fate"], r["ndethist"], r["sgmag1"], r["rfid"], r["magpsf"]) for r in candidates.events(pid)] == [
        ("packet", 3, 17.5, 1, 18.5), (None, None, None, None, 18.5), ("nbad > 0", None, None, None, 18.5)]
    assert PostgresRegistry().counts("2018-06-01")["events"] == {"sealed": 1, "nothing-to-do": 1, "waiting": 1}


def test_partitions_by_night_and_channel_with_a_view_a_night(database):
    pid = pid_of(518, 12)
    store(database, pid, [event(pid, 0, 1.0, 1.0)])
    for table in ("candidates_n00518_rc12", "candidates_20180603"):
        assert database.query(f"select count(*) as n from {table} where pid = %s and run = %s", (pid, os.environ["ZTF_RUN"])) == [{"n": 1}]
    plan = "\n".join(r["QUERY PLAN"] for r in database.query("explain select * from candidates where nid = 518 and rcid = 12 and hpx = 5"))
    assert "candidates_n00518_rc12" in plan and "_rc11" not in plan


def test_history_by_position(database):
    place, near, far = (150.0, 20.0), (150.0 + 1.4 * ARCSEC / np.cos(np.radians(20)), 20.0), (150.0, 20.0 + 1.6 * ARCSEC)
    pids = [pid_of(nid, channel) for nid, channel in ((500, 1), (501, 2), (520, 1), (530, 1))]
    for pid in pids:
        store(database, pid, [event(pid, 0, *near, fate="packet"), event(pid, 1, *far), event(pid, 2, 151.0, 20.0)])
    found, nothing = candidates.history([place[0], 10.0], [place[1], 10.0], jd_of(pids[0]), jd_of(pids[3]))
    assert [r["pid"] for r in found] == pids[:3] and nothing == []
    assert tuple(found[0]) == candidates.HISTORY and found[0]["tblid"] == 0
    with database.transaction() as cursor:
        candidates.update_events(cursor, pids[1], [{"candid": found[1]["candid"], "ssnamenr": "110778", "ndethist": 3}])
    assert [r["ssnamenr"] for r in candidates.history(*place, jd_of(pids[0]), jd_of(pids[3]))[0]] == [None, "110778", None]
    assert [r["pid"] for r in candidates.history(*place, jd_of(pids[0]) + 1, 2459000)[0]] == pids[1:]
    assert [len(r) for r in candidates.history([150.0, 150.0], [20.0, 20.0 + 1.6 * ARCSEC], 0, 2459000)] == [4, 4]  # each its own
    assert candidates.history([], [], 0, 2459000) == []


def test_history_across_the_zero_meridian_and_near_the_pole(database):
    pid = pid_of(505, 1)
    store(database, pid, [event(pid, 0, 359.9999, 0.0), event(pid, 1, 10.0, 89.9999)])
    found = candidates.history([0.0001, 190.0], [0.0, 89.99995], 0, 2459000, radius_arcsec=2.0)
    assert [[r["tblid"] for r in rows] for rows in found] == [[0], [1]]


def test_detection_counts_of_one_field_and_channel(database):
    pids = [pid_of(nid, 1) for nid in (500, 510, 520)] + [pid_of(515, 2), pid_of(540, 1)]
    for pid in pids:
        store(database, pid, [event(pid, 0, 150.0, 20.0)])
    own = ids.candidate_id(pids[2], 0, True)
    for candid in (own, own + 1):  # stored with its image already, and not
        n, first, last = candidates.detection_counts([candid], [150.0], [20.0], jd_of(pids[2]), field=633, rcid=1)[0]
        assert (n, first, last) == (3 if candid == own else 4, jd_of(pids[0]), jd_of(pids[2]))
    assert candidates.detection_counts([1], [10.0], [20.0], 2458000.5, field=633, rcid=1) == [(1, 2458000.5, 2458000.5)]


def image(registry, pid: int, ra: float, dec: float, **values) -> None:
    half = 0.4
    corners = [(ra - half, dec - half), (ra + half, dec - half), (ra + half, dec + half), (ra - half, dec + half)]
    registry.seal(ProductRow("DifferenceImage", f"k{pid}", f"p{pid}", pid=pid, jd=jd_of(pid), fid=2, filter="zr", field=633, ra=ra, dec=dec,
                             rcid=pid // 100 % 100, nid=pid // 10**9, numbers={"diffmaglim": 20.5, "programid": 1},
                             **{f"{axis}{i}": c[j] for i, c in enumerate(corners, 1) for j, axis in enumerate(("ra", "dec"))}, **values))


def test_limits_are_the_images_that_covered_and_saw_nothing(database):
    registry = PostgresRegistry()
    pids = [pid_of(nid, 1) for nid in (500, 501, 502, 503, 504)]
    for pid in pids[:4]:
        image(registry, pid, 150.0, 20.0)
    image(registry, pids[4], 150.7, 20.0)
    registry.mark("DifferenceImage", f"k{pids[3]}", is_bad=True)
    store(database, pids[1], [event(pids[1], 0, 150.0, 20.0)])
    ra, dec = [150.0, 150.35, 150.9], [20.0, 20.0, 20.0]
    seen = candidates.history(ra, dec, 0, 2459000)
    limits = coverage.covering_limits(ra, dec, 0, 2459000, detections=seen)
    assert [[r["pid"] for r in rows] for rows in limits] == [[pids[0], pids[2]], [pids[0], pids[1], pids[2], pids[4]], [pids[4]]]
    assert limits[0][0] == {"pid": pids[0], "provid": f"p{pids[0]}", "jd": jd_of(pids[0]), "fid": 2, "filter": "zr", "nid": 500, "rcid": 1,
                            "field": 633, "exposure": None, "files": [], "diffmaglim": 20.5, "programid": 1}
    assert [len(rows) for rows in coverage.covering_limits(ra, dec, jd_of(pids[1]), jd_of(pids[4]))] == [2, 2, 0]
    assert coverage.coverage_counts(ra, dec, jd_of(pids[2])).tolist() == [3, 3, 0]
    assert coverage.coverage_counts([10.0], [10.0], 2459000).tolist() == [0]


def test_a_limit_is_that_of_the_place_and_none_where_it_is_masked(database):
    pid = pid_of(500, 7)
    image(PostgresRegistry(), pid, 150.0, 20.0)
    grid = 20.0 + np.add.outer(0.1 * np.arange(8), 0.001 * np.arange(10))  # rows along dec, columns along ra
    grid[4, 5] = np.nan
    with database.transaction() as cursor:
        coverage.replace_limits(cursor, pid, grid - 1.0)
        coverage.replace_limits(cursor, pid, grid)
    row, column = np.mgrid[0:8, 0:10]
    ra, dec = 149.6 + 0.08 * (column.ravel() + 0.5), 19.6 + 0.1 * (row.ravel() + 0.5)
    found = [rows[0]["diffmaglim"] for rows in coverage.covering_limits(ra, dec, 0, 2459000)]
    assert found[45] is None
    np.testing.assert_allclose(np.array(found, float), grid.ravel(), atol=0.0006)
    corners = [rows[0]["diffmaglim"] for rows in coverage.covering_limits([149.6001, 150.3999], [19.6001, 20.3999], 0, 2459000)]
    assert corners == [20.0, 20.709]


def test_events_that_ever_had_a_number(database):
    pid = pid_of(516, 3)
    store(database, pid, [event(pid, 0, 10.0, 20.0), event(pid, 4, 10.1, 20.0)])
    assign(database, [(ids.candidate_id(pid, number, True), 10.0 + 0.025 * number, 20.0, jd_of(pid), 633, 3) for number in (0, 4)])
    store(database, pid, [event(pid, 0, 10.0, 20.0)])  # made again, without the other
    known = candidates.numbered(pid)
    assert ids.event_number(known["candid"])[0].tolist() == [0, 4] and ids.event_number(known["candid"])[1].all()
    np.testing.assert_allclose(known["ra"], [10.0, 10.1])
    assert len(candidates.numbered(pid_of(517, 3))) == 0


def test_object_ids(database):
    jd = 2458270.5  # 2018-06-01
    first = assign(database, [(1, 10.0, 20.0, jd, 633, 1), (2, 10.0, 20.0 + 1.4 * ARCSEC, jd, 633, 1),
                              (3, 10.0, 20.0 + 2.9 * ARCSEC, jd, 633, 1)])
    assert first == {1: "ZTF18aaaaaaa", 2: "ZTF18aaaaaaa", 3: "ZTF18aaaaaab"}  # 2 is within 1.5 arcsec of 1 and of 3: of the first named
    assert assign(database, [(3, 10.0, 20.0, jd, 633, 1), (1, 50.0, 20.0, jd, 633, 1)]) == {3: first[3], 1: first[1]}  # a rerun keeps them
    later = assign(database, [(4, 10.0, 20.0 + 0.5 * ARCSEC, jd + 400, 1700, 9), (5, 11.0, 20.0, jd + 400, 633, 1),
                              (6, 11.0, 21.0, jd, 633, 1)])
    assert later == {4: "ZTF18aaaaaaa", 5: "ZTF19aaaaaaa", 6: "ZTF18aaaaaac"}
    assert assign(database, []) == {}
    row = database.query("select * from objects where run = %s and objectid = 'ZTF19aaaaaaa'", (os.environ["ZTF_RUN"],))[0]
    assert (row["candid"], row["ra"], row["dec"], row["field"], row["rcid"], row["year"], row["seq"]) == (5, 11.0, 20.0, 633, 1, 2019, 0)


def test_names_of_a_failed_seal_are_not_given_twice_nor_kept(database):
    jd = 2458270.5
    with pytest.raises(OSError):
        with database.transaction() as cursor:
            candidates.assign_object_ids(cursor, [(1, 10.0, 20.0, jd, 633, 1)])
            raise OSError
    assert assign(database, [(1, 10.0, 20.0, jd, 633, 1)]) == {1: "ZTF18aaaaaab"}  # a gap, no double


NAMER = """
import sys, luigi, numpy as np
from ztfluigi.services import candidates, database
who = int(sys.argv[1])
rng = np.random.default_rng(5)  # every process names the same 60 places, each in its own order and batches
places = np.column_stack([200 + rng.random(60) * 0.5, 30 + rng.random(60) * 0.5])
order = np.random.default_rng(who).permutation(60)
for batch in np.array_split(order, 10):
    with database.transaction() as cursor:
        jitter = np.random.default_rng([who, batch[0]]).normal(0, 0.1 / 3600, (len(batch), 2))
        rows = [(1000 * who + int(i), *(places[i] + jitter[n]), 2458270.5, 633, who) for n, i in enumerate(batch)]
        candidates.assign_object_ids(cursor, rows)
"""


def four_processes(script: str) -> None:
    """Run a script in four processes at once, each with its number as argument; all must end well."""
    started = [subprocess.Popen([sys.executable, "-c", script, str(who)], env=os.environ, stderr=subprocess.PIPE, text=True)
               for who in range(4)]
    errors = [process.communicate(timeout=120)[1] for process in started]
    assert [process.returncode for process in started] == [0] * 4, errors


def test_processes_that_name_the_same_places_agree(database):
    database.connect()
    four_processes(NAMER)
    run = os.environ["ZTF_RUN"]
    members = database.query("select candid, objectid from object_members where run = %s", (run,))
    assert len(members) == 240
    names = {}
    for member in members:
        names.setdefault(member["candid"] % 1000, set()).add(member["objectid"])
    assert all(len(given) == 1 for given in names.values()) and len(set.union(*names.values())) == 60
    assert database.query("select count(*) as n from objects where run = %s", (run,)) == [{"n": 60}]
    four_processes(NAMER)  # every event once more, at the same moment: it keeps the name it had
    again = database.query("select candid, objectid from object_members where run = %s", (run,))
    assert sorted(again, key=lambda row: row["candid"]) == sorted(members, key=lambda row: row["candid"])
    assert database.query("select count(*) as n from objects where run = %s", (run,)) == [{"n": 60}]


PARTITIONER = """
import sys, luigi
from ztfluigi.services import candidates
for nid in (700, 701):
    for rcid in range(4):
        candidates.ensure_partition(nid, (rcid + int(sys.argv[1])) % 4)
"""


def test_partitions_made_at_the_same_moment(database):
    database.connect()
    four_processes(PARTITIONER)
    assert database.query("select count(*) as n from pg_class where relname like 'candidates\\_n0070%%\\_rc__'") == [{"n": 8}]


def test_partition_made_while_others_write_and_read(database):
    """Making a partition waits for nobody: an open seal that wrote to this night does not hold it up."""
    pid = pid_of(710, 0)
    store(database, pid, [])
    with database.transaction() as cursor:
        candidates.replace_events(cursor, pid, "p", 710, 0, [event(pid, 0, 1.0, 1.0)])
        cursor.execute("select count(*) from candidates")
        script = "import luigi\nfrom ztfluigi.services import candidates\ncandidates.ensure_partition(710, 1)"
        maker = subprocess.run([sys.executable, "-c", script], env=os.environ, capture_output=True, text=True, timeout=20)
    assert maker.returncode == 0, maker.stderr


def test_ledger(database):
    pid, night = pid_of(516, 3), "2018-06-01"
    rows = [{"candid": 11, "objectid": "ZTF18aaaaaaa", "programid": 1, "file": "x/11.avro"}, {"candid": 12, "objectid": "ZTF18aaaaaab"}]

    def write(provid, rows):
        with database.transaction() as cursor:
            candidates.replace_alerts(cursor, pid, provid, night, rows)

    def waiting():
        sql = "select candid from alerts where run = %s and state = 'sealed' and delivered is null order by candid"
        return [r["candid"] for r in database.query(sql, (PostgresRegistry().run,))]

    write("p1", rows)
    with database.transaction() as cursor:
        ledger.mark_delivered(cursor, {11: ("ztf_20180601_programid1", 2, 7)})
    assert waiting() == [12]
    write("p1", rows)
    assert database.query("select topic, partition, \"offset\" from alerts where candid = 11", rows=tuple) == [("ztf_20180601_programid1", 2, 7)]
    assert waiting() == [12]  # the same packets again are not sent again
    assert PostgresRegistry().counts(night)["packets"] == {"sealed": 2}
    write("p2", rows[:1])
    assert waiting() == [11]
    write("p3", [])
    assert PostgresRegistry().counts(night)["packets"] == {"nothing-to-do": 1}  # what was delivered once is not forgotten
