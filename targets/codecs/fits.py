"""FITS at the level of HDUs: headers, checksums, images, tables and Rice compression, byte for byte the same for the same input.

Written here rather than through cfitsio because cfitsio stamps the time of day into CHECKSUM comments and adds cards of its own.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import fitsio
import numpy as np
from astropy.io.fits import Card as AstropyCard
from astropy.io.fits import Header as AstropyHeader
from astropy.io.fits.card import Undefined
from astropy.io.fits.verify import VerifyError

from ztfluigi.model.columns import Column
from ztfluigi.model.errors import BadInput
from ztfluigi.model.header import Card, Header

BLOCK = 2880
_CHUNK = 1 << 22
_STRUCTURAL = re.compile(
    r"SIMPLE|XTENSION|BITPIX|NAXIS\d*|EXTEND|PCOUNT|GCOUNT|TFIELDS|BZERO|BSCALE|BLANK|CHECKSUM|DATASUM|THEAP|"
    r"ZIMAGE|ZSIMPLE|ZTENSION|ZEXTEND|ZBITPIX|ZNAXIS\d*|ZPCOUNT|ZGCOUNT|ZTILE\d+|ZCMPTYPE|ZNAME\d+|ZVAL\d+|ZQUANTIZ|ZDITHER0|ZBLANK|"
    r"ZMASKCMP|ZHECKSUM|ZDATASUM|ZBLOCKED|(TTYPE|TFORM|TUNIT|TDIM|TNULL|TSCAL|TZERO|TDISP)\d+")
_BOILERPLATE = ("FITS (Flexible Image Transport System)", "and Astrophysics', volume 376")
_TFORM = {"b1": "L", "u1": "B", "i2": "I", "i4": "J", "i8": "K", "f4": "E", "f8": "D"}
_TZERO = {"u2": 1 << 15, "u4": 1 << 31}
_BITPIX = {"u1": 8, "i2": 16, "u2": 16, "i4": 32, "f4": -32, "f8": -64}


@dataclass(frozen=True)
class Extension:
    """Where one HDU lies in a file, and all its cards."""

    header_start: int
    data_start: int
    data_size: int
    header: Header

    @property
    def end(self) -> int:
        return self.data_start + -(-self.data_size // BLOCK) * BLOCK

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Shape of the image, decompressed; () without one."""
        letter = "Z" if self.header.get("ZIMAGE") else ""
        if not letter and self.header.get("XTENSION", "IMAGE").strip() != "IMAGE":
            return ()
        return tuple(self.header.get(f"{letter}NAXIS{n}", 0) for n in range(self.header.get(f"{letter}NAXIS", 0), 0, -1))


def scan(path: Path) -> list[Extension]:
    """Every HDU of a file from its headers; BadInput when the file is missing, is no FITS file or ends too early."""
    try:
        with open(path, "rb") as stream:
            size = stream.seek(0, 2)
            found, start = [], 0
            while start < size:
                stream.seek(start)
                found.append(_read_extension(stream, path, start))
                start = found[-1].end
                if start > size:
                    raise BadInput(f"{Path(path).name} is cut short: HDU {len(found) - 1} ends at byte {start}, the file at {size}")
    except OSError as error:
        raise BadInput(f"{Path(path).name} cannot be read: {error.strerror}") from error
    if not found:
        raise BadInput(f"{Path(path).name} is empty, expected a FITS file")
    return found


