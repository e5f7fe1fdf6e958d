"""Tables of a matchfile: columns, dtypes, units and meaning (matchfiles-lightcurves.md 1, 2), stored in alphabetical order."""

from __future__ import annotations

from ztfluigi.model.columns import Column

GROUP = "matches"
GROUP_TITLE = "Matched Sources"
GROUP_ATTRIBUTES = ("calibratedSinceLastMatch", "ccdID", "datetimeCalibrated", "datetimeMatched", "fieldID", "filterID", "globalMaglimit",
                    "goodSystematicErrorLimit", "nCalibrationSources", "quadrantID", "rcID", "referenceImageID", "referenceZeroPoint",
                    "referenceZeroPointErr", "saturatedMagnitude")
PERCENTILES = (5.0, 10.0, 17.5, 25.0, 32.5, 40.0, 60.0, 67.5, 75.0, 82.5, 90.0, 95.0)
"""Entries of the column percentiles."""
DEVIATIONS = (1, 3, 5)
"""Multiples of the standard deviation in the n...bystd columns."""


def _columns(text: str) -> tuple[Column, ...]:
    """Columns from lines `name dtype unit meaning`, `-` for no unit."""
    parts = (line.split(maxsplit=3) for line in text.strip().splitlines())
    return tuple(Column(name, dtype, "" if unit == "-" else unit, meaning) for name, dtype, unit, meaning in parts)


EXPOSURES = _columns("""
airmass f4 - airmass
clrcoeff f4 - linear colour coefficient of the photometric calibration
clrcounc f4 - its uncertainty
clrmed f4 mag median colour of the calibrators
clrrms f4 mag RMS of that colour
diq f4 pix image quality (FWHM)
expid u4 - exposure id
exptime f4 s exposure time
fieldid u4 - field
filterid u2 - 1 g, 2 r, 3 i
fracday u8 - filefracday of the exposure, 14 digits
gmedian f4 DN median of the image
infobits u4 - quality bits of the science image
ipac_pub_date f4 day MJD of publication
limitmag f4 mag 5-sigma limit
magzp f4 mag zero point
magzprms f4 mag RMS of the calibrators
magzpunc f4 mag uncertainty of magzp
nps1matches i4 - PS1 calibrators used
nsources i4 - sources in the catalogue
nstars i4 - of these, stars
ntransients i4 - of these, not in the reference
obshjd f8 day heliocentric Julian date
obsmjd f8 day start of the exposure, MJD
pcolor S8 - calibrator colour, `g-R` or `R-i`
programid u2 - programme
programpi S40 - its principal investigator
rcid u1 - readout channel
zpclrcov f4 mag2 covariance of magzp and clrcoeff
zpmed f4 mag median zero point without colour term
""")

SOURCES = _columns("""
astrometricrms f8 rad RMS of the positions
chisq f4 - reduced chi-square about the mean
con f4 - 1 + fraction of epochs in runs of 3 beyond 2 RMS from the median
dec f8 deg declination
lineartrend f4 mag/day slope of a straight line
magrms f4 mag standard deviation of the good epochs
matchid i4 - id of the source, the sourceid of the reference catalogue
maxmag f4 mag faintest good epoch
maxslope f4 mag/day largest pairwise slope
meanmag f4 mag mean of the good epochs
medianabsdev f4 mag median absolute deviation from the median
medianmag f4 mag median of the good epochs
medmagerr f4 mag median uncertainty
minmag f4 mag brightest good epoch
nabovemeanbystd (3,)u2 - epochs more than 1, 3, 5 sigma above the mean
nbelowmeanbystd (3,)u2 - epochs more than 1, 3, 5 sigma below the mean
nconsecabovemeanbystd (3,)u2 - longest run of epochs 1, 3, 5 sigma above
nconsecbelowmeanbystd (3,)u2 - longest run of epochs 1, 3, 5 sigma below
nconsecfrommeanbystd (3,)u2 - longest run of epochs 1, 3, 5 sigma away on either side
ngoodobs u2 - epochs with good flags
ngoodobsrel u2 - of these, kept by relative photometry
nmedianbufferrange u2 - epochs within 20 % of the amplitude around the median
nobs u2 - epochs
nobsrel u2 - epochs kept by relative photometry
npairposslope u2 - successive pairs of epochs with positive slope
percentiles (12,)f4 mag magnitudes at the percentiles of PERCENTILES
ra f8 deg right ascension
refchi f4 - chi in the reference catalogue
refmag f4 mag magnitude in the reference catalogue
refmagerr f4 mag its uncertainty
refsharp f4 - sharp in the reference catalogue
refsnr f4 - S/N in the reference catalogue
skewness f4 - skewness, corrected for small samples
smallkurtosis f4 - kurtosis, corrected for small samples
stetsonj f4 - Stetson J
stetsonk f4 - Stetson K
uncalibmeanmag f4 mag mean before relative photometry
vonneumannratio f4 - mean squared successive difference over variance
weightedmagrms f4 mag inverse-variance weighted standard deviation
weightedmeanmag f4 mag inverse-variance weighted mean
x f8 - unit vector of the position
y f8 - unit vector of the position
z f8 - unit vector of the position
""")
"""Objects of the reference; `transients`, objects that are not in it, has the same columns."""

SOURCEDATA = _columns("""
catflags u2 - OR of the mask bits in 5 x 5 pixels; 32768: poor epoch
chi f4 - chi of the PSF fit
dec f8 deg declination measured
expid u4 - exposure id
hjd f8 day heliocentric Julian date of mid-exposure
mag f4 mag calibrated magnitude without colour term
magerr f4 mag uncertainty from the empirical error model
magerrmodel f4 mag formal uncertainty of the PSF fit
matchid u4 - id of the source
mjd f8 day mid-exposure, MJD
programid u2 - programme
psfflux f4 DN PSF-fit flux
psffluxerr f4 DN its uncertainty
ra f8 deg right ascension measured
sharp f4 - sharp of the PSF fit
xpos f4 pix x, FITS pixels
ypos f4 pix y, FITS pixels
""")

TRANSIENTDATA = tuple(sorted((*SOURCEDATA, *_columns("""
psfmag f4 mag PSF-fit magnitude
psfmagerr f4 mag its uncertainty
sid u8 - id of the detection
snr f4 - S/N
x f8 - unit vector of the position
y f8 - unit vector of the position
z f8 - unit vector of the position
""")), key=lambda column: column.name))

TABLES = {"exposures": EXPOSURES, "sources": SOURCES, "sourcedata": SOURCEDATA, "transients": SOURCES, "transientdata": TRANSIENTDATA}
"""Tables of the group `matches`, in the order of reading."""
TABLE_ATTRIBUTES = {"sourcedata": ("A", "B", "C", "D"), "transientdata": ("deletedRows",)}
"""Attributes of tables: coefficients of the error model A + B m + C 10^(0.4 m) + D 10^(0.8 m); rows marked as deleted."""
