"""Real star lists through our astrometry and zero point: HSC CCDs against Gaia DR3, IPAC's own WCS, an LCO image, ZTF DR14 against PS1."""

from __future__ import annotations

import tarfile
import warnings
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow.parquet
from astropy.io import fits
from astropy.wcs import WCS

from benchmarks.meter import figure
from ztfluigi.algorithms import astrometry
from ztfluigi.algorithms.photometric_calibration import fit_zero_point
from ztfluigi.algorithms.tpv_fit import fit_tpv
from ztfluigi.model.columns import GAIA, PS1, PSFCAT, dtype_of
from ztfluigi.model.config.astrometry import AstrometryConfig
from ztfluigi.model.config.zero_point import ZeroPointConfig
from ztfluigi.model.errors import Unusable
from ztfluigi.model.wcs import TpvWcs, separation_arcsec

HSC_SHAPE = (4176, 2048)
HSC_CONFIG = AstrometryConfig(bright_limit=13.0, faint_limit=21.5, search_radius_arcsec=20.0, max_rotation_deg=0.1, distortion_tolerance=0.1)
"""Another camera, other settings: in 270 s on 8 m the faint stars of Gaia are the unsaturated ones; the rough headers tell the local scale
of each CCD and nothing of a distortion that reaches two arcseconds in its corners."""
RIGHT_ARCSEC = 5.0
"""The rough headers are good to half an arcsecond: a solution this far from them is another patch of sky."""
AB_NJY = 31.4
MAS_PER_RAD = np.degrees(1.0) * 3.6e6

LCO = 23.091, 0.027, 0.027, 0.1
"""Zero point, colour term and scatter that the folder's README fitted, and the tolerance of the origin's own test [mag]."""
DR14 = {"zg": (-0.068, 0.013), "zr": (0.107, 0.013), "zi": (0.209, 0.017)}
"""CLRCOEFF and scatter [mag] of the README's fits of ZTF - PS1, sign turned."""


def measure(data: Path) -> None:
    """Print the figures of the four sets."""
    _hsc(data / "astrom-hsc-gaia")
    _ipac_wcs(data / "ztf-sciimg")
    _lco(data / "refcat-phot")
    _dr14(data / "refcat-phot")


# -- astrometry --------------------------------------------------------------------------------------------------------------------

def _hsc(folder: Path) -> None:
    """Every CCD from its rough header; half of the stars, left out of the fit, must agree with it as well."""
    gaia, rms, held, wrong, tried = _gaia(folder / "gaia_dr3_refcat.parquet"), [], [], 0, 0
    with tarfile.open(folder / "hsc_visit1180_even_detectors.tar.gz") as tar:
        for member in sorted(tar.getmembers(), key=lambda m: int(m.name.split("_")[1].split(".")[0])):
            with fits.open(BytesIO(tar.extractfile(member).read())) as hdus:
                prior, stars, jd = TpvWcs.from_cards(hdus[0].header), hdus[1].data, float(hdus[0].header["MJD"]) + 2400000.5
            detections, name = _detections(stars), member.name.split("_")[1].split(".")[0]
            tried += 1
            try:
                found = astrometry.solve(detections, gaia, prior=prior, jd=jd, shape=HSC_SHAPE, config=HSC_CONFIG)
            except Unusable as reason:
                figure(f"real.hsc_rms_mas.{name}", np.nan, reason.reason, len(detections), None)
                continue
            offsets = np.concatenate([found.residuals["dra_mas"], found.residuals["ddec_mas"]])
            rms.append(float(np.sqrt(np.mean(offsets**2))))
            wrong += found.metrics["pointing_offset_arcsec"] > RIGHT_ARCSEC
            figure(f"real.hsc_rms_mas.{name}", rms[-1], "mas", len(found.residuals), None)
            held.append(_left_out(detections, gaia, prior, jd))
    held = np.concatenate([values for values in held if values is not None])
    figure("real.hsc_solved", len(rms) / tried, "fraction", tried, 1.0)
    figure("real.hsc_wrong", wrong, "solutions", tried, 0)
    figure("real.hsc_rms_mas", np.median(rms), "mas", len(rms), None)
    figure("real.hsc_left_out_mas", 1.4826 * np.median(np.abs(held)), "mas", len(held), None)


