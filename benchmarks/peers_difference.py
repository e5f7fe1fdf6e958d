"""SWarp beside our resampling; hotpants, sfft and PyZOGY beside our difference, with one scorer for all.

hotpants is a program on the path, or named by HOTPANTS. sfft (numpy backend, as of 1.6) and PyZOGY are used where Python can import them:
`pip install --no-deps sfft fastremap pyfftw` (without --no-deps it wants a scikit-image older than any wheel; its core does not use it);
PyZOGY is on no package index. The call of PyZOGY follows its README and source (`PyZOGY.subtract.run_subtraction`) and was never run here.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from astropy.io import fits
from scipy.ndimage import binary_dilation, gaussian_filter
from scipy.spatial import cKDTree

from benchmarks import peers, reference
from benchmarks.difference import HOST, Injected, inject
from benchmarks.events import varied
from benchmarks.truth import CONFIG, Case, night, width
from ztfluigi.algorithms import events
from ztfluigi.algorithms.resample import resample
from ztfluigi.simulate.exposure import TRANSIENT

MATCH_PIX = 2.0
FALSE_PIX = 3.0
SFFT_KERNEL = 2.0
"""Half-width of sfft's kernel in FWHM, its own default; likewise the orders of its polynomials below."""
SFFT_PIXELS = 2_000_000
SFFT = """
import sys, time
import numpy as np
from sfft.sfftcore.SFFTConfigure import SingleSFFTConfigure
from sfft.sfftcore.SFFTSubtract import GeneralSFFTSubtract
images = [np.load(name + ".npy") for name in ("convolved", "other", "convolved_fit", "other_fit")]
half, quarters, margin = int(sys.argv[1]), int(sys.argv[2]), 16
out, seconds = np.zeros(images[0].shape, np.float32), 0.0
rows, columns = ([n * k // quarters for k in range(quarters + 1)] for n in out.shape)
for y0, y1 in zip(rows, rows[1:]):
    for x0, x1 in zip(columns, columns[1:]):
        ya, xa = max(0, y0 - margin), max(0, x0 - margin)
        parts = [np.ascontiguousarray(image[ya:y1 + margin, xa:x1 + margin]) for image in images]
        options = {"BACKEND_4SUBTRACT": "Numpy", "NUM_CPU_THREADS_4SUBTRACT": 1, "VERBOSE_LEVEL": 0}
        config = SingleSFFTConfigure.SSC(NX=parts[0].shape[0], NY=parts[0].shape[1], KerHW=half, KerPolyOrder=2, BGPolyOrder=0, **options)
        start = time.process_time()
        made = GeneralSFFTSubtract.GSS(*parts, config, **options)[1]
        seconds += time.process_time() - start
        out[y0:y1, x0:x1] = made[y0 - ya:y1 - ya, x0 - xa:x1 - xa]
np.save("seconds.npy", seconds)
np.save("difference.npy", out)
"""
PYZOGY = """
import time
import numpy as np
from PyZOGY.subtract import run_subtraction
start = time.process_time()
run_subtraction("science.fits", "template.fits", "science_psf.fits", "template_psf.fits", output="pyzogy.fits", science_mask="mask.fits",
                reference_mask="mask.fits", science_saturation=np.inf, reference_saturation=np.inf, gain_ratio=1.0, normalization="science")
np.save("seconds.npy", time.process_time() - start)
"""


def measure(case: Case, folder: Path) -> None:
    """Print resampling and difference of the case's new epoch."""
    swarp = next((name for name in ("SWarp", "swarp") if shutil.which(name)), None)
    hotpants = os.environ.get("HOTPANTS") or shutil.which("hotpants")
    there = {"swarp": swarp, "hotpants": hotpants, **{name: importlib.util.find_spec(name) for name in ("sfft", "PyZOGY")}}
    if missing := [name for name, found in there.items() if not found]:
        print(f"not installed, not compared: {', '.join(missing)}", file=sys.stderr)
    if not any(there.values()):
        return
    if swarp is not None:
        _swarp(swarp, folder, case, reference.build(case))
    if not any(there[name] for name in ("hotpants", "sfft", "PyZOGY")):
        return
    made = inject(case)
    # The science image without its background, and the reference on its grid and flux scale, as our own difference took them.
    pair = made.science - made.difference.background, made.difference.reference
    real = _real(case, made)
    _ours(made, real)
    if hotpants:
        _compare("hotpants", made, real, *_hotpants(hotpants, folder, made, pair))
    if there["sfft"]:
        _compare("sfft", made, real, *_sfft(folder, made, pair))
    if there["PyZOGY"]:
        _compare("PyZOGY", made, real, *_pyzogy(folder, made, pair))


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


def _hotpants(program: str, folder: Path, made: Injected, pair) -> tuple[np.ndarray, float, float]:
    """(difference, FWHM of its sources, CPU seconds) of hotpants, which convolves the sharper image."""
    truth, sharper = made.truth, "i" if _science_sharper(made) else "t"
    for name, image in zip(("science", "template"), pair, strict=True):
        fits.PrimaryHDU(image.astype(np.float32)).writeto(folder / f"{name}.fits", overwrite=True)
    top = f"{0.9 * truth.saturation_dn:.0f}"
    seconds = peers.call([program, "-inim", "science.fits", "-tmplim", "template.fits", "-outim", "hotpants.fits", "-iu", top, "-tu", top, "-il",
                          "-500", "-tl", "-500", "-ko", "2", "-bgo", "1", "-nsx", "10", "-nsy", "10", "-ig", f"{truth.gain}", "-tg",
                          f"{truth.gain}", "-n", "i", "-c", sharper, "-v", "0"], folder)
    with fits.open(folder / "hotpants.fits") as hdus:
        return hdus[0].data.astype(np.float32), _wider(made), seconds


