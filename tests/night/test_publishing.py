"""Delivery in the chain: nothing of an exposure waits for the broker; the same command delivers when it is back."""

from __future__ import annotations

import pytest

from targets.codecs import alert
from tests.kafka import stock_consumer
from tests.night.conftest import Survey
from ztfluigi.services import broker, database

pytestmark = [pytest.mark.xdist_group("night"), pytest.mark.night, pytest.mark.db, pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(1500)]


def test_broker_away_then_back(survey, kafka_broker, monkeypatch):
    night = survey.nights[-1]
    row = next(row for row in survey.registry().select("AlertPackets", night=night))
    file = next(entry["path"] for entry in row.files)
    plain = Survey.environment.fget(survey)

    def ask(at: str):
        monkeypatch.setattr(Survey, "environment", plain | {"ZTF_KAFKA": at})
        return survey.luigi("Exposure", "--exposure", row.exposure)

    away = ask("127.0.0.1:1")
    assert away.returncode != 0
    failed = {r["kind"]: r for r in database.query("select kind, state, reason, attempts from products where exposure = %s and state = 'failed' "
                                                   "and vbest > 0", (row.exposure,))}
    assert set(failed) == {"AlertDelivery"} and failed["AlertDelivery"]["attempts"] == 3
    assert "no broker listens at 127.0.0.1:1" in failed["AlertDelivery"]["reason"]
    back = ask(kafka_broker.at)
    assert back.returncode == 0, back.stderr[-3000:]
    packets = dict(alert.unpack_alerts(survey.root / file))
    there = {int(m.key()): m.value() for m in stock_consumer(kafka_broker.at, broker.topic_of(night, 1))}
    assert packets and packets.items() <= there.items()
    places = database.query("select * from alerts where file = %s", (file,))
    assert all(one["delivered"] and one["topic"] == broker.topic_of(night, 1) for one in places)
    assert survey.registry().current("AlertDelivery", row.key).numbers["n_delivered"] == len(packets)
