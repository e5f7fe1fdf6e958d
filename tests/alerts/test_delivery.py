"""Packets of the ledger to a real broker: each is noted where it lies, none is lost, none is seen twice by its key."""

from __future__ import annotations

import threading

import pytest

from targets.codecs import alert
from tests.kafka import stock_consumer
from ztfluigi.cli.main import main
from ztfluigi.model.errors import Transient
from ztfluigi.services import broker, ledger
from ztfluigi.tasks import delivery, process

pytestmark = [pytest.mark.xdist_group("kafka"), pytest.mark.kafka, pytest.mark.db, pytest.mark.real]


def deliver(quadrant) -> delivery.Delivered:
    with broker.Publisher() as publisher:
        return delivery.deliver(publisher, quadrant.file)


def test_every_packet_is_delivered_once_and_the_ledger_says_where(named, quadrant, real_packets):
    assert quadrant.pending() == len(real_packets)
    assert deliver(quadrant).sent == len(real_packets) and deliver(quadrant).sent == 0
    there = {(m.topic(), m.partition(), m.offset()): (int(m.key()), m.value()) for m in stock_consumer(named.at, quadrant.topic)}
    assert there == {(row["topic"], row["partition"], row["offset"]): (candid, real_packets[candid]) for candid, row in quadrant.rows().items()}
    assert ledger.counts(quadrant.night) == {"delivered": len(real_packets), "pending": 0, "failed": 0}


def test_a_crash_between_the_brokers_answer_and_the_ledger_repeats_and_loses_nothing(named, quadrant, real_packets, monkeypatch, tmp_path, capsys):
    with monkeypatch.context() as patch:
        patch.setattr(ledger, "mark_delivered", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            deliver(quadrant)
    assert quadrant.pending() == len(real_packets)
    assert deliver(quadrant).sent == len(real_packets)
    messages = stock_consumer(named.at, quadrant.topic)
    assert len(messages) == 2 * len(real_packets) and {int(m.key()) for m in messages} == set(real_packets)
    assert main(["alerts", "consume", "--topic", quadrant.topic, "--save", str(tmp_path)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(real_packets)
    assert {int(path.stem): path.read_bytes() for path in tmp_path.iterdir()} == real_packets


def test_publishers_at_the_same_time_send_each_packet_once(named, quadrant, real_packets):
    sent = []
    both = [threading.Thread(target=lambda: sent.append(deliver(quadrant).sent)) for _ in range(2)]
    for one in both:
        one.start()
    for one in both:
        one.join()
    assert sorted(sent) == [0, len(real_packets)]


def test_an_invalid_packet_is_never_published_and_stays_in_the_ledger_with_its_reason(named, quadrant, real_packets):
    damaged, other, absent = list(real_packets)[:3]
    packets = real_packets | {damaged: real_packets[damaged][:-1], other: real_packets[damaged]}
    quadrant.seal(packets)
    alert.pack_alerts(quadrant.path, [(candid, packet) for candid, packet in packets.items() if candid != absent])
    assert deliver(quadrant) == delivery.Delivered(len(packets) - 3, 3)
    assert {int(m.key()) for m in stock_consumer(named.at, quadrant.topic)} == set(packets) - {damaged, other, absent}
    rows = quadrant.rows()
    for candid, words in ((damaged, "is not valid"), (other, f"of candid {damaged}"), (absent, "rebuild its AlertPackets")):
        assert rows[candid]["state"] == "failed" and words in rows[candid]["reason"] and rows[candid]["delivered"] is None


def test_a_rerun_sends_only_what_changed_and_remembers_what_the_world_has(named, quadrant, real_packets):
    deliver(quadrant)
    quadrant.seal(real_packets)
    assert quadrant.pending() == 0 and all(row["offset"] is not None for row in quadrant.rows().values())
    fewer = dict(list(real_packets.items())[1:])
    quadrant.seal(fewer, provid="p2")
    assert quadrant.pending() == len(fewer)
    gone = quadrant.rows()[next(iter(real_packets))]
    assert gone["state"] == "nothing-to-do" and gone["delivered"] and "no longer made" in gone["reason"]


def test_broker_away_then_publish_then_replay(named, quadrant, real_packets, monkeypatch, capsys):
    monkeypatch.setattr(process, "refuse", lambda error: pytest.fail(error.reason))
    with monkeypatch.context() as patch:
        patch.setenv("ZTF_KAFKA", "127.0.0.1:1")
        with pytest.raises(Transient, match="no broker listens"):
            deliver(quadrant)
        assert main(["alerts", "publish", "--night", quadrant.night]) == 1
    assert quadrant.pending() == len(real_packets)
    assert main(["alerts", "publish", "--night", quadrant.night]) == 0
    assert f"{len(real_packets)} packets sent now; {len(real_packets)} delivered, 0 pending" in capsys.readouterr().out
    assert main(["alerts", "replay", "--night", quadrant.night]) == 0
    assert {row["sends"] for row in quadrant.rows().values()} == {2}
    before = quadrant.rows()
    assert main(["alerts", "replay", "--night", quadrant.night, "--topic", "elsewhere"]) == 0
    assert quadrant.rows() == before
    assert {int(m.key()): m.value() for m in stock_consumer(named.at, "elsewhere")} == real_packets
    assert main(["alerts", "publish", "--night", "2018-13-01"]) == 1
    assert "is not a date" in capsys.readouterr().err
