"""FITS files through astropy.io.fits (headers, tables, compression, checksums) and fitsio (pixels); no file of ours carries a time of day,
so that the same input gives the same bytes."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import fitsio
import numpy as np
from astropy.io import fits as astropy_fits
from astropy.io.fits.card import Undefined

from ztfluigi.model.columns import Column
from ztfluigi.model.errors import BadInput
from ztfluigi.model.header import Card, Header

Hdu = astropy_fits.PrimaryHDU | astropy_fits.ImageHDU | astropy_fits.BinTableHDU
Cards = Iterable[Card] | Mapping

_STORAGE = ("CHECKSUM", "DATASUM", "BLANK", "GROUPS")
"""Cards that describe how a file stores its data, besides those that astropy strips itself."""
_BOILERPLATE = ("FITS (Flexible Image Transport System)", "and Astrophysics', volume 376")


@contextmanager
def _quiet() -> Iterator[None]:
    """No warnings: astropy mends cards as it reads, cuts a comment that does not fit and turns long keywords into HIERARCH."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


# --- reading --------------------------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Extension:
    """Where one HDU lies in a file, the shape of its image, decompressed (() without one), and the cards that say something of the data."""

    header_start: int
    data_start: int
    data_size: int
    image_shape: tuple[int, ...]
    is_table: bool
    header: Header

    @property
    def end(self) -> int:
        return self.data_start + self.data_size


def scan(path: Path) -> list[Extension]:
    """Every HDU of a file from its headers; BadInput when the file is missing, is no FITS file or does not end where its last HDU does."""
    name = Path(path).name
    try:
        size = Path(path).stat().st_size
        # a stream of ours, since astropy leaves its own open after an error
        with _quiet(), open(path, "rb") as stream, astropy_fits.open(stream, lazy_load_hdus=False) as hdus:
            found = [_extension(hdu) for hdu in hdus]
    except OSError as error:
        raise BadInput(f"{name} cannot be read as a FITS file: {error.strerror or error}") from error
    except Exception as error:  # a damaged header makes astropy fail anywhere
        raise BadInput(f"{name} has a header that is not FITS: {error!r}") from error
    if found[-1].end > size:
        raise BadInput(f"{name} is cut short: HDU {len(found) - 1} ends at byte {found[-1].end}, the file at {size}")
    if found[-1].end < size:
        raise BadInput(f"{name} is not a whole FITS file: no header at byte {found[-1].end}")
    return found


def _extension(hdu) -> Extension:
    place = hdu.fileinfo()
    shape = tuple(hdu.shape) if hdu.is_image else ()
    return Extension(place["hdrLoc"], place["datLoc"], place["datSpan"], shape, isinstance(hdu, astropy_fits.BinTableHDU),
                     _plain(hdu.header))


def _plain(header: astropy_fits.Header) -> Header:
    cards = [(card.keyword, None if isinstance(card.value, Undefined) else card.value, card.comment)
             for card in header.copy(strip=True).cards if card.keyword not in _STORAGE]
    return Header([card for card in cards if card[0] != "COMMENT" or not str(card[1]).lstrip().startswith(_BOILERPLATE)])


def joined(*headers: Header) -> Header:
    """Headers one after the other; the first of a keyword wins."""
    whole = Header()
    for header in headers:
        whole = Header([*whole.cards, *header.without(whole).cards])
    return whole


def read_header(path: Path, hdu: int = 0) -> Header:
    """Cards of one HDU, structural ones left out; BadInput when there is no such HDU."""
    found = scan(path)
    if hdu >= len(found):
        raise BadInput(f"{Path(path).name} has {len(found)} HDUs, expected one numbered {hdu}")
    return found[hdu].header


def read_data(path: Path, *hdus: int) -> list[np.ndarray]:
    """Images or tables of some HDUs, decompressed, in the file's own types and native byte order; BadInput when they cannot be read."""
    data = []
    try:
        with fitsio.FITS(str(path)) as file:
            for number in hdus:
                hdu = file[number]
                empty = isinstance(hdu, fitsio.hdu.TableHDU) and not hdu.get_nrows()
                data.append(np.zeros(0, hdu.get_rec_dtype()[0]) if empty else hdu.read())
    except OSError as error:
        raise BadInput(f"{Path(path).name}: the data of HDU {number} cannot be read: {error}") from error
    return [array.astype(array.dtype.newbyteorder("="), copy=False) for array in data]