def _read_extension(stream, path: Path, start: int) -> Extension:
    text = b""
    while True:
        block = stream.read(BLOCK)
        if len(block) < BLOCK or (not text and not block.startswith((b"SIMPLE  =", b"XTENSION="))):
            raise BadInput(f"{Path(path).name} is not a whole FITS file: no header at byte {start}")
        text += block
        ends = [n for n in range(len(text) - BLOCK, len(text), 80) if text[n:n + 8] == b"END     "]
        if ends:
            break
    try:
        header = _parse(text[:ends[0]].decode("ascii"))
        shape = [header[f"NAXIS{n + 1}"] for n in range(header["NAXIS"])]
        elements = int(np.prod(shape, dtype=np.int64)) if shape else 0
        size = abs(header["BITPIX"]) // 8 * header.get("GCOUNT", 1) * (header.get("PCOUNT", 0) + elements)
        if size < 0 or min(shape, default=0) < 0:
            raise ValueError(f"shape {shape}")
    except (KeyError, ValueError, TypeError, UnicodeDecodeError, VerifyError) as error:
        raise BadInput(f"{Path(path).name} has a header that is not FITS at byte {start}: {error!r}") from error
    return Extension(start, start + len(text), size, header)


def _parse(text: str) -> Header:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what astropy can mend in a card it mends
        parsed = AstropyHeader.fromstring(text)
        return Header([(card.keyword, None if isinstance(card.value, Undefined) else card.value, card.comment) for card in parsed.cards])


def user_header(*headers: Header) -> Header:
    """Headers one after the other without the cards that only describe how the file stores its data; the first of a keyword wins."""
    cards, seen = [], set()
    for header in headers:
        for key, value, comment in header.cards:
            if _STRUCTURAL.fullmatch(key) or key in seen or (key == "COMMENT" and str(value).lstrip().startswith(_BOILERPLATE)):
                continue
            if key not in ("COMMENT", "HISTORY", ""):
                seen.add(key)
            cards.append((key, value, comment))
    return Header(cards)


def read_header(path: Path, hdu: int = 0) -> Header:
    """Cards of one HDU, structural ones left out; BadInput when there is no such HDU."""
    found = scan(path)
    if hdu >= len(found):
        raise BadInput(f"{Path(path).name} has {len(found)} HDUs, expected one numbered {hdu}")
    return user_header(found[hdu].header)


# --- checksums (FITS standard 4.0, 4.4.2.7 and appendix J) -------------------------------------------------------------------

def _sum32(data: bytes | memoryview | np.ndarray, total: int = 0) -> int:
    """Ones'-complement sum of big-endian 32-bit words; a short last word is filled with zeros."""
    raw = np.frombuffer(data, np.uint8) if len(data) else np.empty(0, np.uint8)
    for start in range(0, len(raw), _CHUNK):
        piece = raw[start:start + _CHUNK]
        if len(piece) % 4:
            piece = np.pad(piece, (0, -len(piece) % 4))
        total += int(piece.view("<u4").byteswap().sum(dtype=np.uint64))
    while total >> 32:
        total = (total & 0xFFFFFFFF) + (total >> 32)
    return total


def _encode(checksum: int) -> str:
    """The complement of a 32-bit sum as sixteen ASCII letters and digits."""
    letters = np.zeros((4, 4), int)
    for place, byte in enumerate((0xFFFFFFFF - checksum).to_bytes(4, "big")):
        letters[:, place] = byte // 4 + ord("0")
        letters[0, place] += byte % 4
    punctuation = [*range(0x3A, 0x41), *range(0x5B, 0x61)]
    while np.isin(letters, punctuation).any():
        for pair in (slice(0, 2), slice(2, 4)):
            for place in range(4):
                if np.isin(letters[pair, place], punctuation).any():
                    letters[pair, place] += (1, -1)
    text = "".join(chr(code) for code in letters.ravel())
    return text[-1] + text[:-1]


def checksum_problem(path: Path, extensions: Sequence[Extension]) -> str | None:
    """The first CHECKSUM or DATASUM that is missing or wrong, as half a sentence; None when all are right."""
    with open(path, "rb") as stream:
        for number, hdu in enumerate(extensions):
            for key in ("CHECKSUM", "DATASUM"):
                if hdu.header.get(key) is None:
                    return f"HDU {number} has no {key}"
            stream.seek(hdu.header_start)
            head = _sum32(stream.read(hdu.data_start - hdu.header_start))
            data = 0
            for start in range(hdu.data_start, hdu.end, _CHUNK):
                data = _sum32(stream.read(min(_CHUNK, hdu.end - start)), data)
            stated = str(hdu.header["DATASUM"]).strip()
            if not stated.isdigit() or int(stated) != data:
                return f"DATASUM of HDU {number} is {stated}, its data give {data}"
            if _sum32(b"", head + data) not in (0, 0xFFFFFFFF):
                return f"CHECKSUM of HDU {number} does not match its content"
    return None


