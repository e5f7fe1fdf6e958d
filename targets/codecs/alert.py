"""Alert packets: one Avro container each (codec null, schema embedded), their cutouts, and the per-quadrant tarball.

Equal records give equal bytes: the container's sync marker follows from the candid, gzip and tar carry no time.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import sys
import tarfile
import warnings
import zlib
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import fastavro
import numpy as np
from astropy.io import fits
from fastavro.schema import to_parsing_canonical_form
from isal import igzip, isal_zlib

from ztfluigi.model import alert_schema
from ztfluigi.model.errors import BadInput, Transient


FLOAT32_MAX = float(np.finfo(np.float32).max)


# --- packets --------------------------------------------------------------------------------------------------------------------

def write_packet(record: Mapping) -> bytes:
    """One record as a complete Avro container, in the schema its `schemavsn` names.

    Raises BadInput with the field's name when a value is missing, unknown, of the wrong type or not finite.
    """
    version = alert_schema.check_version(record.get("schemavsn", ""))
    schema = _parsed(version)
    if problem := _problem(record, _rules(version)):
        raise BadInput(f"alert packet {record.get('candid')} of schema {version}: {problem}")
    # what is checked here need not be searched in unions by the writer
    tagged = {name: ("array", value) if isinstance(value, list) else value for name, value in record.items()}
    stream = io.BytesIO()
    fastavro.schemaless_writer(stream, schema, tagged)
    body = stream.getvalue()
    marker = hashlib.md5(str(record["candid"]).encode(), usedforsecurity=False).digest()
    return b"".join((_start(version), marker, _varint(1), _varint(len(body)), body, marker))


class _Rule(NamedTuple):
    """What a field's value must be: a Python type, for numbers between bounds; `fields` of a record or of an array's records."""

    name: str
    wanted: str
    nullable: bool
    kind: type
    low: float | None
    high: float | None
    fields: tuple[_Rule, ...]


_KINDS = {"double": (float, -sys.float_info.max, sys.float_info.max), "float": (float, -FLOAT32_MAX, FLOAT32_MAX), "int": (int, -2**31, 2**31 - 1),
          "long": (int, -2**63, 2**63 - 1), "string": (str, None, None), "bytes": (bytes, None, None)}


def _problem(record: Mapping, rules: tuple[_Rule, ...], path: str = "") -> str | None:
    """The first field that is not as the schema has it, with what it is and what was expected; None when all are."""
    if type(record) is not dict:
        return f"{path.rstrip('.')} is {record!r:.40}, expected a record"
    for name, wanted, nullable, kind, low, high, fields in rules:
        value = record.get(name, _Rule)
        if value is None:
            if nullable:
                continue
            return f"field {path}{name} is null, expected {wanted}"
        if type(value) is not kind:
            return f"field {path}{name} is " + ("missing" if value is _Rule else f"{value!r:.40}, expected {wanted}")
        if low is not None and not low <= value <= high:
            return f"field {path}{name} is {value}, expected a finite {wanted} in its range"
        if fields:
            for place, one in ((f"{path}{name}.", value),) if kind is dict else ((f"{path}{name}[{n}].", one) for n, one in enumerate(value)):
                if problem := _problem(one, fields, place):
                    return problem
    if len(record) != len(rules):
        return f"field {path}{next(name for name in record if name not in {rule.name for rule in rules})} is not in the schema"
    return None


@lru_cache
def _rules(version: str) -> tuple[_Rule, ...]:
    """The rules of a schema, made from the schema itself."""
    named: dict[str, tuple[_Rule, ...]] = {}

    def of_record(schema: dict) -> tuple[_Rule, ...]:
        named[schema["name"]] = tuple(of_field(field["name"], field["type"]) for field in schema["fields"])
        return named[schema["name"]]

    def of_field(name: str, kind) -> _Rule:
        nullable = isinstance(kind, list)
        kind = next(one for one in kind if one != "null") if nullable else kind
        if isinstance(kind, str) and kind in _KINDS:
            return _Rule(name, kind, nullable, *_KINDS[kind], ())
        if isinstance(kind, dict) and kind["type"] == "array":
            return _Rule(name, "array", nullable, list, None, None, of_record(kind["items"]))
        return _Rule(name, "record", nullable, dict, None, None, named[kind] if isinstance(kind, str) else of_record(kind))

    return of_record(alert_schema.schema(version))


def _varint(number: int) -> bytes:
    """A number that is not negative, as Avro writes it: doubled, seven bits a byte, low ones first."""
    number, out = 2 * number, bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes((*out, number))


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
    return igzip.compress(_stamp_header(*stamp.shape) + data + bytes(-len(data) % 2880), 1, mtime=0)


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
    """Write a tarball of (candid, packet) as members `<candid>.avro`, in the order and as they come; returns how many.

    Raises Transient where the disk takes no more; nothing is then left of the file.
    """
    count = 0
    try:
        with open(path, "wb") as file, igzip.IGzipFile("", "wb", 2, file, mtime=0) as squeezed, \
                tarfile.open(fileobj=squeezed, mode="w", format=tarfile.USTAR_FORMAT) as archive:
            for candid, packet in packets:
                member = tarfile.TarInfo(f"{candid}.avro")
                member.size = len(packet)
                archive.addfile(member, io.BytesIO(packet))
                count += 1
    except OSError as error:
        Path(path).unlink(missing_ok=True)
        raise Transient(f"{Path(path).name} cannot be written: {error.strerror or error}") from error
    return count


def unpack_alerts(path: Path) -> Iterator[tuple[int, bytes]]:
    """(candid, packet) of every member of an alert tarball, in the file's order; BadInput when it is none."""
    try:
        with igzip.open(path, "rb") as squeezed, tarfile.open(fileobj=squeezed, mode="r:") as archive:
            for member in archive:
                yield int(member.name.rpartition("/")[2].removesuffix(".avro")), archive.extractfile(member).read()
    except (OSError, EOFError, tarfile.TarError, zlib.error, isal_zlib.error, ValueError) as error:
        raise BadInput(f"{Path(path).name} is not a tarball of alert packets: {error}") from error
