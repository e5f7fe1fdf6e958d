"""Real star lists through our astrometry and zero point: HSC CCDs against Gaia DR3, IPAC's own WCS, an LCO image, ZTF DR14 against PS1."""

from __future__ import annotations

import tarfile
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
from ztfluigi.model.wcs import TpvWcs, deproject, project, separation_arcsec

HSC_SHAPE = (4176, 2048)
HSC_CONFIG = AstrometryConfig(bright_limit=13.0, faint_limit=21.5, search_radius_arcsec=20.0, max_rotation_deg=0.1, distortion_tolerance=0.02)
"""Another camera, other settings: in 270 s on 8 m the faint stars of Gaia are the unsaturated ones."""
RIGHT_ARCSEC = 5.0
"""The rough headers are good to half an arcsecond: a solution this far from them is another patch of sky."""
AB_NJY = 31.4
MAS_PER_RAD = np.degrees(1.0) * 3.6e6

LCO_ZP, LCO_COLOUR, LCO_TOLERANCE = 23.091, 0.027, 0.1
"""Zero point and colour term of the README's fit, and the tolerance of the origin's own test [mag]."""
DR14 = {"zg": (0.007, -0.068), "zr": (-0.012, 0.107), "zi": (-0.003, 0.209)}
"""Zero point and CLRCOEFF of the README's fits of ZTF - PS1, signs turned."""
TOLERANCE_MAG, TOLERANCE_COLOUR = 0.003, 0.005


def measure(data: Path) -> None:
    """Print the figures of the four sets."""
    _hsc(data / "astrom-hsc-gaia")
    _ipac_wcs(data / "ztf-sciimg")
    _lco(data / "refcat-phot")
    _dr14(data / "refcat-phot")


# -- astrometry --------------------------------------------------------------------------------------------------------------------

def _hsc(folder: Path) -> None:
    """Every CCD from its rough header; a quarter of the stars, left out of another fit, shows that it holds between its stars."""
    gaia, rms, held, wrong = _gaia(folder / "gaia_dr3_refcat.parquet"), [], [], 0
    ccds = _ccds(folder / "hsc_visit1180_even_detectors.tar.gz")
    for (name, rough, detections, jd), prior in zip(ccds, _with_distortion([wcs for _, wcs, _, _ in ccds]), strict=True):
        try:
            found = astrometry.solve(detections, gaia, prior=prior, jd=jd, shape=HSC_SHAPE, config=HSC_CONFIG)
        except Unusable:
            figure(f"real.hsc_rms_mas.{name}", np.nan, "mas", len(detections), None)
            continue
        offsets = np.concatenate([found.residuals["dra_mas"], found.residuals["ddec_mas"]])
        rms.append(float(np.sqrt(np.mean(offsets**2))))
        figure(f"real.hsc_rms_mas.{name}", rms[-1], "mas", len(found.residuals), None)
        middle = HSC_SHAPE[1] / 2.0, HSC_SHAPE[0] / 2.0
        wrong += bool(separation_arcsec(*found.wcs.sky(*middle), *rough.sky(*middle)) > RIGHT_ARCSEC)
        held.append(_left_out(detections, gaia, prior, jd))
    held = np.concatenate(held)
    figure("real.hsc_solved", len(rms) / len(ccds), "fraction", len(ccds), 1.0)
    figure("real.hsc_wrong", wrong, "solutions", len(ccds), 0)
    figure("real.hsc_rms_mas", np.median(rms), "mas", len(rms), None)
    figure("real.hsc_left_out_mas", 1.4826 * np.median(np.abs(held)), "mas", len(held), None)


def _ccds(path: Path) -> list[tuple[str, TpvWcs, np.ndarray, float]]:
    """(number, rough WCS, detections, mid-exposure JD) of every CCD."""
    ccds = []
    with tarfile.open(path) as tar:
        for member in sorted(tar.getmembers(), key=lambda m: int(m.name.split("_")[1].split(".")[0])):
            with fits.open(BytesIO(tar.extractfile(member).read())) as hdus:
                ccds.append((member.name.split("_")[1].split(".")[0], TpvWcs.from_cards(hdus[0].header), _detections(hdus[1].data),
                             float(hdus[0].header["MJD"]) + 2400000.5))
    return ccds


