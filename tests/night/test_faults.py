"""Twenty kills of worker, broker and database during a night: every event that passed the filter is in archive, ledger and topic."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest

from targets.codecs import alert
from tests.kafka import KafkaBroker, stock_consumer
from tests.night.conftest import BIN, CHECKOUT, Survey, enter
from ztfluigi.services import broker, database, kafka_server, postgres

pytestmark = [pytest.mark.xdist_group("kafka"), pytest.mark.night, pytest.mark.db, pytest.mark.kafka, pytest.mark.slow]

EARLY = 6
"""Kills before the first difference image of the night."""
VICTIMS = ["worker"] * 7 + ["broker"] * 7 + ["database"] * 6


@pytest.fixture
def delivering(tmp_path, monkeypatch):
    """(survey after its first night, a broker of its own that its commands know)."""
    if lack := kafka_server.missing():
        pytest.skip(lack)
    own, survey = KafkaBroker(tmp_path / "kafka", secured=False), Survey(tmp_path / "survey", patience_s=3000)
    monkeypatch.setattr(Survey, "environment", Survey.environment.fget(survey) | {"ZTF_KAFKA": own.at})
    made = survey.command("ztf", "simulate", "--preset", "tiny", "--processes", "2")
    assert made.returncode == 0, made.stderr
    assert survey.luigi("Night", "--night", survey.nights[0]).returncode == 0
    own.start()
    yield survey, own
    database.disconnect()
    own.stop()
    postgres.stop(survey.root)


class Night:
    """The worker of a night, started again whenever it has ended."""

    def __init__(self, survey: Survey, log: Path):
        self.survey, self.log, self.process = survey, log, None
        self.ended: list[int] = []

    def go_on(self) -> None:
        if self.process is not None and self.process.poll() is None:
            return
        if self.process is not None:
            self.ended.append(self.process.returncode)
        command = [BIN / "luigi", "--module", "ztfluigi.tasks", "Night", "--night", self.survey.nights[-1], "--local-scheduler", "--workers", "2"]
        with open(self.log, "a") as log:
            self.process = subprocess.Popen(command, env=self.survey.environment, cwd=CHECKOUT, stdout=log, stderr=log)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.mark.stress
@pytest.mark.timeout(9000)
def test_twenty_kills_lose_no_alert(delivering, tmp_path, monkeypatch):
    survey, own = delivering
    night, draw, killed = Night(survey, tmp_path / "luigi.log"), random.Random(11), Counter()
    enter(survey, monkeypatch)
    for number, victim in enumerate(draw.sample(VICTIMS, len(VICTIMS))):
        while number >= EARLY and not survey.registry().select("DifferenceImage", night=survey.nights[-1]):
            night.go_on()  # most of the kills wait until there is something to deliver
            time.sleep(1.0)
        night.go_on()
        time.sleep(draw.uniform(2.0, 8.0))
        own.start()  # where the last kill was its own
        killed[victim, "in work" if night.process.poll() is None else "at rest"] += 1
        if victim == "worker":
            night.kill()
        elif victim == "broker":
            own.kill()
        elif postgres.running(survey.root):
            os.kill(int((survey.root / "db/postmaster.pid").read_text().split()[0]), signal.SIGKILL)
    night.kill()
    own.start()
    finished = survey.luigi("Night", "--night", survey.nights[-1])
    assert finished.returncode == 0, finished.stderr[-3000:]
    print(dict(killed), "ended between kills with", night.ended)
    repeated = everywhere(survey, own)
    print(f"{repeated} messages repeated")


def everywhere(survey: Survey, own: KafkaBroker) -> int:
    """Compare events, archive, ledger and topic; how many messages the topic holds beyond one an alert."""
    night = survey.nights[-1]
    events = {r["candid"] for r in database.query("select candid from candidates where fate = 'packet' and pid in "
                                                  "(select pid from usable_products where kind = 'DifferenceImage' and night = %s)", (night,))}
    archive = {candid: packet for path in survey.root.glob("archive/sci/**/*_alerts.tar.gz") for candid, packet in alert.unpack_alerts(path)}
    ledger = {r["candid"]: r for r in database.query("select * from alerts where night = %s", (night,))}
    assert len(events) > 20 and events == set(archive) == set(ledger)
    assert all(row["state"] == "sealed" and row["delivered"] for row in ledger.values())
    messages = stock_consumer(own.at, broker.topic_of(night, 1))
    there = {(m.partition(), m.offset()): (int(m.key()), m.value()) for m in messages}
    assert {candid for candid, _ in there.values()} == events
    for candid, row in ledger.items():
        assert there[row["partition"], row["offset"]] == (candid, archive[candid])
    assert main_consume(survey, night) == sorted(events)
    return len(messages) - len(events)


def main_consume(survey: Survey, night: str) -> list[int]:
    """Candids as our own consumer shows them."""
    shown = survey.command("ztf", "alerts", "consume", "--night", night)
    assert shown.returncode == 0, shown.stderr
    return sorted(int(line.split()[0]) for line in shown.stdout.splitlines())