def _left_out(detections, gaia, prior: TpvWcs, jd: float) -> np.ndarray | None:
    """Offsets [mas] of every second detection from Gaia by the solution of the others; None without such a solution."""
    try:
        wcs = astrometry.solve(detections[::2], gaia, prior=prior, jd=jd, shape=HSC_SHAPE, config=HSC_CONFIG).wcs
    except Unusable:
        return None
    ra, dec = astrometry.carry_to_epoch(gaia, jd)
    rest = detections[1::2]
    own = wcs.sky(rest["x"], rest["y"])
    near = [np.argmin(separation_arcsec(a, d, ra, dec)) for a, d in zip(*own, strict=True)]
    offset = np.array([(own[0] - ra[near]) * np.cos(np.radians(dec[near])), own[1] - dec[near]]) * 3.6e6
    return offset[:, np.hypot(*offset) < 1000.0].ravel()


def _detections(stars) -> np.ndarray:
    """Positions with errors as the solver takes them; a centroid's error stands for the missing flux."""
    sigma = np.hypot(stars["xErr"], stars["yErr"]) / np.sqrt(2.0)
    good = np.isfinite(stars["x"] + stars["y"] + sigma) & (sigma > 0)
    rows = np.zeros(int(good.sum()), [(name, "f8") for name in ("x", "y", "x_err", "y_err", "flux", "fluxerr")]
                    + [("flags", "i4"), ("mask_bits", "i4")])
    for name, values in (("x", stars["x"]), ("y", stars["y"]), ("x_err", stars["xErr"]), ("y_err", stars["yErr"]), ("flux", 1.0 / sigma)):
        rows[name] = values[good]
    rows["fluxerr"] = 1.0
    return rows


def _gaia(path: Path) -> np.ndarray:
    """The LSST-style table in the columns of our calibrators."""
    table = {name: column.to_numpy() for name, column in zip(*(lambda t: (t.column_names, t.columns))(pyarrow.parquet.read_table(path)),
                                                             strict=True)}
    rows = np.zeros(len(table["id"]), dtype_of(GAIA))
    rows["source_id"], rows["ref_epoch"] = table["id"], 2016.0
    rows["ra"], rows["dec"] = np.degrees(table["coord_ra"]), np.degrees(table["coord_dec"])
    for name, column in (("ra_error", "coord_raErr"), ("dec_error", "coord_decErr"), ("parallax", "parallax"), ("pmra", "pm_ra"),
                         ("pmdec", "pm_dec")):
        rows[name] = table[column] * MAS_PER_RAD
    with warnings.catch_warnings(action="ignore"):  # empty rows of the table
        for name, column in (("g", "g"), ("bp", "bp"), ("rp", "rp")):
            rows[f"phot_{name}_mean_mag"] = AB_NJY - 2.5 * np.log10(table[f"phot_{column}_mean_flux"])
    return rows


def _ipac_wcs(folder: Path) -> None:
    """The WCS of IPAC's header, computed by astropy on a grid, refitted from its linear part alone."""
    header = fits.Header.fromtextfile(next(folder.glob("ztf_2020*sciimg.header.txt")))
    nx, ny = int(header["NAXIS1"]), int(header["NAXIS2"])
    x, y = (grid.ravel() for grid in np.meshgrid(np.linspace(0.0, nx - 1.0, 25), np.linspace(0.0, ny - 1.0, 25)))
    ra, dec = WCS(header).wcs_pix2world(x, y, 0)
    theirs = TpvWcs.from_cards(header)
    plain = TpvWcs(theirs.crpix, theirs.crval, theirs.cd)
    fitted = fit_tpv(x, y, ra, dec, np.full(x.size, (1.0 / 3.6e6) ** 2), start=plain, prior=plain, order=4, tolerance=1.0)
    figure("real.ipac_wcs_read_mas", 1e3 * separation_arcsec(*theirs.sky(x, y), ra, dec).max(), "mas", x.size, 1.0)
    figure("real.ipac_wcs_refit_mas", 1e3 * separation_arcsec(*fitted.sky(x, y), ra, dec).max(), "mas", x.size, 1.0)


