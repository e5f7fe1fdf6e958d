"""Alert packets: one Avro container each (codec null, schema embedded), their cutouts, and the per-quadrant tarball.

Equal records give equal bytes: the container's sync marker follows from the content, gzip and tar carry no time.
"""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path

import fastavro
import numpy as np

from targets.codecs.avro import RecordCodec
from ztfluigi.model import alert_schema
from ztfluigi.model.errors import BadInput

_GZIP_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\x03"
_FITS_BLOCK = 2880


# --- packets --------------------------------------------------------------------------------------------------------------------

def write_packet(record: Mapping) -> bytes:
    """One record as a complete Avro container, in the schema its `schemavsn` names.

    Raises BadInput with the field's name when a value is missing, unknown, of the wrong type, not finite, or does not come back as
    written.
    """
    version = alert_schema.check_version(record.get("schemavsn", ""))
    codec, parsed = _codec(version)
    try:
        datum = codec.encode(record)
    except BadInput as problem:
        raise BadInput(f"alert packet {record.get('candid')} of schema {version}: {problem.reason}") from problem
    if codec.encode(fastavro.schemaless_reader(io.BytesIO(datum), parsed)) != datum:
        raise BadInput(f"alert packet {record['candid']} does not read back as written")
    return codec.container(datum)


def read_packets(source: bytes | str | Path) -> list[dict]:
    """All records of an Avro container, from bytes or a file, of any version of the schema; BadInput when it is none."""
    name = "alert packet" if isinstance(source, bytes) else Path(source).name
    try:
        content = source if isinstance(source, bytes) else Path(source).read_bytes()
        reader = fastavro.reader(io.BytesIO(content))
        records = list(reader)
        if not records or content[-16:] != reader._header["sync"]:  # fastavro takes a cut container for a shorter one
            raise ValueError(f"it is cut short after {len(records)} records")
    except (OSError, ValueError, EOFError, KeyError, IndexError, zlib.error, fastavro.schema.SchemaParseException) as error:
        raise BadInput(f"{name} is not a whole Avro container of alerts: {error}") from error
    return records


@lru_cache
def _codec(version: str) -> tuple[RecordCodec, dict]:
    raw = alert_schema.schema(version)
    return RecordCodec(raw), fastavro.parse_schema(raw)


# --- cutouts --------------------------------------------------------------------------------------------------------------------

def encode_cutout(stamp: np.ndarray) -> bytes:
    """A stamp (ny, nx) [DN] as gzip-compressed FITS: float32, header SIMPLE BITPIX NAXIS NAXIS1 NAXIS2 BUNIT. NaN stays NaN."""
    ny, nx = stamp.shape
    data = np.ascontiguousarray(stamp, ">f4").tobytes()
    plain = _stamp_header(nx, ny) + data + bytes(-len(data) % _FITS_BLOCK)
    squeeze = zlib.compressobj(6, zlib.DEFLATED, -15)
    return b"".join((_GZIP_HEADER, squeeze.compress(plain), squeeze.flush(), struct.pack("<II", zlib.crc32(plain), len(plain))))


def decode_cutout(stamp_data: bytes) -> np.ndarray:
    """The stamp, float32 (ny, nx) [DN], smaller than 63 x 63 at an image edge; BadInput when the bytes are no such FITS image."""
    try:
        plain = gzip.decompress(stamp_data)
        cards = {}
        for start in range(0, _FITS_BLOCK, 80):
            card = plain[start:start + 80].decode("ascii")
            if card.startswith("END"):
                break
            cards[card[:8].strip()] = card[10:].split("/")[0].strip()
        if (cards["BITPIX"], cards["NAXIS"]) != ("-32", "2"):
            raise ValueError(f"BITPIX {cards['BITPIX']}, NAXIS {cards['NAXIS']}")
        shape = int(cards["NAXIS2"]), int(cards["NAXIS1"])
        return np.frombuffer(plain, ">f4", shape[0] * shape[1], _FITS_BLOCK).reshape(shape).astype(np.float32)
    except (OSError, EOFError, KeyError, ValueError, zlib.error) as error:
        raise BadInput(f"cutout is not a gzip-compressed float32 FITS image: {error}") from error


@lru_cache
def _stamp_header(nx: int, ny: int) -> bytes:
    cards = (("SIMPLE", "T"), ("BITPIX", "-32"), ("NAXIS", "2"), ("NAXIS1", str(nx)), ("NAXIS2", str(ny)))
    text = "".join(f"{key:8s}= {value:>20s}".ljust(80) for key, value in cards) + "BUNIT   = 'DN      '".ljust(80) + "END"
    return text.ljust(_FITS_BLOCK).encode("ascii")


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
