"""A broker, a ledger and an archive file of real packets."""

from __future__ import annotations

import datetime
import itertools
import os
from pathlib import Path

import luigi.configuration
import pytest

from targets.codecs import alert
from tests.support import database, survey_root  # noqa: F401
from ztfluigi.services import broker, candidates, ledger
from ztfluigi.services import database as database_module

_nights = itertools.count()
PID = 2695378462115


@pytest.fixture(scope="session")
def real_packets(shared_data) -> dict[int, bytes]:
    """The real packets of schema 4.02, by candid."""
    return {int(path.stem): path.read_bytes() for path in sorted((shared_data / "ztf-alerts" / "packets_v4.02").glob("*.avro"))}


class Quadrant:
    """A quadrant's packets in an archive file and in the ledger, of a night (and so a topic) that no other test uses."""

    def __init__(self, root: Path, run: str):
        self.night = (datetime.date(2030, 1, 1) + datetime.timedelta(next(_nights))).isoformat()
        self.topic, self.file = broker.topic_of(self.night, 1), f"archive/sci/{run}_alerts.tar.gz"
        self.path = root / self.file

    def seal(self, packets: dict[int, bytes], provid: str = "p1") -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        alert.pack_alerts(self.path, packets.items())
        rows = [{"candid": candid, "objectid": "ZTF24aaaaaaa", "programid": 1, "file": self.file} for candid in packets]
        with database_module.transaction() as cursor:
            candidates.replace_alerts(cursor, PID, provid, self.night, rows)

    def rows(self) -> dict[int, dict]:
        return {row["candid"]: row for row in database_module.query("select * from alerts where file = %s", (self.file,))}

    def pending(self) -> int:
        return ledger.pending(self.file)


@pytest.fixture
def quadrant(database, survey_root, real_packets) -> Quadrant:  # noqa: F811
    """The real packets, sealed and pending."""
    made = Quadrant(survey_root, os.environ["ZTF_RUN"])
    made.seal(real_packets)
    return made


@pytest.fixture
def named(kafka_broker, database, monkeypatch):  # noqa: F811
    """The session's broker, named by the settings."""
    monkeypatch.setenv("ZTF_KAFKA", kafka_broker.at)
    return kafka_broker


@pytest.fixture
def kafka_settings():
    """Sets keys of section [kafka] for one test."""
    config = luigi.configuration.get_config()

    def put(**values: str) -> None:
        for name, value in values.items():
            config.set("kafka", name, value)

    yield put
    config.remove_section("kafka")
