"""A real broker: real packets through a topic unchanged, read by code nobody here wrote; groups, TLS and passwords, trouble in one sentence."""

from __future__ import annotations

import gc
import io

import fastavro
import pytest

from tests.kafka import PASSWORD, KafkaBroker, stock_consumer
from ztfluigi.model.errors import BadInput, Transient
from ztfluigi.services import broker, kafka_server

pytestmark = [pytest.mark.xdist_group("kafka"), pytest.mark.kafka, pytest.mark.db]


def publish(topic: str, packets: dict[int, bytes], at: str | None = None) -> broker.Sent:
    with broker.Publisher(at) as publisher:
        return publisher.send((topic, str(candid).encode(), packet) for candid, packet in packets.items())


@pytest.mark.real
def test_real_packets_pass_unchanged_to_a_stock_consumer_and_the_real_schema(named, shared_data, shared_spec):
    packets = {int(path.stem): path.read_bytes() for path in (shared_data / "ztf-alerts").glob("packets_*/*.avro")}
    assert len(packets) > 30
    sent = publish("real", packets)
    assert not sent.trouble
    messages = stock_consumer(named.at, "real")
    assert {int(message.key()): message.value() for message in messages} == packets and len(messages) == len(packets)
    assert {(m.partition(), m.offset()): int(m.key()) for m in messages} == \
        {(place.partition, place.offset): candid for place, candid in zip(sent.answers, packets, strict=True)}
    parts = ("candidate", "prv_candidate", "fp_hist", "cutout", "alert")
    current = fastavro.schema.load_schema_ordered([str(shared_spec / "data" / "avro_v4.02" / f"{part}.avsc") for part in parts])
    for message in messages:
        (plain,) = fastavro.reader(io.BytesIO(message.value()))
        assert str(plain["candid"]).encode() == message.key()
        if plain["schemavsn"] == "4.02":
            (projected,) = fastavro.reader(io.BytesIO(message.value()), current)
            assert projected == plain


def test_a_group_goes_on_where_it_stood_and_a_reader_without_one_begins_at_the_start(named):
    publish("groups", {number: bytes(2_000_000) for number in range(10)})  # larger than a broker takes unless its topic says so

    def keys(**options) -> list[int]:
        return sorted(int(message.key) for batch in broker.read(["groups"], **options) for message in batch)

    first = keys(group="g", limit=4)
    assert len(first) == 4 and sorted(first + keys(group="g")) == list(range(10))
    assert keys(group="g") == [] and keys() == list(range(10))


def test_one_message_that_is_too_large_is_refused_and_stops_no_other(named):
    sent = publish("sizes", {1: b"small", 2: bytes(broker.MAX_MESSAGE_BYTES + 1), 3: b"small too"})
    assert isinstance(sent.answers[0], broker.Placed) and isinstance(sent.answers[2], broker.Placed)
    assert str(broker.MAX_MESSAGE_BYTES) in sent.answers[1] and not sent.trouble


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # of the client library, when it cannot connect
def test_tls_and_password(named, kafka_settings, monkeypatch):
    kafka_settings(security_protocol="SASL_SSL", sasl_mechanism="PLAIN", sasl_username="ztf", ssl_cafile=str(named.cafile))
    monkeypatch.delenv("ZTF_KAFKA_PASSWORD", raising=False)
    with pytest.raises(BadInput, match="environment variable ZTF_KAFKA_PASSWORD"):
        publish("secure", {7: b"packet"}, named.secure)
    monkeypatch.setenv("ZTF_KAFKA_PASSWORD", PASSWORD)
    assert not publish("secure", {7: b"packet"}, named.secure).trouble
    assert [m.value for batch in broker.read(["secure"], at=named.secure) for m in batch] == [b"packet"]
    monkeypatch.setenv("ZTF_KAFKA_PASSWORD", "wrong")
    with pytest.raises((BadInput, Transient), match=r"\[kafka\] has another user, password or TLS setting"):
        publish("secure", {7: b"packet"}, named.secure)
    gc.collect()


def test_trouble_is_one_sentence(named, kafka_settings):
    with pytest.raises(Transient, match="no broker listens at 127.0.0.1:1 .* `ztf alerts publish --night`"):
        broker.Publisher("127.0.0.1:1")
    with pytest.raises(BadInput, match="has no topic nobody"):
        list(broker.read(["nobody"]))
    kafka_settings(security_protocol="SSL", ssl_cafile="/nowhere/ca.pem")
    with pytest.raises(BadInput, match="ssl_cafile = /nowhere/ca.pem is no file"):
        broker.Publisher()


def test_a_machine_without_java_is_told_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(kafka_server, "JARS", tmp_path / "jars")
    with pytest.raises(BadInput, match="java and mvn are not installed: .* apt-get install openjdk-17-jre-headless maven"):
        kafka_server.start(tmp_path / "broker")


@pytest.mark.stress
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_mirror_to_a_second_cluster_loses_nothing_when_that_one_dies(named, tmp_path):
    other = KafkaBroker(tmp_path / "other", secured=False)
    other.start()
    try:
        packets = {number: number.to_bytes(4) * 5000 for number in range(3000)}
        publish("copied", packets)
        with pytest.raises(Transient):
            for batch in broker.read(["copied"], group="ztf-mirror", limit=1000):
                with broker.Publisher(other.at) as publisher:
                    assert not publisher.send(("copied", m.key, m.value) for m in batch).trouble
                other.kill()
                broker.mirror(["copied"], other.at)
        other.start()
        broker.mirror(["copied"], other.at)
        there = stock_consumer(other.at, "copied")
        assert {int(message.key()): message.value() for message in there} == packets
        assert broker.mirror(["copied"], other.at) == 0
    finally:
        other.stop()
        gc.collect()
