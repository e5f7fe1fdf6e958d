"""Packets, cutouts and tarballs: round trips, refusals that name the field, and every real packet."""

from __future__ import annotations

import gzip
import io
import json
import resource

import fastavro
import numpy as np
import pytest
from astropy.io import fits as astropy_fits

from targets.codecs import alert
from ztfluigi.model import alert_schema
from ztfluigi.model.errors import BadInput, ConfigError, Transient

VALUES = {"double": 1.5, "float": 0.25, "int": -3, "long": 10**17, "string": "x"}


def blank(fields, **changes):
    return {field.name: VALUES[field.type] for field in fields} | changes


def record(version="4.02"):
    cutout = {"fileName": "a.fits.gz", "stampData": alert.encode_cutout(np.zeros((63, 63)))}
    made = {"schemavsn": version, "publisher": alert_schema.PUBLISHER, "objectId": "ZTF18aaaaaaa", "candid": 5,
            "candidate": blank(alert_schema.CANDIDATE, candid=5),
            "prv_candidates": [blank(alert_schema.PRV_CANDIDATE), blank(alert_schema.PRV_CANDIDATE, candid=None, rb=None, magpsf=None)],
            "cutoutScience": cutout, "cutoutTemplate": None, "cutoutDifference": cutout}
    if version == "4.02":
        made["fp_hists"] = [blank(alert_schema.FP_HIST, forcediffimflux=None)]
    return made


@pytest.mark.parametrize("version", alert_schema.VERSIONS)
def test_packet_round_trip(version):
    made = record(version)
    packet = alert.write_packet(made)
    assert packet.startswith(b"Obj\x01") and alert.read_packets(packet) == [made]
    assert alert.write_packet(record(version)) == packet
    stream = io.BytesIO()
    fastavro.writer(stream, alert._parsed(version), [made], codec="null", sync_marker=packet[-16:])
    assert stream.getvalue() == packet
    reader = fastavro.reader(io.BytesIO(packet))
    assert reader.codec == "null" and reader.writer_schema["name"] == "ztf.alert"


def test_extreme_values_come_back():
    made = record()
    made["candidate"] |= {"tblid": 0, "nid": -1, "rcid": 64, "programpi": "Prince é", "jd": 2459116.9317708, "pid": -(2**63),
                          "rfid": 2**63 - 1}
    assert alert.read_packets(alert.write_packet(made)) == [made]


def test_the_written_schema_does_not_depend_on_the_process():
    """The parser orders keys by the process's hash seed; a packet made again elsewhere must have the same bytes."""
    schema = fastavro.reader(io.BytesIO(alert.write_packet(record()))).metadata["avro.schema"]
    assert schema == json.dumps(json.loads(schema), sort_keys=True)


def test_histories_may_be_absent():
    made = record() | {"prv_candidates": None, "fp_hists": None}
    assert alert.read_packets(alert.write_packet(made)) == [made]


@pytest.mark.parametrize("where, value, words", [
    (("candidate", "rb"), float("nan"), r"field candidate\.rb is nan, expected a finite float"),
    (("candidate", "ra"), None, r"field candidate\.ra is null, expected double"),
    (("candidate", "fid"), 2.0, r"candidate\.fid is 2\.0, expected int"),
    (("candidate", "fid"), True, r"candidate\.fid is True, expected int"),
    (("candidate", "nid"), 2**31, r"candidate\.nid is 2147483648, expected a finite int in its range"),
    (("candidate", "magpsf"), 1e39, r"candidate\.magpsf is 1e\+39"),
    (("candidate", "magpsf"), np.float32(1), r"candidate\.magpsf is .*, expected float"),
    (("candidate", "isdiffpos"), 1, r"candidate\.isdiffpos is 1, expected string"),
    (("prv_candidates", 1, "sky"), float("inf"), r"prv_candidates\[1\]\.sky is inf"),
    (("prv_candidates", 0, "fid"), True, r"prv_candidates\[0\]\.fid is True"),
    (("prv_candidates", 0, "fid"), None, r"prv_candidates\[0\]\.fid is null, expected int"),
    (("prv_candidates", 1, "sky"), "x", r"prv_candidates\[1\]\.sky is 'x', expected float"),
    (("cutoutScience", "stampData"), "text", r"cutoutScience\.stampData is 'text', expected bytes"),
    (("fp_hists",), {}, "fp_hists is {}, expected array"),
    (("fp_hists", 0), 3, r"fp_hists\[0\] is 3, expected a record"),
])
def test_a_wrong_value_is_refused_with_the_fields_name(where, value, words):
    made = record()
    inner = made
    for key in where[:-1]:
        inner = inner[key]
    inner[where[-1]] = value
    with pytest.raises(BadInput, match=words):
        alert.write_packet(made)