# -- photometric calibration -------------------------------------------------------------------------------------------------------

def _lco(folder: Path) -> None:
    """One LCO image against the Pan-STARRS magnitudes matched to it, as the i band."""
    stars = fits.getdata(next(folder.glob("cpt1m012*matched-cat.fits.gz")))
    stars = stars[(stars["flux"] > 0) & (stars["flag"] == 0)]
    rate = stars["flux"] / 250.032
    psfcat = _psfcat(stars["ra"], stars["dec"], -2.5 * np.log10(rate), 1.0857 * stars["fluxerr"] / stars["flux"])
    psfcat["flux"], psfcat["sigflux"] = rate, stars["fluxerr"] / 250.032
    psfcat["xpos"], psfcat["ypos"] = stars["x"], stars["y"]
    ps1 = _ps1(stars["ra"], stars["dec"], {band: (stars[f"{band}mag"], stars[f"{band}magerr"]) for band in "gri"})
    config = ZeroPointConfig(bright_limit=10.0, isolation_arcsec=0.0)
    found = fit_zero_point(psfcat, ps1, filter_code="zi", shape=(4096, 4096), config=config)
    zero_point, colour, scatter, tolerance = LCO
    figure("real.lco_zp_mag", found.magzp - zero_point, "mag", found.nmatches, tolerance)
    figure("real.lco_colour", found.clrcoeff - colour, "mag/mag", found.nmatches, scatter)
    figure("real.lco_rms_mag", found.magzprms, "mag", found.nmatches, scatter)


def _dr14(folder: Path) -> None:
    """Mean magnitudes of ZTF's data release against PS1: the colour terms of the real filters. Stars get places in one field."""
    table = pyarrow.parquet.read_table(folder / "gaia_dr3_x_ztf_dr14_ps1.parquet")
    magnitudes = {band: table[f"ps1_{band}MeanPSFMag_ztf_dr14"].to_numpy().astype(float) for band in "gri"}
    row, column = np.divmod(np.arange(len(table)), 200)
    ra, dec = 150.0 + column * 0.005, row * 0.005
    for code, (colour, scatter) in DR14.items():
        mag, count = (table[f"{name}_{code[1]}_ztf_dr14"].to_numpy().astype(float) for name in ("mean_mag", "nobs"))
        good = (mag > 0) & (count > 20)
        psfcat = _psfcat(ra[good], dec[good], mag[good], np.full(good.sum(), 0.003))
        ps1 = _ps1(ra[good], dec[good], {band: (values[good], np.full(good.sum(), 0.003)) for band, values in magnitudes.items()})
        found = fit_zero_point(psfcat, ps1, filter_code=code, shape=(3080, 3072), config=ZeroPointConfig(min_expected_snr=5.0))
        figure(f"real.dr14_colour.{code}", found.clrcoeff - colour, "mag/mag", found.nmatches, scatter)
        figure(f"real.dr14_zp_mag.{code}", found.magzp, "mag", found.nmatches, scatter)
        figure(f"real.dr14_rms_mag.{code}", found.magzprms, "mag", found.nmatches, scatter)


def _psfcat(ra, dec, mag, sigmag) -> np.ndarray:
    rows = np.zeros(len(ra), dtype_of(PSFCAT))
    rows["ra"], rows["dec"], rows["mag"], rows["sigmag"] = ra, dec, mag, sigmag
    rows["flux"], rows["chi"] = 10.0 ** (-0.4 * rows["mag"]), 1.0
    rows["sigflux"] = rows["flux"] * rows["sigmag"] / 1.0857
    rows["xpos"] = rows["ypos"] = 1500.0
    return rows


def _ps1(ra, dec, magnitudes: dict) -> np.ndarray:
    rows = np.zeros(len(ra), dtype_of(PS1))
    rows["raMean"], rows["decMean"], rows["sgscore"], rows["nDetections"] = ra, dec, 1.0, 10
    for band in "griz":
        rows[f"{band}MeanPSFMag"], rows[f"{band}MeanPSFMagErr"] = magnitudes.get(band, (-999.0, -999.0))
    return rows
