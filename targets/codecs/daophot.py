"""PSF models on disk: DAOPhot's look-up-table text (sciimgdao.psf) for the archive, and a lossless FITS form for the next steps.

The text holds a pixel-integrated Gaussian plus three tables of residuals sampled every half pixel (constant, linear in x, linear in y): a
model of higher degree is projected onto those three by least squares over the quadrant, so its curvature is lost.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.ndimage import map_coordinates
from scipy.optimize import least_squares
from scipy.special import erf

from targets.codecs import fits, image
from ztfluigi.model.errors import BadInput
from ztfluigi.model.header import Card
from ztfluigi.model.psf import PsfModel

OVERSAMPLE = 2
FLUX_DN = 1e5
"""Flux of the star the tables describe: its instrumental magnitude is 25 - 2.5 log10(FLUX_DN), DAOPhot's zero level."""
_FLOAT = re.compile(r"[+-]?\d+\.\d*(?:[ED][+-]?\d+)?")


@dataclass(frozen=True)
class DaophotPsf:
    """Content of a DAOPhot PSF file with a Gaussian first approximation.

    height [DN] multiplies E(dx) E(dy) / (hwhm_x hwhm_y), E the mean over a pixel of exp(-ln2 (d/hwhm)^2). tables : float64
    (1, 3 or 6, n, n) [DN], residuals at half-pixel steps. centre : XPSF, YPSF, half the extent of the frame [pix].
    magnitude : of the star described.
    """

    hwhm: tuple[float, float]
    height: float
    magnitude: float
    centre: tuple[float, float]
    tables: np.ndarray

    def render(self, x: float, y: float, size: int = 25, dx: float = 0.0, dy: float = 0.0) -> np.ndarray:
        """Pixel image (size, size) of the unit-flux PSF at zero-based (x, y), its centre (dx, dy) pixels from the central pixel."""
        offsets = np.arange(size) - size // 2
        gaussian = self.height * np.outer(_pixel_gaussian(offsets - dy, self.hwhm[1]) / self.hwhm[1],
                                          _pixel_gaussian(offsets - dx, self.hwhm[0]) / self.hwhm[0])
        u, v = x / self.centre[0] - 1.0, y / self.centre[1] - 1.0
        terms = np.array([1.0, u, v, 1.5 * u**2 - 0.5, u * v, 1.5 * v**2 - 0.5])[:len(self.tables)]
        table = np.tensordot(terms, self.tables, axes=1)
        middle = table.shape[0] // 2
        grid = np.meshgrid((offsets - dy) * OVERSAMPLE + middle, (offsets - dx) * OVERSAMPLE + middle, indexing="ij")
        return (gaussian + map_coordinates(table, grid, order=3, mode="constant", cval=0.0)) / 10 ** (0.4 * (25.0 - self.magnitude))


