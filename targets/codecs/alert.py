"""Alert packets: one Avro container each (codec null, schema embedded), their cutouts, and the per-quadrant tarball.

Equal records give equal bytes: the container's sync marker follows from the candid, gzip and tar carry no time.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
import warnings
import zlib
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from math import isclose, isfinite
from pathlib import Path

import fastavro
import numpy as np
from astropy.io import fits
from fastavro.schema import to_parsing_canonical_form
from fastavro.validation import ValidationError, validate

from ztfluigi.model import alert_schema
from ztfluigi.model.errors import BadInput


# --- packets --------------------------------------------------------------------------------------------------------------------

def write_packet(record: Mapping) -> bytes:
    """One record as a complete Avro container, in the schema its `schemavsn` names.

    Raises BadInput with the field's name when a value is missing, unknown, of the wrong type, not finite, or does not come back as
    written.
    """
    version = alert_schema.check_version(record.get("schemavsn", ""))
    schema, refused = _parsed(version), f"alert packet {record.get('candid')} of schema {version}"
    marker = hashlib.md5(str(record.get("candid")).encode(), usedforsecurity=False).digest()
    # histories are most of a packet: tagged, the writer need not search their unions, and what it then writes `_altered` compares
    tagged = {name: ("array", value) if isinstance(value, list) else value for name, value in record.items()}
    stream = io.BytesIO()
    try:
        if not validate({name: None if isinstance(value, list) else value for name, value in record.items()}, schema, raise_errors=False):
            raise ValueError("a value is not of its type")
        fastavro.writer(stream, schema, [tagged], codec="null", strict=True, sync_marker=marker)
    except (ValueError, TypeError, AttributeError, OverflowError) as error:
        raise BadInput(f"{refused}: {_wrong_value(record, schema) or error}") from error
    packet = stream.getvalue()
    altered = _altered(record, *read_packets(packet))
    if altered:
        raise BadInput(f"{refused}: {altered} does not read back as given, finite and of its type")
    return packet


def _wrong_value(record: Mapping, schema: dict) -> str | None:
    """fastavro's sentence on the innermost field whose value is of the wrong type."""
    try:
        validate(record, schema)
    except ValidationError as error:
        innermost = max(error.errors, key=lambda one: (one.field.count("."), one.schema != "null"))  # every branch of a union reports
        return f"{innermost!s:.200}"
    return None


def _altered(given: Mapping, back: Mapping) -> str | None:
    """Name of the first field of another type or value, a float that is not finite or differs by more than the rounding to single."""
    for name, value in back.items():
        before = given[name]
        if isinstance(value, float):
            if not (isfinite(value) and isclose(value, before, rel_tol=1e-6, abs_tol=1e-37)):
                return name
        elif isinstance(value, dict):
            if inner := _altered(before, value):
                return f"{name}.{inner}"
        elif isinstance(value, list):
            for number, pair in enumerate(zip(before, value, strict=True)):
                if inner := _altered(*pair):
                    return f"{name}[{number}].{inner}"
        elif type(value) is not type(before) or value != before:
            return name
    return None


@lru_cache
def _parsed(version: str) -> dict:
    return _sorted(fastavro.parse_schema(alert_schema.schema(version)))


def _sorted(node):
    """The same schema with keys in one order: the parser leaves them in that of the process's hash seed, and they are written."""
    if isinstance(node, dict):
        return {key: _sorted(node[key]) for key in sorted(node)}
    return [_sorted(item) for item in node] if isinstance(node, list) else node


def read_packets(source: bytes | str | Path) -> list[dict]:
    """All records of an Avro container, from bytes or a file, of any version of the schema; BadInput when it is none."""
    name = "alert packet" if isinstance(source, bytes) else Path(source).name
    try:
        records = list(fastavro.reader(io.BytesIO(source if isinstance(source, bytes) else Path(source).read_bytes())))
        if not records:
            raise ValueError("it is cut short after its header")
    except (OSError, ValueError, EOFError, KeyError, IndexError, zlib.error, fastavro.schema.SchemaParseException) as error:
        raise BadInput(f"{name} is not a whole Avro container of alerts: {error}") from error
    return records


