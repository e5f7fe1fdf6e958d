"""SWarp beside our resampling, and hotpants (program on the path, or named by HOTPANTS) beside our difference; one scorer for both."""

from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path

import numpy as np
from astropy.io import fits
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree

from benchmarks import peers, reference
from benchmarks.difference import HOST, inject
from benchmarks.truth import Case, night, width
from ztfluigi.algorithms import events
from ztfluigi.algorithms.resample import resample
from ztfluigi.simulate.exposure import TRANSIENT

MATCH_PIX = 2.0
FALSE_PIX = 3.0


def measure(case: Case, folder: Path) -> None:
    """Print resampling and difference of the case's new epoch."""
    swarp = next((name for name in ("SWarp", "swarp") if shutil.which(name)), None)
    hotpants = os.environ.get("HOTPANTS") or shutil.which("hotpants")
    if swarp is None:
        print("not installed, not compared: swarp", file=sys.stderr)
    if swarp is None and not hotpants:
        return
    made, built = inject(case), reference.build(case)
    if swarp is not None:
        _swarp(swarp, folder, case, built)
    if hotpants:
        _hotpants(hotpants, folder, made)


def _swarp(program: str, folder: Path, case: Case, built) -> None:
    """The reference onto the grid of the first epoch: CPU, and the scatter of the differences over the noise of the reference."""
    target, coadd = night(case).epochs[0].image().wcs, built.coadd
    shape = case.camera.shape
    data = np.where(np.isfinite(coadd.data), coadd.data, np.float32(0))
    resample(data, coadd.wcs, target, shape, order=4)  # warm
    start = time.process_time()
    ours, _ = resample(data, coadd.wcs, target, shape, order=4)
    seconds = time.process_time() - start
    _write(folder / "reference.fits", data, coadd.wcs)
    # SWarp takes the output grid from a header of this name.
    (folder / "out.head").write_text("\n".join(f"{key:<8}= {value!r:>20}" for key, value in _cards(target, shape).items()) + "\nEND\n")
    theirs = peers.call([program, "reference.fits", "-IMAGEOUT_NAME", "out.fits", "-WEIGHTOUT_NAME", "weight.fits", "-RESAMPLING_TYPE", "LANCZOS4",
                         "-SUBTRACT_BACK", "N", "-FSCALE_DEFAULT", "1.0", "-FSCALASTRO_TYPE", "VARIABLE", "-COMBINE", "Y", "-NTHREADS", "1",
                         "-WRITE_XML", "N", "-VERBOSE_TYPE", "QUIET"], folder)
    peers.line("swarp", "cpu: reference onto the science grid", seconds, theirs, "s", ours.size)
    with fits.open(folder / "out.fits") as hdus:
        other = hdus[0].data
    inner = np.s_[64:-64, 64:-64]
    good = np.isfinite(ours[inner]) & (other[inner] != 0)
    noise = float(np.median(coadd.sigma[np.isfinite(coadd.sigma)]))
    peers.line("swarp", "width of ours less theirs over the noise of the reference", width((ours - other)[inner][good]) / noise, None, "sigma",
               np.count_nonzero(good))


def _hotpants(program: str, folder: Path, made) -> None:
    """Completeness above S/N 7 and false peaks of one sign or the other: both differences smoothed by the science PSF, in their own width."""
    result, truth = made.difference, made.truth
    science = result.data + result.reference
    for name, image in (("science", science), ("template", result.reference)):
        fits.PrimaryHDU(image.astype(np.float32)).writeto(folder / f"{name}.fits")
    top = f"{0.9 * truth.saturation_dn:.0f}"
    seconds = peers.call([program, "-inim", "science.fits", "-tmplim", "template.fits", "-outim", "hotpants.fits", "-iu", top, "-tu", top, "-il",
                          "-500", "-tl", "-500", "-ko", "2", "-bgo", "1", "-nsx", "10", "-nsy", "10", "-ig", f"{truth.gain}", "-tg",
                          f"{truth.gain}", "-n", "i", "-c", "t", "-v", "0"], folder)
    with fits.open(folder / "hotpants.fits") as hdus:
        other = hdus[0].data.astype(np.float32)
    unusable = result.scorr == 0
    for quantity, ours, theirs in zip(("completeness at S/N above 7", "false peaks"), _scored(made, result.data, unusable),
                                      _scored(made, other, unusable), strict=True):
        peers.line("hotpants", quantity, ours, theirs, "fraction" if "complete" in quantity else "events", len(made.sources))
    peers.line("hotpants", "cpu: difference", None, seconds, "s", 1)


def _scored(made, image: np.ndarray, unusable: np.ndarray) -> tuple[float, float]:
    """(completeness, false peaks) of a difference under one matched filter, in units of its robust width."""
    score = gaussian_filter(np.where(unusable, np.float32(0), image), made.difference.metrics["fwhm_science"] / 2.3548)
    score = np.where(unusable, 0, score / width(score[::3, ::3][~unusable[::3, ::3]])).astype(np.float32)
    x, y, sign = events.find_peaks(score, 5.0, 2)
    objects = made.truth.objects
    real = np.column_stack([objects[name][objects["kind"] == TRANSIENT] for name in ("x", "y")])
    false = np.count_nonzero(cKDTree(real).query(np.column_stack([x, y]))[0] > FALSE_PIX)
    chosen = made.usable & (made.snr > 7) & (made.sources["id"] < HOST)
    found = cKDTree(np.column_stack([x, y])[sign > 0]).query(np.column_stack([made.sources["x"], made.sources["y"]])[chosen])[0] < MATCH_PIX
    return float(found.mean()), float(false)


def _cards(wcs, shape) -> dict:
    cards = {"NAXIS": 2, "NAXIS1": shape[1], "NAXIS2": shape[0], "EQUINOX": 2000.0, "CTYPE1": "RA---TPV", "CTYPE2": "DEC--TPV"}
    for axis in (1, 2):
        cards |= {f"CRPIX{axis}": float(wcs.crpix[axis - 1]), f"CRVAL{axis}": float(wcs.crval[axis - 1])}
        cards |= {f"CD{axis}_{other}": float(wcs.cd[axis - 1][other - 1]) for other in (1, 2)}
        cards |= {f"PV{axis}_{k}": float(v) for k, v in (wcs.pv1 if axis == 1 else wcs.pv2).items()}
    return cards


def _write(path: Path, data: np.ndarray, wcs) -> None:
    header = fits.Header()
    for key, value in _cards(wcs, data.shape).items():
        if not key.startswith("NAXIS"):
            header[key] = value
    header["CTYPE1"], header["CTYPE2"] = ("RA---TPV", "DEC--TPV") if wcs.pv1 else ("RA---TAN", "DEC--TAN")
    fits.PrimaryHDU(data.astype(np.float32), header).writeto(path)
