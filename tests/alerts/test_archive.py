"""Nightly tarballs: every sealed packet of a programme, and none else; stale when the ledger changes."""

from __future__ import annotations

import itertools

import pytest

from targets.codecs import alert
from targets.sealed import Stage
from tests.support import database, survey_root  # noqa: F401
from ztfluigi.model.errors import NoWork, Transient
from ztfluigi.services import candidates, ledger
from ztfluigi.tasks.alert_archive import AlertArchive, archives

pytestmark = pytest.mark.db
PID = 2695378462115
_nights = itertools.count(1)


@pytest.fixture
def night(database):  # noqa: F811
    return f"2031-01-{next(_nights):02d}"


def seal(database, root, night: str, name: str, pid: int, packets: dict[int, bytes], provid: str = "p", **changes) -> None:  # noqa: F811
    alert.pack_alerts(root / name, packets.items())
    rows = [{"candid": candid, "objectid": "ZTF31aaaaaaa", "programid": 1, "file": name} | changes for candid in packets]
    with database.transaction() as cursor:
        candidates.replace_alerts(cursor, pid, provid, night, rows)


def made(root, night: str, programid: int) -> list[tuple[int, bytes]]:
    task = AlertArchive(night, programid)
    stage = Stage(root, task.files())
    assert task.build(stage).numbers == {"n_packets": len(list(alert.unpack_alerts(stage["packets"])))}
    return list(alert.unpack_alerts(stage["packets"]))


def test_programmes_apart_and_refused_packets_left_out(database, survey_root, night):  # noqa: F811
    seal(database, survey_root, night, "b.tar.gz", PID, {3: b"three", 4: b"four"})
    seal(database, survey_root, night, "a.tar.gz", PID + 1, {1: b"one", 2: b"two"})
    seal(database, survey_root, night, "c.tar.gz", PID + 2, {5: b"five"}, programid=2)
    assert ledger.programmes(night) == [1, 2]
    task, other = archives(night)
    code = night.replace("-", "")
    assert [str(one.files()["packets"]) for one in (task, other)] == [f"depot/{code}/ztf_{word}_{code}.tar.gz" for word in ("public", "partnership")]
    assert made(survey_root, night, 1) == [(1, b"one"), (2, b"two"), (3, b"three"), (4, b"four")] and made(survey_root, night, 2) == [(5, b"five")]
    before = task.provid()
    with database.transaction() as cursor:
        ledger.mark_refused(cursor, {3: "not a packet"})
    assert task.provid() != before and [candid for candid, _ in made(survey_root, night, 1)] == [1, 2, 4]
    with pytest.raises(NoWork, match="programme 3"):
        made(survey_root, night, 3)


def test_a_tarball_that_is_not_that_of_the_ledger_is_passing_trouble(database, survey_root, night):  # noqa: F811
    seal(database, survey_root, night, "d.tar.gz", PID + 3, {7: b"seven", 8: b"eight"})
    alert.pack_alerts(survey_root / "d.tar.gz", [(7, b"seven")])
    with pytest.raises(Transient, match="hold 1 packets of programme 1, the ledger 2"):
        made(survey_root, night, 1)