def _with_distortion(rough: list[TpvWcs]) -> list[TpvWcs]:
    """Each CCD's header with the camera's cubic radial distortion, which the headers imply: their local scales grow with the distance from
    the axis as those of r = rho + k rho^3."""
    middle = HSC_SHAPE[1] / 2.0, HSC_SHAPE[0] / 2.0
    centres = np.array([wcs.sky(*middle) for wcs in rough])
    axis = centres.mean(axis=0)
    plane = np.column_stack(project(*centres.T, *axis))
    area = np.array([abs(np.linalg.det(np.array(wcs.cd))) for wcs in rough])
    slope, level = np.polyfit(np.sum(plane**2, axis=1), area, 1)
    cubic = slope / level / 4.0  # the area grows as (1 + 3 k rho^2)(1 + k rho^2)
    x, y = (grid.ravel() for grid in np.meshgrid(np.linspace(0, HSC_SHAPE[1], 7), np.linspace(0, HSC_SHAPE[0], 9)))
    priors = []
    for wcs, centre in zip(rough, plane, strict=True):
        rho = centre.copy()
        for _ in range(20):
            rho = centre / (1.0 + cubic * np.sum(rho**2))
        local = (1.0 + cubic * np.sum(rho**2)) * np.eye(2) + 2.0 * cubic * np.outer(rho, rho)
        # the header's linear step on the sky, back through the local scale to the focal plane, and through the whole law again
        step = np.column_stack(project(*wcs.sky(x, y), *axis)) - centre
        focal = rho + step @ np.linalg.inv(local).T
        sky = deproject(*(focal * (1.0 + cubic * np.sum(focal**2, axis=1, keepdims=True))).T, *axis)
        priors.append(fit_tpv(x, y, *sky, np.full(x.size, 1e-14), start=wcs, prior=wcs, order=4, tolerance=10.0))
    return priors


def _left_out(detections, gaia, prior: TpvWcs, jd: float) -> np.ndarray:
    """Offsets [mas] of every fourth detection from Gaia by the solution of the others; empty without such a solution."""
    try:
        wcs = astrometry.solve(np.delete(detections, np.s_[::4]), gaia, prior=prior, jd=jd, shape=HSC_SHAPE, config=HSC_CONFIG).wcs
    except Unusable:
        return np.zeros(0)
    ra, dec = astrometry.carry_to_epoch(gaia, jd)
    rest = detections[::4]
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
    read = pyarrow.parquet.read_table(path)
    known = np.isfinite(read["coord_ra"].to_numpy()) & (read["phot_g_mean_flux"].to_numpy() > 0)
    table = {name: read[name].to_numpy()[known] for name in read.column_names}
    rows = np.zeros(int(known.sum()), dtype_of(GAIA))
    rows["source_id"], rows["ref_epoch"] = table["id"], 2016.0
    rows["ra"], rows["dec"] = np.degrees(table["coord_ra"]), np.degrees(table["coord_dec"])
    for name, column in (("ra_error", "coord_raErr"), ("dec_error", "coord_decErr"), ("parallax", "parallax"), ("pmra", "pm_ra"),
                         ("pmdec", "pm_dec")):
        rows[name] = table[column] * MAS_PER_RAD
    for name in ("g", "bp", "rp"):
        rows[f"phot_{name}_mean_mag"] = AB_NJY - 2.5 * np.log10(table[f"phot_{name}_mean_flux"])
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
    # Kron fluxes: faint ones lose light, so only those of high signal-to-noise
    config = ZeroPointConfig(bright_limit=10.0, isolation_arcsec=0.0, min_expected_snr=100.0)
    found = fit_zero_point(psfcat, ps1, filter_code="zi", shape=(4096, 4096), config=config)
    figure("real.lco_zp_mag", found.magzp - LCO_ZP, "mag", found.nmatches, LCO_TOLERANCE)
    # the fit of the README has the same errors
    figure("real.lco_colour", found.clrcoeff - LCO_COLOUR, "mag/mag", found.nmatches, round(np.sqrt(2.0) * found.clrcounc, 4))
    figure("real.lco_rms_mag", found.magzprms, "mag", found.nmatches, None)


def _dr14(folder: Path) -> None:
    """Mean magnitudes of ZTF's data release against PS1: the colour terms of the real filters. Stars get places in one field."""
    table = pyarrow.parquet.read_table(folder / "gaia_dr3_x_ztf_dr14_ps1.parquet")
    magnitudes = {band: table[f"ps1_{band}MeanPSFMag_ztf_dr14"].to_numpy().astype(float) for band in "gri"}
    row, column = np.divmod(np.arange(len(table)), 200)
    ra, dec = 150.0 + column * 0.005, row * 0.005
    for code, (zero_point, colour) in DR14.items():
        mag, count = (table[f"{name}_{code[1]}_ztf_dr14"].to_numpy().astype(float) for name in ("mean_mag", "nobs"))
        good = (mag > 0) & (count > 20)
        psfcat = _psfcat(ra[good], dec[good], mag[good], np.full(good.sum(), 0.003))
        ps1 = _ps1(ra[good], dec[good], {band: (values[good], np.full(good.sum(), 0.003)) for band, values in magnitudes.items()})
        found = fit_zero_point(psfcat, ps1, filter_code=code, shape=(3080, 3072), config=ZeroPointConfig(min_expected_snr=5.0))
        figure(f"real.dr14_zp_mag.{code}", found.magzp - zero_point, "mag", found.nmatches, TOLERANCE_MAG)
        figure(f"real.dr14_colour.{code}", found.clrcoeff - colour, "mag/mag", found.nmatches, TOLERANCE_COLOUR)
        figure(f"real.dr14_rms_mag.{code}", found.magzprms, "mag", found.nmatches, None)


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