def _sfft(folder: Path, made: Injected, pair) -> tuple[np.ndarray, float, float]:
    """Likewise of sfft, which convolves the sharper image too; its kernel is fitted where the reference shows light and nothing is masked.

    Large images go in quarters, a solution each: of a whole quadrant it would want 20 GiB. Compilation of its kernels does not count.
    """
    light = binary_dilation(pair[1] > 20.0 * made.difference.metrics["noise"], iterations=6)
    light &= ~binary_dilation(made.difference.scorr == 0, iterations=10)
    order = (0, 1) if _science_sharper(made) else (1, 0)
    for name, k in zip(("convolved", "other"), order, strict=True):
        image = np.nan_to_num(pair[k].astype(float)).T
        np.save(folder / f"{name}.npy", np.ascontiguousarray(image))
        np.save(folder / f"{name}_fit.npy", np.ascontiguousarray(np.where(light.T, image, 0.0)))
    peers.call([sys.executable, "-c", SFFT, str(int(SFFT_KERNEL * _wider(made))), "2" if pair[0].size > SFFT_PIXELS else "1"], folder)
    sign = 1.0 if order == (1, 0) else -1.0
    return sign * np.load(folder / "difference.npy").T, _wider(made), float(np.load(folder / "seconds.npy"))


def _pyzogy(folder: Path, made: Injected, pair) -> tuple[np.ndarray, float, float]:
    """Likewise of PyZOGY: one PSF for the whole image, that of its middle; the fluxes match already."""
    ny, nx = pair[0].shape
    for name, image in zip(("science", "template"), pair, strict=True):
        fits.PrimaryHDU(image.astype(np.float32)).writeto(folder / f"{name}.fits", overwrite=True)
    for name, psf in zip(("science", "template"), made.psfs, strict=True):
        fits.PrimaryHDU(psf.render(nx / 2, ny / 2, 25).astype(np.float32)).writeto(folder / f"{name}_psf.fits", overwrite=True)
    fits.PrimaryHDU((made.difference.scorr == 0).astype(np.int16)).writeto(folder / "mask.fits", overwrite=True)
    peers.call([sys.executable, "-c", PYZOGY], folder)
    with fits.open(folder / "pyzogy.fits") as hdus:
        return hdus[0].data.astype(np.float32), made.difference.metrics["fwhm_difference"], float(np.load(folder / "seconds.npy"))


def _science_sharper(made: Injected) -> bool:
    return made.difference.metrics["fwhm_science"] < made.difference.metrics["fwhm_reference"]


def _wider(made: Injected) -> float:
    return max(made.difference.metrics["fwhm_science"], made.difference.metrics["fwhm_reference"])


def _real(case: Case, made: Injected) -> np.ndarray:
    """Places (n, 2) of what is no false peak: injected sources, and stars that vary."""
    objects = made.truth.objects
    rows = objects[(objects["kind"] == TRANSIENT) | np.isin(objects["id"], varied(case, objects))]
    return np.column_stack([rows["x"], rows["y"]])


def _ours(made: Injected, real: np.ndarray) -> None:
    """What our own events give, past the light filter: their score knows the noise of sources and PSFs, which the common scorer does not."""
    kept = made.found[events.light_filter(made.found, config=replace(CONFIG["event_filter"], max_events=len(made.found) + 1)) == ""]
    x, y, sign = kept["xpos"] - 1.0, kept["ypos"] - 1.0, np.where(kept["isdiffpos"] == "t", 1, -1)
    for (quantity, unit), value in zip(QUANTITIES, _counted(made, real, x, y, sign), strict=True):
        peers.line("(our events past the light filter)", quantity, value, None, unit, len(kept))


QUANTITIES = ("completeness at S/N above 7", "fraction"), ("false peaks", "events")


def _compare(peer: str, made: Injected, real: np.ndarray, other: np.ndarray, fwhm: float, seconds: float) -> None:
    """Completeness above S/N 7 and false peaks of either sign, of both differences under one kind of matched filter."""
    unusable = made.difference.scorr == 0
    scored = [_counted(made, real, *_peaks(image, made.difference.sigma, unusable, width_pix)) for image, width_pix in (
        (made.difference.data, made.difference.metrics["fwhm_science"]), (other, fwhm))]
    for (quantity, unit), ours, theirs in zip(QUANTITIES, *scored, strict=True):
        peers.line(peer, quantity, ours, theirs, unit, len(made.sources))
    start = time.process_time()
    made.again()
    peers.line(peer, "cpu: difference", time.process_time() - start, seconds, "s", other.size)


def _peaks(image: np.ndarray, sigma: np.ndarray, unusable: np.ndarray, fwhm: float):
    """(x, y, sign) of the peaks above 5 of a difference smoothed by a Gaussian, over its noise: photons of the sources included, then its width.

    A peak with an unusable pixel within two counts for no one, as our own filter has it.
    """
    score = gaussian_filter(np.where(unusable, np.float32(0), image), fwhm / 2.3548)
    score /= np.sqrt(gaussian_filter(sigma**2, fwhm / 2.3548 / np.sqrt(2.0)))
    score = np.where(unusable, 0, score / width(score[::3, ::3][~unusable[::3, ::3]])).astype(np.float32)
    x, y, sign = events.find_peaks(score, 5.0, 2)
    clear = ~binary_dilation(unusable, np.ones((5, 5), bool))[y, x]
    return x[clear], y[clear], sign[clear]


def _counted(made: Injected, real: np.ndarray, x, y, sign) -> tuple[float, float]:
    """(completeness of the sources in blank places above S/N 7, number of peaks that nothing real explains)."""
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