def from_model(psf: PsfModel) -> DaophotPsf:
    """The DAOPhot form of a PSF model: Gaussian fitted at the centre of the quadrant, residuals linear in position."""
    centre = ((psf.shape[1] - 1) / 2.0, (psf.shape[0] - 1) / 2.0)
    half = (psf.tables.shape[1] // 2) * OVERSAMPLE // psf.oversample
    steps = np.arange(-half, half + 1) / OVERSAMPLE
    grid = np.meshgrid(*2 * [steps * psf.oversample + psf.tables.shape[1] // 2], indexing="ij")
    linear = np.array([FLUX_DN * map_coordinates(table, grid, order=3, mode="nearest") for table in _linear_part(psf)])
    hwhm, height = _fit_gaussian(linear[0], steps)
    linear[0] -= height * np.outer(_pixel_gaussian(steps, hwhm[1]) / hwhm[1], _pixel_gaussian(steps, hwhm[0]) / hwhm[0])
    return DaophotPsf(hwhm, height, 25.0 - 2.5 * np.log10(FLUX_DN), centre, linear)


def write_daophot(path: Path, psf: PsfModel) -> None:
    """Write sciimgdao.psf."""
    dao = from_model(psf)
    n = dao.tables.shape[1]
    lines = [f" {'GAUSSIAN':8s}{n:5d}{2:5d}{len(dao.tables):5d}{0:5d}{dao.magnitude:9.3f}{dao.height:15.3f}"
             f"{dao.centre[0]:9.1f}{dao.centre[1]:9.1f}", _numbers(np.array(dao.hwhm))]
    for table in dao.tables:
        flat = table.ravel()
        lines += [_numbers(flat[start:start + 6]) for start in range(0, len(flat), 6)]
    Path(path).write_text("\n".join(lines) + "\n")


def read_daophot(path: Path) -> DaophotPsf:
    """Read a DAOPhot PSF file with a Gaussian profile; BadInput in one sentence otherwise."""
    name = Path(path).name
    try:
        lines = Path(path).read_text().splitlines()
        label, *numbers = lines[0].split()
        n, parameters, terms, fractional = (int(value) for value in numbers[:4])
        magnitude, height, xpsf, ypsf = (float(value) for value in numbers[4:8])
        values = [float(value.replace("D", "E")) for line in lines[1:] for value in _FLOAT.findall(line)]
    except (OSError, UnicodeDecodeError, IndexError, ValueError) as error:
        raise BadInput(f"{name} is not a DAOPhot PSF file: {error}") from error
    if (label, parameters, fractional) != ("GAUSSIAN", 2, 0) or terms not in (1, 3, 6):
        raise BadInput(f"{name} has profile {label} with {parameters} parameters, {terms} tables and {fractional} fractional terms, "
                       "expected GAUSSIAN with 2 parameters, 1, 3 or 6 tables and none")
    if len(values) != parameters + terms * n * n:
        raise BadInput(f"{name} holds {len(values)} numbers, expected {parameters + terms * n * n} from its first line")
    tables = np.array(values[parameters:]).reshape(terms, n, n)
    return DaophotPsf((values[0], values[1]), height, magnitude, (xpsf, ypsf), tables)


def write_psf_model(path: Path, psf: PsfModel, cards: image.Cards = ()) -> None:
    """A PSF model without loss: its tables as a float64 cube."""
    own: list[Card] = [("PSFDEG", psf.degree, "order of the polynomial in position"), ("PSFOVER", psf.oversample, "samples per pixel"),
                       ("PSFNX", psf.shape[1], "columns of the quadrant"), ("PSFNY", psf.shape[0], "rows of the quadrant"),
                       ("PSFERR", psf.error, "relative error of the model")]
    fits.write(path, [fits.image_hdu(np.asarray(psf.tables, np.float64), [*own, *image.Header(cards).cards])])


def read_psf_model(path: Path) -> PsfModel:
    """The model that `write_psf_model` wrote."""
    tables, header = image.read_pixels(path, 0)
    try:
        degree = header["PSFDEG"]
        if tables.ndim != 3 or len(tables) != (degree + 1) * (degree + 2) // 2:
            raise BadInput(f"{Path(path).name} has tables of shape {tables.shape}, expected those of degree {degree}")
        return PsfModel(tables, degree, (header["PSFNY"], header["PSFNX"]), header["PSFOVER"], header["PSFERR"])
    except KeyError as error:
        raise BadInput(f"{Path(path).name} has no card {error}, expected a PSF model") from error


def _pixel_gaussian(offset: np.ndarray, hwhm: float) -> np.ndarray:
    """Mean over a pixel of exp(-ln2 (x/hwhm)^2)."""
    width = hwhm / np.sqrt(np.log(2.0))
    return np.sqrt(np.pi) / 2 * width * (erf((offset + 0.5) / width) - erf((offset - 0.5) / width))


def _fit_gaussian(table: np.ndarray, steps: np.ndarray) -> tuple[tuple[float, float], float]:
    """((hwhm in x, in y) [pix], height) of the Gaussian nearest to the core of a table."""
    core = np.abs(steps) <= 4.0
    target, offsets = table[np.ix_(core, core)], steps[core]
    peak = target.max()
    start = max(np.sqrt(np.count_nonzero(target > peak / 2) / np.pi) / OVERSAMPLE, 0.4)

    def shape(hwhm: np.ndarray) -> np.ndarray:
        return np.outer(_pixel_gaussian(offsets, hwhm[1]) / hwhm[1], _pixel_gaussian(offsets, hwhm[0]) / hwhm[0])

    def residuals(hwhm: np.ndarray) -> np.ndarray:
        model = shape(hwhm)
        return ((model * (np.sum(model * target) / np.sum(model**2)) - target) / peak).ravel()

    hwhm = least_squares(residuals, [start, start], bounds=(0.2, 20.0)).x
    model = shape(hwhm)
    return (float(hwhm[0]), float(hwhm[1])), float(np.sum(model * target) / np.sum(model**2))


def _linear_part(psf: PsfModel) -> np.ndarray:
    """Tables (3, m, m) of 1, u, v nearest to the model over the quadrant."""
    ny, nx = psf.shape
    x, y = (grid.ravel() for grid in np.meshgrid(np.linspace(0, nx - 1, 15), np.linspace(0, ny - 1, 15)))
    design = np.stack([np.ones_like(x), 2 * x / (nx - 1) - 1, 2 * y / (ny - 1) - 1])
    projection = psf.monomials(x, y) @ np.linalg.pinv(design)  # (terms, 3)
    return np.tensordot(projection.T, psf.tables, axes=1)


def _numbers(values: np.ndarray) -> str:
    """One line of Fortran (1X, 6E13.6); as there, a negative number touches its neighbour."""
    return " " + "".join(f"{value:13.6E}" for value in np.where(np.abs(values) < 1e-30, 0.0, values))
