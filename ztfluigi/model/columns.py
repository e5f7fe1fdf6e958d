"""Catalogue columns: name, dtype, unit and meaning, once for every reader and writer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Column:
    """One table column; `dtype` is a numpy format, with a shape for vector columns (`(6,)f4`)."""

    name: str
    dtype: str
    unit: str
    meaning: str


def dtype_of(columns: tuple[Column, ...]) -> np.dtype:
    """Structured dtype of a column list."""
    return np.dtype([(c.name, c.dtype) for c in columns])


PSFCAT = (
    Column("sourceid", "i4", "", "index, from 0"),
    Column("xpos", "f4", "pix", "x, FITS pixels (first pixel centre is 1)"),
    Column("ypos", "f4", "pix", "y, FITS pixels (first pixel centre is 1)"),
    Column("ra", "f8", "deg", "right ascension, ICRS"),
    Column("dec", "f8", "deg", "declination, ICRS"),
    Column("flux", "f4", "DN", "PSF-fit flux"),
    Column("sigflux", "f4", "DN", "1-sigma uncertainty of flux, confusion by unresolved neighbours included"),
    Column("mag", "f4", "mag", "instrumental magnitude, -2.5 log10(flux)"),
    Column("sigmag", "f4", "mag", "1-sigma uncertainty of mag"),
    Column("snr", "f4", "", "flux / sigflux"),
    Column("chi", "f4", "", "RMS of the fit residuals over their expectation"),
    Column("sharp", "f4", "", "0 point source, positive extended, negative spike"),
    Column("flags", "i2", "", "OR of the mask bits in the 5 x 5 pixels at the source"),
)
"""PSF-fit catalogue (psfcat, refpsfcat): science.md 4. Internally (in the algorithm room) xpos, ypos are the same FITS pixels."""

FIXED_APERTURES_PIX = (2.0, 3.0, 4.0, 6.0, 10.0, 14.0)
"""Diameters of the fixed apertures [pix] (FIXAPERS)."""

GAIA = (
    Column("source_id", "i8", "", "Gaia identifier"),
    Column("ra", "f8", "deg", "right ascension at ref_epoch, ICRS"),
    Column("dec", "f8", "deg", "declination at ref_epoch, ICRS"),
    Column("ra_error", "f4", "mas", "standard error of ra (with cos dec)"),
    Column("dec_error", "f4", "mas", "standard error of dec"),
    Column("parallax", "f4", "mas", "parallax"),
    Column("pmra", "f4", "mas/yr", "proper motion in ra, with cos dec"),
    Column("pmdec", "f4", "mas/yr", "proper motion in dec"),
    Column("ref_epoch", "f8", "yr", "Julian year of the position"),
    Column("phot_g_mean_mag", "f4", "mag", "G"),
    Column("phot_bp_mean_mag", "f4", "mag", "BP"),
    Column("phot_rp_mean_mag", "f4", "mag", "RP"),
)
"""Astrometric calibrators (interfaces.md 2)."""

PS1 = (
    Column("objID", "i8", "", "PS1 object identifier"),
    Column("raMean", "f8", "deg", "right ascension"),
    Column("decMean", "f8", "deg", "declination"),
    *(c for band in "griz" for c in (Column(f"{band}MeanPSFMag", "f4", "mag", f"mean PSF magnitude, {band}, AB"),
                                     Column(f"{band}MeanPSFMagErr", "f4", "mag", f"its standard error, {band}"))),
    Column("nDetections", "i4", "", "single-epoch detections in all filters"),
    Column("sgscore", "f4", "", "1 star to 0 galaxy"),
)
"""Photometric calibrators (interfaces.md 2)."""