# --- writing --------------------------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Hdu:
    """One HDU to write: structural cards, the user's cards and big-endian data."""

    structure: list[Card]
    cards: list[Card]
    data: np.ndarray | bytes


def empty_hdu(cards: Iterable[Card] | Mapping = ()) -> Hdu:
    """A primary HDU without data."""
    return Hdu([("BITPIX", 8, "array data type"), ("NAXIS", 0, "number of array dimensions")], Header(cards).cards, b"")


def image_hdu(data: np.ndarray, cards: Iterable[Card] | Mapping = (), *, extname: str | None = None) -> Hdu:
    """An image; uint16 is stored as int16 with BZERO."""
    kind = data.dtype.str[1:]
    if kind not in _BITPIX:
        raise ValueError(f"FITS images cannot hold {data.dtype}")
    structure = [("BITPIX", _BITPIX[kind], "array data type"), ("NAXIS", data.ndim, "number of array dimensions"),
                 *((f"NAXIS{n + 1}", size, "") for n, size in enumerate(reversed(data.shape)))]
    if kind == "u2":
        data = (data ^ np.uint16(0x8000)).view(np.int16)
        structure += [("BSCALE", 1, ""), ("BZERO", 32768, "")]
    return Hdu(structure, _named(extname, cards), np.ascontiguousarray(data, data.dtype.newbyteorder(">")))


def table_hdu(table: np.ndarray, cards: Iterable[Card] | Mapping = (), *, columns: Sequence[Column] = (),
              extname: str | None = None) -> Hdu:
    """A binary table from a structured array; units come from the columns of the same names."""
    units = {column.name: column.unit for column in columns}
    fields, stored = [], []
    for number, name in enumerate(table.dtype.names, 1):
        values = _storable(name, table[name])
        count = int(np.prod(values.shape[1:], dtype=int))
        letter = "L" if table.dtype[name].base.kind == "b" else "A" if values.dtype.kind == "S" else _TFORM[values.dtype.str[1:]]
        count *= values.dtype.itemsize if letter == "A" else 1
        fields += [(f"TTYPE{number}", name, ""), (f"TFORM{number}", f"{count}{letter}", "")]
        if units.get(name):
            fields.append((f"TUNIT{number}", units[name], ""))
        if table.dtype[name].base.str[1:] in _TZERO:
            fields += [(f"TSCAL{number}", 1, ""), (f"TZERO{number}", _TZERO[table.dtype[name].base.str[1:]], "")]
        stored.append((name, values))
    dtype = np.dtype([(name, values.dtype.newbyteorder(">"), values.shape[1:]) for name, values in stored])
    rows = np.zeros(len(table), dtype)
    for name, values in stored:
        rows[name] = values
    structure = [("BITPIX", 8, "array data type"), ("NAXIS", 2, "number of array dimensions"), ("NAXIS1", dtype.itemsize, "bytes in a row"),
                 ("NAXIS2", len(table), "rows"), ("PCOUNT", 0, "number of group parameters"), ("GCOUNT", 1, "number of groups"),
                 ("TFIELDS", len(stored), "columns"), *fields]
    return Hdu(structure, _named(extname, cards), rows)


def _storable(name: str, values: np.ndarray) -> np.ndarray:
    """A column in a type that FITS has: logicals as T and F, text as ASCII, unsigned integers shifted by TZERO."""
    kind = values.dtype.str[1:]
    if values.dtype.kind == "b":
        return np.where(values, b"T", b"F")
    if values.dtype.kind == "U":
        return values.astype(f"S{max(values.dtype.itemsize // 4, 1)}")
    if kind in _TZERO:
        return (values - values.dtype.type(_TZERO[kind])).view(f"i{kind[1]}")
    if values.dtype.kind != "S" and kind not in _TFORM:
        raise ValueError(f"FITS tables cannot hold column {name} of type {values.dtype}")
    return values