def image_shape(path: Path, hdu: int = 0) -> tuple[int, ...]:
    """Shape of the image in one HDU, () without one, by a quick look; BadInput when the file is no FITS file."""
    try:
        with fitsio.FITS(str(path)) as file:
            return tuple(file[hdu].get_dims()) if isinstance(file[hdu], fitsio.hdu.ImageHDU) and file[hdu].has_data() else ()
    except OSError as error:
        raise BadInput(f"{Path(path).name} cannot be read as a FITS file: {str(error).strip()}") from error


def checksum_problem(path: Path, extensions: Sequence[Extension]) -> str | None:
    """The first CHECKSUM or DATASUM that is missing or wrong, as half a sentence; None when all are right."""
    number = 0
    try:
        with fitsio.FITS(str(path)) as file:  # sums the bytes of the file, where astropy sums the header as it would write it
            for number in range(len(extensions)):
                stated = file[number].read_header()
                missing = [key for key in ("CHECKSUM", "DATASUM") if key not in stated]
                if missing:
                    return f"HDU {number} has no {missing[0]}"
                file[number].verify_checksum()
    except (OSError, ValueError) as error:
        return f"HDU {number} does not match its CHECKSUM and DATASUM ({str(error).strip()})"
    return None


# --- writing --------------------------------------------------------------------------------------------------------------------

def empty_hdu(cards: Cards = ()) -> Hdu:
    """A primary HDU without data."""
    return astropy_fits.PrimaryHDU(header=_header(cards))


def image_hdu(data: np.ndarray, cards: Cards = (), *, extname: str | None = None) -> Hdu:
    """An image; uint16 is stored as int16 with BZERO."""
    stored = data if data.dtype.kind == "u" else data.astype(data.dtype.newbyteorder(">"))  # else astropy swaps bytes in the caller's array
    return astropy_fits.ImageHDU(stored, _header(cards), name=extname)


def table_hdu(table: np.ndarray, cards: Cards = (), *, columns: Sequence[Column] = (), extname: str | None = None) -> Hdu:
    """A binary table from a structured array; units come from the columns of the same names."""
    stored, units = astropy_fits.ColDefs(table), {column.name: column.unit for column in columns}
    for column in stored:
        column.unit = units.get(column.name) or None
    return astropy_fits.BinTableHDU.from_columns(stored, _header(cards), name=extname, uint=True)


def compressed_hdu(data: np.ndarray, cards: Cards = (), *, extname: str | None = None, step: float | None = None) -> Hdu:
    """A Rice tile-compressed image: lossless for integers; floats are quantised to `step` with subtractive dither (NaN is kept)."""
    options = {"quantize_level": -float(step), "quantize_method": 1, "dither_seed": 1} if data.dtype.kind == "f" else {}
    memory = io.BytesIO()
    # bands of rows: astropy spends its time per tile, and a tile of one row is a few microseconds of work
    tiles = (min(data.shape[0], 32), data.shape[1])
    with _quiet():
        image = astropy_fits.CompImageHDU(data, _header(cards), name=extname, compression_type="RICE_1", tile_shape=tiles, **options)
        astropy_fits.HDUList([astropy_fits.PrimaryHDU(), image]).writeto(memory)
    table = astropy_fits.HDUList.fromstring(memory.getvalue(), disable_image_compression=True)[1]  # as a table it can be given checksums
    if extname is None:
        del table.header["EXTNAME"]  # astropy puts a name of its own
    return table


def write(path: Path, hdus: Sequence[Hdu]) -> None:
    """Write HDUs with CHECKSUM and DATASUM."""
    file = astropy_fits.HDUList()
    for hdu in hdus:
        file.append(hdu)
    with _quiet():
        for hdu in file:
            hdu.add_datasum(when="data unit checksum")
            hdu.add_checksum(when="HDU checksum", override_datasum=True)
        file.writeto(path, overwrite=True)


def _header(cards: Cards) -> astropy_fits.Header:
    """Cards for astropy; one whose value is None (not measured) is left out."""
    with _quiet():
        return astropy_fits.Header([astropy_fits.Card(*card) for card in Header(cards).cards if card[1] is not None])
