"""Stamps about places, cut from image files without reading more of them than needed."""

from __future__ import annotations

from pathlib import Path

import fitsio
import numpy as np

from ztfluigi.model.errors import BadInput
from ztfluigi.model.wcs import TpvWcs


def read_stamps(path: Path, x, y, half: int, *, hdu: int = 0) -> list[np.ndarray | None]:
    """For each zero-based place a float32 stamp (2 half + 1, 2 half + 1) about its nearest pixel, NaN beyond the image.

    None where the place is not on the image or not finite. Of an image in few wanted rows only these are decompressed. BadInput when the
    file cannot be read.
    """
    try:
        with fitsio.FITS(str(path)) as file:
            image = file[hdu]
            ny, nx = image.get_dims()
            with np.errstate(invalid="ignore"):
                column, row = (np.where(np.isfinite(place), np.rint(place), -1).astype(int) for place in (x, y))
            there = (column >= 0) & (column < nx) & (row >= 0) & (row < ny)
            wanted = np.unique(np.clip(row[there, None] + np.arange(-half, half + 1), 0, ny - 1))
            whole = image.read() if 2 * len(wanted) > ny else None
            return [_stamp(image, whole, int(i), int(j), half, (ny, nx)) if on else None for i, j, on in zip(column, row, there, strict=True)]
    except OSError as error:
        raise BadInput(f"{Path(path).name} cannot be read as a FITS image: {str(error).strip()}") from error


def _stamp(image, whole: np.ndarray | None, i: int, j: int, half: int, shape: tuple[int, int]) -> np.ndarray:
    stamp = np.full((2 * half + 1, 2 * half + 1), np.nan, np.float32)
    y0, y1, x0, x1 = max(j - half, 0), min(j + half + 1, shape[0]), max(i - half, 0), min(i + half + 1, shape[1])
    stamp[y0 - j + half:y1 - j + half, x0 - i + half:x1 - i + half] = whole[y0:y1, x0:x1] if whole is not None else image[y0:y1, x0:x1]
    return stamp


def read_wcs(path: Path, *, hdu: int = 0) -> tuple[TpvWcs, float, tuple[int, int]]:
    """(WCS, GAIN [electron/DN], shape) of an image; BadInput when it says none."""
    try:
        with fitsio.FITS(str(path)) as file:
            header, shape = file[hdu].read_header(), tuple(file[hdu].get_dims())
        return TpvWcs.from_cards({key: header[key] for key in header.keys() if key}), float(header["GAIN"]), shape
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise BadInput(f"{Path(path).name} has no usable WCS and GAIN in HDU {hdu}: {str(error).strip()}") from error