def check_packet(packet: bytes, candid: int) -> None:
    """Refuse what must not be published: all but one whole record of this candid in one of our schemas. Decoding it proves every type."""
    name = f"alert packet {candid}"
    version = next((one for one in alert_schema.VERSIONS if packet.startswith(_start(one))), None)
    try:
        if version is None:  # our schema perhaps, as another library writes it
            if to_parsing_canonical_form(fastavro.reader(io.BytesIO(packet)).writer_schema) not in map(_canonical, alert_schema.VERSIONS):
                raise ValueError(f"its schema is none of {', '.join(alert_schema.VERSIONS)}")
            found = [record["candid"] for record in read_packets(packet)]
        else:
            body = io.BytesIO(packet[len(_start(version)):])
            marker, (count, size) = body.read(16), (fastavro.schemaless_reader(body, "long") for _ in range(2))
            end = body.tell() + size
            found = [fastavro.schemaless_reader(body, _parsed(version), _CANDID)["candid"] for _ in range(count)]
            if body.tell() != end or body.read() != marker:
                raise ValueError("it is cut short, or more than a packet")
    except Exception as error:  # damaged bytes make the reader fail in many ways
        raise BadInput(f"{name} is not valid: {error}") from error
    if found != [candid]:
        raise BadInput(f"{name} holds {len(found)} records, of candid {', '.join(map(str, found))}")


_CANDID = fastavro.parse_schema({"type": "record", "name": "ztf.alert", "fields": [{"name": "candid", "type": "long"}]})


@lru_cache
def _start(version: str) -> bytes:
    """What every container of a schema begins with, before its sync marker."""
    stream = io.BytesIO()
    fastavro.writer(stream, _parsed(version), [], codec="null", sync_marker=bytes(16))
    return stream.getvalue()[:-16]


@lru_cache
def _canonical(version: str) -> str:
    return to_parsing_canonical_form(_parsed(version))


# --- cutouts --------------------------------------------------------------------------------------------------------------------

def encode_cutout(stamp: np.ndarray) -> bytes:
    """A stamp (ny, nx) [DN] as gzip-compressed FITS: float32, header SIMPLE BITPIX NAXIS NAXIS1 NAXIS2 BUNIT. NaN stays NaN."""
    data = np.ascontiguousarray(stamp, ">f4").tobytes()
    return gzip.compress(_stamp_header(*stamp.shape) + data + bytes(-len(data) % 2880), 6, mtime=0)


def decode_cutout(stamp_data: bytes) -> np.ndarray:
    """The stamp, float32 (ny, nx) [DN], smaller than 63 x 63 at an image edge; BadInput when the bytes are no such FITS image."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the first alerts wrote their SIMPLE card in a form of its own
            stamp = fits.getdata(io.BytesIO(gzip.decompress(stamp_data)), 0)
        if stamp.ndim != 2 or stamp.dtype != ">f4":
            raise ValueError(f"it holds {stamp.dtype} {stamp.shape}")
        return stamp.astype(np.float32)
    except Exception as error:  # damaged bytes make gzip, zlib and astropy fail in many ways
        raise BadInput(f"cutout is not a gzip-compressed float32 FITS image: {error}") from error


@lru_cache
def _stamp_header(ny: int, nx: int) -> bytes:
    """Made by hand-picked cards, since astropy's own primary header would add EXTEND to those that alerts have."""
    cards = (("SIMPLE", True), ("BITPIX", -32), ("NAXIS", 2), ("NAXIS1", nx), ("NAXIS2", ny), ("BUNIT", "DN"))
    return fits.Header(cards).tostring().encode("ascii")


# --- tarballs -------------------------------------------------------------------------------------------------------------------

def pack_alerts(path: Path, packets: Iterable[tuple[int, bytes]]) -> int:
    """Write alerts.tar.gz of (candid, packet) as members `<candid>.avro` in order of candid; returns how many."""
    packets = sorted(packets)
    with open(path, "wb") as file, gzip.GzipFile("", "wb", 6, file, mtime=0) as squeezed, \
            tarfile.open(fileobj=squeezed, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for candid, packet in packets:
            member = tarfile.TarInfo(f"{candid}.avro")
            member.size = len(packet)
            archive.addfile(member, io.BytesIO(packet))
    return len(packets)


def unpack_alerts(path: Path) -> Iterator[tuple[int, bytes]]:
    """(candid, packet) of every member of an alert tarball, in the file's order; BadInput when it is none."""
    try:
        with tarfile.open(path, "r:gz") as archive:
            for member in archive:
                yield int(member.name.rpartition("/")[2].removesuffix(".avro")), archive.extractfile(member).read()
    except (OSError, EOFError, tarfile.TarError, zlib.error, ValueError) as error:
        raise BadInput(f"{Path(path).name} is not a tarball of alert packets: {error}") from error
