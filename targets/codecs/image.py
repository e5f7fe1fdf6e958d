"""Image products: split quadrants, calibrated and science images, masks, masters, references, differences and stamps."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import fitsio
import numpy as np

from targets.codecs import fits
from ztfluigi.model import maskbits
from ztfluigi.model.errors import BadInput
from ztfluigi.model.header import Card, Header, plain
from ztfluigi.model.images import Calibrated, Coadd
from ztfluigi.model.psf import PsfModel
from ztfluigi.model.wcs import TpvWcs

Cards = Iterable[Card] | Mapping
"""A Header, cards, or a mapping keyword -> value or (value, comment)."""

_QUANTUM = 4.0
"""Steps of quantisation per sigma of noise in compressed differences (fpack's default): adds 0.3 % to the noise."""


# --- generic reading ------------------------------------------------------------------------------------------------------------

def read_pixels(path: Path, hdu: int | None = None) -> tuple[np.ndarray, Header]:
    """(array in the file's own type, native byte order; cards) of HDU `hdu`, or of the first that holds an image."""
    found = fits.scan(path)
    images = [number for number, item in enumerate(found) if item.image_shape]
    if not images or (hdu is not None and hdu not in images):
        raise BadInput(f"{Path(path).name} has images in HDUs {images}, expected one in {'any' if hdu is None else hdu}")
    hdu = images[0] if hdu is None else hdu
    return fits.read_data(path, hdu)[0], found[hdu].header


def read_image(path: Path, hdu: int | None = None) -> tuple[np.ndarray, Header]:
    """(float32 array [y, x], cards) of HDU `hdu`, or of the first that holds an image; undefined pixels are NaN."""
    data, header = read_pixels(path, hdu)
    return data.astype(np.float32, copy=False), header


def read_mask(path: Path, hdu: int | None = None) -> tuple[np.ndarray, Header]:
    """(uint16 array of mask bits, cards)."""
    data, header = read_pixels(path, hdu)
    if data.dtype.kind not in "iu":
        raise BadInput(f"{Path(path).name} holds {data.dtype} pixels, expected the integers of a mask")
    return (data.view(np.uint16) if data.dtype == np.int16 else data.astype(np.uint16)), header


def row_reader(paths: Sequence[Path]) -> Callable[[int, int, int], np.ndarray]:
    """`read_rows(i, y0, y1)` -> float32 (y1 - y0, nx) of the primary image of file `i`, read as asked for; BadInput when shapes differ."""
    shapes = [fits.image_shape(path) for path in paths]
    for path, shape in zip(paths, shapes, strict=True):
        if len(shape) != 2:
            raise BadInput(f"{Path(path).name} has no image in its primary HDU, expected one to stack")
        if shape != shapes[0]:
            raise BadInput(f"{Path(path).name} has shape {shape}, expected that of {Path(paths[0]).name} to stack them")

    def read_rows(i: int, y0: int, y1: int) -> np.ndarray:
        with fitsio.FITS(str(paths[i])) as file:
            return np.ascontiguousarray(file[0][max(y0, 0):min(y1, shapes[i][0]), :], np.float32)

    return read_rows


# --- single images --------------------------------------------------------------------------------------------------------------

def write_image(path: Path, data: np.ndarray, cards: Cards = ()) -> None:
    """One uncompressed image in the primary HDU; floats become float32. NaN stays NaN."""
    if data.dtype.kind == "f":
        data = data.astype(np.float32, copy=False)
    fits.write(path, [fits.image_hdu(data, cards)])


def write_split(path: Path, data: np.ndarray, cards: Cards, metrics: Mapping[str, object] | None = None) -> None:
    """A split quadrant, floating bias removed: float32 [DN], cards of the raw file, numbers of the overscan fit in card METRICS."""
    write_image(path, data, Header(cards).merged(_metrics(metrics or {})))


def write_science(path: Path, data: np.ndarray, cards: Cards) -> None:
    """sciimg.fits: float32 [DN], cards in order from `header_cards.science_cards`."""
    write_image(path, data, cards)


def write_mask(path: Path, mask: np.ndarray, cards: Cards = ()) -> None:
    """mskimg.fits and cmask.fits: int16 on read, the meaning of each bit in BITnn cards (which replace those in `cards`)."""
    bits = maskbits.bit_cards()
    body = Header(cards).without(key for key, _, _ in bits).cards
    fits.write(path, [fits.image_hdu(mask.astype(np.uint16, copy=False).view(np.int16), [*body, *bits])])


def write_stamp(path: Path, stamp: np.ndarray, cards: Cards = ()) -> None:
    """diffimgpsf.fits and sciimgdaopsfcent.fits: an odd-sized square PSF image in HDU 0, float32, scaled to unit sum."""
    write_image(path, _unit_sum(stamp), cards)


def _unit_sum(stamp: np.ndarray) -> np.ndarray:
    if stamp.ndim != 2 or stamp.shape[0] != stamp.shape[1] or stamp.shape[0] % 2 == 0:
        raise ValueError(f"a PSF stamp is square and of odd size, not {stamp.shape}")
    return (stamp / stamp.sum(dtype=float)).astype(np.float32)


def write_difference_psf(path: Path, stamp: np.ndarray, grid: np.ndarray, cards: Cards = ()) -> None:
    """diffimgpsf.fits: the PSF at the centre in HDU 0, as `write_stamp`; those of equal tiles, (rows, cols, n, n), in HDU 1, PSFGRID."""
    tiles = (grid / grid.sum(axis=(-2, -1), keepdims=True)).astype(np.float32)
    fits.write(path, [fits.image_hdu(_unit_sum(stamp), cards), fits.image_hdu(tiles, extname="PSFGRID")])


def read_difference_psf(path: Path) -> np.ndarray:
    """PSFs of the equal tiles of a difference image, float32 (rows, cols, n, n); (1, 1, n, n) where the file has one for the whole image."""
    try:
        with fitsio.FITS(str(path)) as file:
            grid = file["PSFGRID"].read() if "PSFGRID" in file else file[0].read()[None, None]
    except OSError as error:
        raise BadInput(f"{Path(path).name} cannot be read as a FITS file: {str(error).strip()}") from error
    return grid.astype(np.float32)


def write_difference(path: Path, data: np.ndarray, cards: Cards, *, noise: float | None = None) -> None:
    """scimrefdiffimg.fits.fz: Rice-compressed float in HDU 1, quantised to a quarter of `noise` [DN], by default measured.

    NaN is kept. The whole image has one step, so that bright galaxies cost space and never precision.
    """
    if noise is None:
        sample = data[:: max(data.shape[0] // 256, 1)]
        sample = sample[np.isfinite(sample)]
        noise = 1.4826 * float(np.median(np.abs(sample - np.median(sample)))) if sample.size else 1.0
    step = max(float(noise), 1e-6) / _QUANTUM
    fits.write(path, [fits.empty_hdu(), fits.compressed_hdu(data.astype(np.float32, copy=False), cards, step=step)])


# --- groups ---------------------------------------------------------------------------------------------------------------------

def write_calibrated(path: Path, image: Calibrated, cards: Cards) -> None:
    """A calibrated quadrant for the next steps: data, sigma and mask uncompressed in HDUs 0 to 2; gain, WCS and numbers as cards."""
    own = {"EFFGAIN": (image.gain, "gain after flat-fielding [electron/DN]"), "EFFRN": (image.read_noise, "read noise [electron]"),
           "SATURATE": (image.saturate, "saturation level [DN]"), **(image.wcs.cards() if image.wcs else {}), **_metrics(image.metrics)}
    body = Header(cards)
    if image.wcs:
        body = body.without(key for key in body if key.startswith(("PV1_", "PV2_")) and key not in own)
    fits.write(path, [fits.image_hdu(image.data.astype(np.float32, copy=False), body.merged(own)),
                      fits.image_hdu(image.sigma.astype(np.float32, copy=False), extname="SIGMA"),
                      fits.image_hdu(image.mask.astype(np.uint16, copy=False), extname="MASK")])


def read_calibrated(path: Path) -> tuple[Calibrated, Header]:
    """The quadrant that `write_calibrated` wrote, and its cards."""
    (data, header), (sigma, _), (mask, _) = read_image(path, 0), read_image(path, 1), read_mask(path, 2)
    wcs = TpvWcs.from_cards(header) if "CRVAL1" in header else None
    gain, read_noise, saturate = (_number(path, header, key) for key in ("EFFGAIN", "EFFRN", "SATURATE"))
    return Calibrated(data, sigma, mask, gain, read_noise, saturate, wcs, json.loads(header.get("METRICS", "{}"))), header


def write_master(stage: Mapping[str, Path], master, cards: Cards) -> None:
    """A bias or flat in four files.

    `image` and `uncertainty`: float32; `statistics`: clipped standard deviation, raw standard deviation and depth in HDUs 0 to 2;
    `mask`: bad pixels, int16.
    """
    body, stack = Header(cards), master.stack
    write_image(stage["image"], master.image, body)
    write_image(stage["uncertainty"], stack.uncertainty, body)
    fits.write(stage["statistics"], [fits.image_hdu(np.asarray(stack.std_clipped, np.float32), body.merged({"STATNAME": "STDCLIP"})),
                                     fits.image_hdu(np.asarray(stack.std_raw, np.float32), extname="STDRAW"),
                                     fits.image_hdu(np.asarray(stack.depth, np.int16), extname="DEPTH")])
    write_mask(stage["mask"], master.mask, body)


def write_reference(stage: Mapping[str, Path], coadd: Coadd, cards: Cards) -> None:
    """refimg.fits, refcov.fits (depth; the mask in HDU 1) and refunc.fits, under the roles `refimg`, `refcov`, `refunc`."""
    own = {**coadd.wcs.cards(), "MAGZP": (coadd.magzp, "Magnitude zero point [mag]"), "GAIN": (coadd.gain, "Gain e-/adu"),
           "SATURATE": (coadd.saturate, "Saturation value [DN]"),
           "NOISECOR": (coadd.noise_correlation, "noise of large sums over that of independent pixels"), **_metrics(coadd.metrics)}
    body = Header(cards).merged(own)
    bits = maskbits.bit_cards()
    depth = np.asarray(coadd.depth)
    write_image(stage["refimg"], coadd.data, body)
    write_image(stage["refunc"], coadd.sigma, body)
    fits.write(stage["refcov"], [fits.image_hdu(depth.astype(np.int16 if depth.dtype.kind in "iub" else np.float32, copy=False), body),
                                 fits.image_hdu(coadd.mask.astype(np.uint16, copy=False), bits, extname="MASK")])


def read_reference(paths: Mapping[str, Path], psf: PsfModel | None = None) -> tuple[Coadd, Header]:
    """The reference that `write_reference` wrote, and the cards of refimg.

    A public ZTF reference reads too: without HDU 1 in refcov the mask is empty, without NOISECOR pixels count as independent.
    """
    (data, header), (sigma, _), (depth, _) = read_image(paths["refimg"]), read_image(paths["refunc"]), read_pixels(paths["refcov"])
    if len(fits.scan(paths["refcov"])) > 1:
        mask, _ = read_mask(paths["refcov"], 1)
    else:
        mask = np.where(np.isfinite(data), 0, int(maskbits.Mask.NAN)).astype(np.uint16)
    number = lambda key, default=None: _number(paths["refimg"], header, key, default)  # noqa: E731
    return Coadd(data, sigma, depth, mask, TpvWcs.from_cards(header), number("MAGZP"), number("GAIN", 1.0), number("SATURATE", np.inf),
                 number("NOISECOR", 1.0), psf, json.loads(header.get("METRICS", "{}"))), header


def _metrics(metrics: Mapping[str, object]) -> dict:
    values = {key: plain(value) for key, value in metrics.items()}
    return {"METRICS": (json.dumps(values, sort_keys=True), "")} if values else {}


def _number(path: Path, header: Header, key: str, default: float | None = None) -> float:
    value = header.get(key)
    value = default if value is None else value
    if not isinstance(value, (int, float)):
        raise BadInput(f"{Path(path).name} has {key} = {value!r}, expected a number")
    return float(value)