def compressed_hdu(data: np.ndarray, cards: Iterable[Card] | Mapping = (), *, extname: str | None = None, step: float | None = None) -> Hdu:
    """A Rice tile-compressed image: lossless for integers; floats are quantised to `step` with subtractive dither (NaN is kept)."""
    options = {"compress": "RICE", "qlevel": None}
    if data.dtype.kind == "f":
        options |= {"qlevel": -float(step), "qmethod": "SUBTRACTIVE_DITHER_1", "dither_seed": 1}
    with fitsio.FITS("mem://", "rw") as memory:
        memory.write(data, **options)
        raw = memory.read_raw()
    start = BLOCK  # the empty primary
    end = start
    while not any(raw[n:n + 8] == b"END     " for n in range(end, end + BLOCK, 80)):
        end += BLOCK
    end += BLOCK
    made = AstropyHeader.fromstring(raw[start:end].decode("ascii"))
    structure = [(card.keyword, card.value, card.comment) for card in made.cards
                 if card.keyword not in ("XTENSION", "EXTNAME", "COMMENT", "CHECKSUM", "DATASUM")]
    size = made["NAXIS1"] * made["NAXIS2"] + made["PCOUNT"]
    return Hdu(structure, _named(extname, cards), raw[end:end + size])


def _named(extname: str | None, cards) -> list[Card]:
    cards = Header(cards).cards
    return cards if extname is None else [("EXTNAME", extname, ""), *(card for card in cards if card[0] != "EXTNAME")]


def write(path: Path, hdus: Sequence[Hdu]) -> None:
    """Write HDUs with CHECKSUM and DATASUM; a card whose value is None (not measured) is left out."""
    with open(path, "wb") as stream:
        for number, hdu in enumerate(hdus):
            data = memoryview(np.ascontiguousarray(hdu.data).reshape(-1).view(np.uint8)) if isinstance(hdu.data, np.ndarray) else hdu.data
            datasum = _sum32(data)
            first = ("XTENSION", _xtension(hdu), "extension type") if number else ("SIMPLE", True, "conforms to FITS standard")
            extend = [("EXTEND", True, "")] if number == 0 and len(hdus) > 1 else []
            cards = [first, *hdu.structure[:2], *(c for c in hdu.structure[2:] if c[0].startswith("NAXIS")), *_groups(hdu, number), *extend,
                     *(c for c in hdu.structure[2:] if not c[0].startswith("NAXIS") and c[0] not in ("PCOUNT", "GCOUNT")), *hdu.cards]
            head = _serialise([*cards, ("CHECKSUM", "0" * 16, "HDU checksum"), ("DATASUM", str(datasum), "data unit checksum")])
            place = head.index(b"CHECKSUM= '0000000000000000'") + 11
            stream.write(head[:place] + _encode(_sum32(head, datasum)).encode() + head[place + 16:])
            stream.write(data)
            stream.write(b"\0" * (-len(data) % BLOCK))


def _groups(hdu: Hdu, number: int) -> list[Card]:
    return [c for c in hdu.structure if c[0] in ("PCOUNT", "GCOUNT")] or ([("PCOUNT", 0, ""), ("GCOUNT", 1, "")] if number else [])


def _xtension(hdu: Hdu) -> str:
    return "BINTABLE" if any(key == "TFIELDS" for key, _, _ in hdu.structure) else "IMAGE"


def _serialise(cards: Iterable[Card]) -> bytes:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a comment that does not fit on its card is cut
        text = "".join(str(AstropyCard(key if len(key) <= 8 else f"HIERARCH {key}", value, comment))
                       for key, value, comment in cards if value is not None)
    text += "END".ljust(80)
    return text.ljust(-(-len(text) // BLOCK) * BLOCK).encode("ascii")
