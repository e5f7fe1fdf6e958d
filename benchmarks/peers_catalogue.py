"""Source Extractor, PSFEx and SCAMP beside our catalogue and astrometry."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS, FITSFixedWarning

from benchmarks import peers
from benchmarks.meter import Meter
from benchmarks.speed import WATCHED
from benchmarks.truth import CONFIG, Case, bounds, light_fraction, pairs, reduced, simulate, width
from ztfluigi.algorithms import astrometry
from ztfluigi.algorithms.catalogue import measure_quadrant
from ztfluigi.algorithms.warm import load_kernels
from ztfluigi.model.maskbits import UNUSABLE
from ztfluigi.model.wcs import TpvWcs

APERTURE_PIX = 10.0
SNR, BRIGHT_SNR = 10.0, 100.0

_COLUMNS = ("NUMBER", "X_IMAGE", "Y_IMAGE", "XWIN_IMAGE", "YWIN_IMAGE", "X_WORLD", "Y_WORLD", "ERRAWIN_IMAGE", "ERRBWIN_IMAGE",
            "ERRTHETAWIN_IMAGE", "FLUX_AUTO", "FLUXERR_AUTO", "FLUX_APER(1)", "FLUXERR_APER(1)", "FLUX_RADIUS", "ELONGATION", "SNR_WIN",
            "FLAGS", "FLAGS_WEIGHT")


def measure(case: Case, folder: Path) -> None:
    """Print positions, fluxes and CPU of one epoch of the case."""
    if not peers.installed("source-extractor"):
        return
    load_kernels(CONFIG)
    truth = simulate(case, 0)
    measure_quadrant(reduced(truth).calibrated, ps1=truth.ps1, config=CONFIG)  # warm
    meter = Meter()
    with meter.watch(*WATCHED), meter.stage("rest"):
        image = reduced(truth).calibrated
        own = measure_quadrant(image, ps1=truth.ps1, config=CONFIG).psfcat
    _write(folder, image, truth)
    stars = _Stars(truth)
    own = own[(own["flags"].astype(np.int64) & UNUSABLE) == 0]
    ours = stars.errors(own["xpos"], own["ypos"], own["flux"])

    def cpu(*stages):
        return sum(meter.cpu_s[name] for name in stages)

    seconds, found = _extract(folder, "first.cat", (*_COLUMNS, "VIGNET(25,25)"))
    found = found[found["FLAGS_WEIGHT"] == 0]
    stars.report("source-extractor", "windowed, AUTO", ours, stars.errors(found["XWIN_IMAGE"], found["YWIN_IMAGE"], found["FLUX_AUTO"]))
    stars.report("source-extractor", f"aperture of {APERTURE_PIX:g} pix", ours,
                 stars.errors(found["XWIN_IMAGE"], found["YWIN_IMAGE"], np.ravel(found["FLUX_APER"])))
    peers.line("source-extractor", "cpu: background, detection, apertures", cpu("background", "detect", "apertures"), seconds, "s", len(found))
    if peers.installed("psfex"):
        seconds = peers.call(["psfex", "first.cat", "-c", "psfex.conf"], folder)
        peers.line("psfex", "cpu: PSF model", cpu("psf"), seconds, "s", len(found))
        seconds, fitted = _extract(folder, "second.cat", (*_COLUMNS, "XPSF_IMAGE", "YPSF_IMAGE", "FLUX_PSF"), "-PSF_NAME", "first.psf")
        fitted = fitted[(fitted["FLAGS_WEIGHT"] == 0) & (fitted["FLUX_PSF"] > 0)]
        stars.report("source-extractor + psfex", "PSF fit", ours, stars.errors(fitted["XPSF_IMAGE"], fitted["YPSF_IMAGE"], fitted["FLUX_PSF"]))
        peers.line("source-extractor + psfex", "cpu: background, detection, PSF fit, apertures",
                   cpu("background", "detect", "psf_photometry", "apertures"), seconds, "s", len(fitted))
    if peers.installed("scamp"):
        _scamp(folder, truth, image.wcs, cpu("astrometry"))


class _Stars:
    # True stars of a quadrant, and how the errors of any catalogue of it are told.
    def __init__(self, truth):
        stars = truth.stars
        flux = stars["dn"] * light_fraction(truth)(stars["x"], stars["y"])
        flux_bound, place_bound = bounds(truth, stars["dn"])
        self.rows, self.flux, self.snr, self.place_bound = stars, flux, stars["dn"] / flux_bound, place_bound
        self.scale = truth.camera.pixel_scale_arcsec * 1e3

    def errors(self, x, y, flux) -> dict:
        """Errors of places (FITS pixels) and fluxes of the stars that a catalogue knows."""
        good = np.isfinite(np.asarray(flux, float)) & (np.asarray(flux) > 0)
        x, y, flux = (np.asarray(v, float)[good] for v in (x, y, flux))
        i, j = pairs(x - 1, y - 1, self.rows["x"], self.rows["y"], 1.5)
        offset = np.concatenate([x[i] - 1 - self.rows["x"][j], y[i] - 1 - self.rows["y"][j]])
        strong, bright = self.snr[j] >= SNR, (self.snr[j] >= BRIGHT_SNR) & (self.rows["mag"][j] > 14.0)
        error = -2.5 * np.log10(flux[i] / self.flux[j])
        middle = np.median(error[bright]) if bright.any() else 0.0
        both = np.tile(strong, 2)
        return {"place": width(offset[both]) * self.scale, "ratio": width((offset / np.tile(self.place_bound[j], 2))[both]),
                "bright": 1e3 * width(error[bright]), "all": 1e3 * width(error[strong] - middle), "offset": 1e3 * middle,
                "n": int(strong.sum()), "n_bright": int(bright.sum())}

    def report(self, peer: str, what: str, ours: dict, theirs: dict) -> None:
        for key, text, unit, n in (("place", f"position error per axis, S/N >= {SNR:g}", "mas", "n"),
                                   ("ratio", "the same over the bound of the pixels", "ratio", "n"),
                                   ("bright", f"flux scatter, S/N >= {BRIGHT_SNR:g}", "mmag", "n_bright"),
                                   ("offset", "median flux error of these", "mmag", "n_bright"),
                                   ("all", f"flux scatter, S/N >= {SNR:g}", "mmag", "n"), ("n", f"stars of S/N >= {SNR:g} found", "stars", "n")):
            peers.line(peer, f"{what}: {text}", ours[key], theirs[key], unit, theirs[n])


def _write(folder: Path, image, truth) -> None:
    header = fits.Header()
    header.update(truth.nominal_wcs.cards())
    header["GAIN"], header["SATURATE"] = image.gain, image.saturate
    header["EXPTIME"], header["MJD-OBS"] = truth.camera.exposure_s, truth.jd_mid - 2400000.5
    fits.writeto(folder / "image.fits", image.data, header)
    fits.writeto(folder / "weight.fits", np.where((image.mask & np.uint16(UNUSABLE)) == 0, np.float32(1), np.float32(0)))
    (folder / "default.conv").write_text("CONV NORM\n1 2 1\n2 4 2\n1 2 1\n")
    (folder / "default.nnw").write_text("")
    (folder / "psfex.conf").write_text("PSFVAR_DEGREES 2\nPSF_SIZE 25,25\nNTHREADS 1\nVERBOSE_TYPE QUIET\nCHECKPLOT_TYPE NONE\n"
                                       "CHECKIMAGE_TYPE NONE\nWRITE_XML N\nSAMPLE_MINSN 100\nPSF_SUFFIX .psf\n")


def _extract(folder: Path, name: str, columns: tuple, *more: str) -> tuple[float, Table]:
    (folder / "columns.param").write_text("\n".join(columns) + "\n")
    options = {"CATALOG_NAME": name, "CATALOG_TYPE": "FITS_LDAC", "PARAMETERS_NAME": "columns.param", "FILTER_NAME": "default.conv",
               "STARNNW_NAME": "default.nnw", "DETECT_THRESH": "1.5", "ANALYSIS_THRESH": "1.5", "DETECT_MINAREA": "4",
               "PHOT_APERTURES": f"{APERTURE_PIX:g}", "WEIGHT_TYPE": "MAP_WEIGHT", "WEIGHT_IMAGE": "weight.fits", "WEIGHT_GAIN": "N",
               "SATUR_KEY": "SATURATE", "GAIN_KEY": "GAIN", "BACK_SIZE": "128", "PIXEL_SCALE": "0", "VERBOSE_TYPE": "QUIET", "NTHREADS": "1"}
    command = ["source-extractor", "image.fits", "-c", "sex.conf", *(part for key, value in options.items() for part in (f"-{key}", value)), *more]
    (folder / "sex.conf").write_text("")
    seconds = peers.call(command, folder)
    return seconds, Table.read(folder / name, hdu=2)


def _scamp(folder: Path, truth, ours: TpvWcs, our_seconds: float) -> None:
    """Both solutions from the nominal header against Gaia, compared with the true coordinates of a grid and of the stars."""
    _write_reference(folder / "gaia.cat", truth)
    options = {"ASTREF_CATALOG": "FILE", "ASTREFCAT_NAME": "gaia.cat", "ASTREFCENT_KEYS": "X_WORLD,Y_WORLD", "ASTREFERR_KEYS":
               "ERRA_WORLD,ERRB_WORLD,ERRTHETA_WORLD", "ASTREFMAG_KEY": "MAG", "ASTREFMAGERR_KEY": "MAGERR", "ASTREFOBSDATE_KEY": "OBSDATE",
               "ASTREFMAG_LIMITS": "12,18", "CENTROID_KEYS": "XWIN_IMAGE,YWIN_IMAGE", "CENTROIDERR_KEYS":
               "ERRAWIN_IMAGE,ERRBWIN_IMAGE,ERRTHETAWIN_IMAGE", "DISTORT_DEGREES": "4", "POSITION_MAXERR": "2", "PIXSCALE_MAXERR": "1.02",
               "POSANGLE_MAXERR": "1", "SOLVE_PHOTOM": "N", "CHECKPLOT_TYPE": "NONE", "WRITE_XML": "N", "NTHREADS": "1", "VERBOSE_TYPE": "QUIET",
               "SN_THRESHOLDS": "10.0,100.0", "FWHM_THRESHOLDS": "0.0,100.0"}
    (folder / "scamp.conf").write_text("".join(f"{key} {value}\n" for key, value in options.items()))
    seconds = peers.call(["scamp", "first.cat", "-c", "scamp.conf"], folder)
    header = fits.getheader(folder / "image.fits")
    text = "\n".join(row for row in (folder / "first.head").read_text(errors="replace").splitlines() if not row.startswith(("HISTORY", "COMMENT")))
    header.update(fits.Header.fromstring(text, sep="\n"))
    ny, nx = truth.raw.shape
    x, y = (grid.ravel() for grid in np.meshgrid(np.linspace(0, nx - 1, 33), np.linspace(0, ny - 1, 33)))
    with warnings.catch_warnings(action="ignore", category=FITSFixedWarning):
        true, theirs = truth.true_wcs.sky(x, y), WCS(header).wcs_pix2world(x, y, 0)
    errors = [_offsets(*sky, *true) for sky in (ours.sky(x, y), theirs)]
    peers.line("scamp", "coordinates of a grid over the quadrant: RMS error per axis", *(np.sqrt(np.mean(e**2)) for e in errors), "mas", x.size)
    peers.line("scamp", "the same, largest", *(np.abs(e).max() for e in errors), "mas", x.size)
    peers.line("scamp", "cpu: both passes", our_seconds, seconds, "s", len(truth.gaia))


def _offsets(ra, dec, ra0, dec0) -> np.ndarray:
    return np.concatenate([(ra - ra0) * np.cos(np.radians(dec0)), dec - dec0]) * 3.6e6


def _write_reference(path: Path, truth) -> None:
    """Gaia at the epoch of the image, as an LDAC file."""
    ra, dec = astrometry.carry_to_epoch(truth.gaia, truth.jd_mid)
    error = np.hypot(truth.gaia["ra_error"], truth.gaia["dec_error"]) / np.sqrt(2.0) / 3.6e6
    year = 2000.0 + (truth.jd_mid - 2451545.0) / 365.25
    columns = {"X_WORLD": ("D", "deg", ra), "Y_WORLD": ("D", "deg", dec), "ERRA_WORLD": ("E", "deg", error), "ERRB_WORLD": ("E", "deg", error),
               "ERRTHETA_WORLD": ("E", "deg", 0.0 * error), "MAG": ("E", "mag", truth.gaia["phot_g_mean_mag"]),
               "MAGERR": ("E", "mag", 0.0 * error + 0.01), "OBSDATE": ("D", "yr", 0.0 * error + year)}
    text = fits.Header().tostring(padding=False) or "END" + " " * 77
    head = fits.BinTableHDU.from_columns([fits.Column("Field Header Card", f"{len(text)}A", array=[text])], name="LDAC_IMHEAD")
    rows = fits.BinTableHDU.from_columns([fits.Column(name, kind, unit, array=values) for name, (kind, unit, values) in columns.items()],
                                         name="LDAC_OBJECTS")
    fits.HDUList([fits.PrimaryHDU(), head, rows]).writeto(path)