def test_missing_and_unknown_fields_are_refused():
    made = record()
    del made["candidate"]["rb"]
    with pytest.raises(BadInput, match=r"field candidate\.rb is missing"):
        alert.write_packet(made)
    made["candidate"] |= {"rb": 1.0, "rb2": 1.0}
    with pytest.raises(BadInput, match=r"field candidate\.rb2 is not in the schema"):
        alert.write_packet(made)
    with pytest.raises(ConfigError, match="3.2"):
        alert.write_packet(record() | {"schemavsn": "3.2"})


@pytest.mark.parametrize("keep", [0, 3, 100, 20000, -900, -20, -16, -1])
def test_cut_or_foreign_containers_are_refused(keep):
    with pytest.raises(BadInput):
        alert.read_packets(alert.write_packet(record())[:keep])


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(BadInput, match="5.avro"):
        alert.read_packets(tmp_path / "5.avro")


@pytest.mark.parametrize("shape", [(63, 63), (44, 63), (63, 31)])
def test_cutout_round_trip(shape):
    stamp = np.random.default_rng(1).normal(100, 9, shape).astype(np.float32)
    stamp[0, 0] = np.nan
    data = alert.encode_cutout(stamp)
    np.testing.assert_array_equal(alert.decode_cutout(data), stamp)
    assert alert.encode_cutout(stamp) == data
    with astropy_fits.open(io.BytesIO(gzip.decompress(data))) as hdus:
        hdus.verify("exception")
        assert list(hdus[0].header) == ["SIMPLE", "BITPIX", "NAXIS", "NAXIS1", "NAXIS2", "BUNIT"] and hdus[0].header["BUNIT"] == "DN"
        np.testing.assert_array_equal(hdus[0].data, stamp)


@pytest.mark.parametrize("data", [b"", b"not gzip", gzip.compress(b"short", mtime=0), gzip.compress(b"SIMPLE  = T".ljust(5760), mtime=0)])
def test_other_bytes_are_no_cutout(data):
    with pytest.raises(BadInput, match="cutout"):
        alert.decode_cutout(data)


def test_tarball_round_trip(tmp_path):
    packets = [(5, b"five"), (7, b"seven")]
    assert alert.pack_alerts(tmp_path / "a.tar.gz", packets) == 2
    alert.pack_alerts(tmp_path / "b.tar.gz", iter(packets))
    assert list(alert.unpack_alerts(tmp_path / "a.tar.gz")) == packets
    assert (tmp_path / "a.tar.gz").read_bytes() == (tmp_path / "b.tar.gz").read_bytes()
    (tmp_path / "c.tar.gz").write_bytes((tmp_path / "a.tar.gz").read_bytes()[:40])
    with pytest.raises(BadInput, match="c.tar.gz"):
        list(alert.unpack_alerts(tmp_path / "c.tar.gz"))


def test_a_full_disk_leaves_nothing_half_written(tmp_path):
    noise = np.random.default_rng(1).integers(0, 256, 200_000, np.uint8).tobytes()
    most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, most[1]))  # no file may grow beyond
    try:
        with pytest.raises(Transient, match="a.tar.gz cannot be written: File too large"):
            alert.pack_alerts(tmp_path / "a.tar.gz", [(n, noise) for n in range(5)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, most)
    assert list(tmp_path.iterdir()) == []
    assert alert.pack_alerts(tmp_path / "a.tar.gz", [(n, noise) for n in range(5)]) == 5


def real_files(shared_data):
    return sorted((shared_data / "ztf-alerts").rglob("*.avro"))


@pytest.mark.real
def test_every_real_packet_reads_with_one_of_its_cutouts(shared_data):
    count = 0
    for path in real_files(shared_data):
        for packet in alert.read_packets(path):
            count += 1
            assert packet["candid"] == packet["candidate"]["candid"] and packet["schemavsn"] in ("3.0", "3.1", "3.2", "3.3", "4.01", "4.02")
            name = list(alert_schema.CUTOUTS)[count % 3]
            stamp = alert.decode_cutout(packet[name]["stampData"])
            assert stamp.dtype == np.float32 and max(stamp.shape) == 63
    assert count == 662


@pytest.mark.real
def test_real_packets_of_the_written_versions_are_accepted(shared_data):
    written = 0
    for path in real_files(shared_data):
        for packet in alert.read_packets(path):
            fields = {field.name for field in alert_schema.CANDIDATE}
            if packet["schemavsn"] not in alert_schema.VERSIONS or set(packet["candidate"]) != fields:
                continue
            if (packet["schemavsn"] == "4.02") != ("fp_hists" in packet):
                continue
            assert alert.read_packets(alert.write_packet(packet)) == [packet]
            written += 1
    assert written >= 50
