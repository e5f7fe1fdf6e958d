"""Raw CCD files as the camera writes them: the full set of cards in ZTF's order, written under a temporary name and renamed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np

from targets.codecs.raw import write_raw
from targets.paths import RawName
from ztfluigi.model.camera import Camera
from ztfluigi.model.header import Card
from ztfluigi.model.ids import FILTER_NAMES, FILTERS, IMAGE_TYPES, night_id
from ztfluigi.simulate.ephemeris import Circumstances
from ztfluigi.simulate.optics import SHUTTER_LOSS_S, Conditions
from ztfluigi.simulate.seeds import generator

AMP_LETTERS = "HGFE"
"""Amplifier letter of AMP_ID 0 to 3."""
LED_WAVELENGTH_NM = {2: 423.0, 3: 448.0, 4: 473.0, 5: 525.0, 7: 590.0, 8: 617.0, 9: 627.0, 10: 660.0, 11: 740.0, 12: 780.0, 13: 850.0}
_J2000 = datetime(2000, 1, 1, 12)


def primary_cards(camera: Camera, name: RawName, conditions: Conditions, circumstances: Circumstances, *, frame: int, led: int | None,
                  programid: int = 1) -> list[Card]:
    """Cards of HDU 0 (fact sheet raw.md), in ZTF's order with ZTF's comments."""
    sensors = generator(conditions.number, "sensors")
    c, sky = circumstances, name.type == "o"
    ra, dec = c.ra, c.dec
    fid = FILTERS.get(name.filter, 2)
    filename = name.filename.removesuffix(".fz")
    exptime = conditions.exptime
    opened = _J2000 + timedelta(seconds=round((conditions.obsjd - 2451545.0) * 86400) + conditions.shutter_delay_s)
    closed = opened + timedelta(seconds=exptime - SHUTTER_LOSS_S if exptime else 0.0)
    cards: list[Card] = [
        ("ORIGIN", "Zwicky Transient Facility", "Data origin"), ("OBSERVER", "ZTF Robotic Software", "Observer"),
        ("ROBOSOFT", "simulated", "Robotic software version"), ("FITSSOFT", "simulated", "FITS software version"),
        ("INSTRUME", "ZTF/MOSAIC", "Instrument name"), ("DETECTOR", "", "Detector controller"),
        ("DETSOFT", "", "Detector software version"),
        ("DETFIRM", "", "Detector firmware version"), ("IMGTYPE", IMAGE_TYPES[name.type], "Image type"),
        ("EXPOSURE", exptime, "Total Exposure Time (s)"), ("EXPTIME", exptime, "Requested Exposure Time (s)"),
        ("MODE_NUM", 0, "Mode identifying key"), ("CCDSUM", "1 1", "CCD binning"),
        ("PIXSCALE", round(camera.pixel_scale_arcsec, 3), "Pixel scale, in arcsec per pixel"), ("FILENAME", filename, "File name"),
        ("ORIGNAME", filename, "Original file name"), ("FRAMENUM", frame, "Detector frame number"),
        ("HEADTEMP", _near(sensors, 160.0, 0.3), "Cryo cooler cold head temp (K)"), ("DEWPRESS", 3.2e-06, "Dewar pressure (milli-torr)"),
        ("DETHEAT", 0.9, "Detector focal plane heater power (%)"),
        *((f"CCDTMP{n:02d}", str(_near(sensors, 167.5, 0.8)), f"CCD temperature{n:02d} (K)") for n in range(1, 17)),
        ("INST_X", -2.2e-06, "Hexapod X (RA) axis position (mm)"), ("INST_Y", -1.4e-06, "Hexapod Y (Dec) axis position (mm)"),
        ("FOCUSPOS", _near(sensors, 1.29, 0.03), "Hexapod Z (Focus) axis position (mm)"),
        ("THETA_X", 0.345805, "Hexapod rotation about INST_X (deg)"), ("THETA_Y", 0.2915, "Hexapod rotation about INST_Y (deg)"),
        ("INST_ROT", 3.4e-07, "Hexapod rotation about Z axis (deg)"), ("FIELDID", name.field, "ZTF field ID number"),
        ("OBJRA", _hms(ra, "h m s"), "Queue object right ascension"), ("OBJDEC", _dms(dec, "d m s"), "Queue object declination"),
        ("OBJRAD", round(ra, 7), "Object right ascension (deg)"), ("OBJDECD", round(dec, 7), "Object declination (deg)"),
        ("EQUINOX", 2000.0, "Equinox"), ("RA_RATE", 0.0, 'RA tracking rate ("/hr)'), ("DEC_RATE", 0.0, 'Dec tracking rate ("/hr)'),
        ("PROGRMPI", "Kulkarni", "Queue program PI"), ("REQUSTID", 1000 + conditions.number, "Queue request ID"),
        ("QCOMMENT", "all_sky" if sky else "calibration", "Queue comment"),
        ("TEMPTURE", _near(sensors, 14.0, 1.0), "Outside air temperature (C)"),
        ("WINDSPD", abs(_near(sensors, 2.0, 1.0)), "Outside wind speed"), ("WINDDIR", 168.0, "Outside wind direction (deg)"),
        ("DEWPOINT", 36.2, "Dewpoint (C)"), ("WETNESS", 0.0, "Wetness sensor reading"), ("HUMIDITY", _near(sensors, 25.0, 5.0), "Humitidy"),
        ("PRESSURE", -9999.0, "Atmospheric pressure, millibars"), ("CLOUDS", -9999.0, "Cloud sensor reading"),
        ("SUNAZ", round(c.sun_azimuth, 6), "Sun azimuth (deg)"), ("SUNALT", round(c.sun_altitude, 6), "Sun altitude (deg)"),
        ("MOONRA", round(c.moon_ra, 6), "Moon J2000.0 R.A. (deg)"), ("MOONDEC", round(c.moon_dec, 6), "Moon J2000.0 Dec. (deg)"),
        ("MOONALT", round(c.moon_altitude, 6), "Moon altitude (deg)"),
        ("MOONILLF", round(c.moon_illuminated, 6), "Moon illuminated fraction (frac)"),
        ("MOONPHAS", round(c.moon_phase, 6), "Moon phase angle (deg)"), ("MOONESB", 0.0, "Moon excess in sky brightness V-band"),
        ("PROGRMID", programid, "Queue program ID"), ("FILTERID", fid, "Filter ID code"),
        ("FILTER", FILTER_NAMES.get(name.filter, "ZTF_r"), "Filter name"), ("FILTPOS", fid, "Filter ID code"),
        ("OBSJD", round(conditions.obsjd, 7), "Julian day corresponds to UTC-OBS (day)"),
        ("OBSMJD", round(conditions.obsjd - 2400000.5, 7), "MJD corresponds to UTC-OBS (day)"),
        ("HJD", round(c.hjd, 7), "Heliocentric Julian Day (days)"), ("OBLST", _hms(c.sidereal_deg, ":"), "Local Sidereal Time"),
        ("HOURANG", _hms(c.hour_angle_deg, ":", signed=True), "Hour angle"), ("HOURANGD", round(c.hour_angle_deg / 15.0, 4), "Hour angle"),
        ("RA", _hms(ra, ":"), "Requested right ascension"), ("DEC", _dms(dec, ":"), "Requested declination"),
        ("RAD", round(ra, 6), "Requested right ascension (deg)"), ("DECD", round(dec, 6), "Requested declination (deg)"),
        ("TELRA", _hms(ra, ":"), "Telescope right ascension"), ("TELDEC", _dms(dec, ":"), "Telescope declination"),
        ("TELRAD", round(ra, 6), "Telescope right ascension (deg)"), ("TELDECD", round(dec, 6), "Telescope declination (deg)"),
        ("AZIMUTH", round(c.azimuth, 4), "Telescope azimuth (deg)"), ("ELVATION", round(c.altitude, 4), "Telescope elevation (deg)"),
        ("TRACKRA", 0.0, 'TCS RA non-sidereal tracking rate ("/hr)'), ("TRACKDEC", 0.0, 'TCS Dec non-sidereal tracking rate ("/hr)'),
        ("AIRMASS", round(conditions.airmass, 4), "Airmass (Hardie)"), ("DOME_AZ", round(c.azimuth, 2), "Dome azimuth (deg)"),
        ("WINDSCAL", 0.0, "Windscreen elevation (deg)"), ("OBSERVAT", "Palomar Observatory", "Observatory"),
        ("TELESCOP", "Palomar 48-inch", "Observatory telescope"), ("OBSLON", camera.longitude_deg, "Observatory longitude (deg)"),
        ("OBSLAT", camera.latitude_deg, "Observatory latitude (deg E)"), ("OBSALT", camera.altitude_m, "Observatory altitude (m)"),
        ("DOMESTAT", "Open" if sky else "Closed", "Dome status at beginning of exposure"),
        ("SHUTOPEN", _iso(opened), "Shutter open time"), ("SHUTCLSD", _iso(closed), "Shutter close time"),
        ("PIXSCALX", round(camera.pixel_scale_arcsec, 3), "Pixel scale in X"),
        ("PIXSCALY", round(camera.pixel_scale_arcsec, 3), "Pixel scale in Y"),
    ]
    if led is not None:
        cards += [("ILUM_LED", led, "Flat-field illuminator LED number"),
                  ("ILUMWAVE", LED_WAVELENGTH_NM.get(led, 0.0), "LED wavelength (nm)"),
                  ("ILUMPOWR", 50.0, "LED power")]
    return [*cards, ("NFRAMES", 8, "number of frames in FITS file")]


def quadrant_cards(camera: Camera, ccdid: int, qid: int, field_centre: tuple[float, float]) -> list[Card]:
    """Cards of HDU qid: the amplifier and the nominal coordinates of the commanded pointing."""
    amplifier = camera.amplifier(ccdid, qid)
    wcs = camera.nominal_wcs(ccdid, qid, *field_centre)
    comments = {"CTYPE1": "Name of coord X axis", "CTYPE2": "Name of coord Y axis", "CRPIX1": "Coord system X ref pixel",
                "CRPIX2": "Coord system Y ref pixel",
                "CRVAL1": "Coord system value at CRPIX1", "CRVAL2": "Coord system value at CRPIX2", "CUNIT1": "Coordinate units for X axis",
                "CUNIT2": "Coordinate units for Y axis"}
    return [("EXTNAME", str(qid), ""), ("HDUVERS", 1, ""), ("CCD_ID", ccdid, "ID value of CCD detector"),
            ("CCDNAME", f"S{ccdid:02d}", "Detector name or serial number"), ("AMP_ID", qid - 1, "ID value of CCD amplifier"),
            ("AMP_NAME", AMP_LETTERS[qid - 1], "Name of CCD amplifier"), ("GAIN", amplifier.gain, "Gain e-/adu"),
            ("READNOI", amplifier.read_noise, "Read noise e-"), ("DARKCUR", 1.0, "Dark current e-/s @ 150 K"),
            ("WCSVERS", "2.1", "WCS version number"), ("WCSAXES", 2, "Number of WCS axes"),
            ("WCSNAME", "ZTF", "Name of the WCS coordinate system"),
            ("RADESYS", "ICRS", "Coordinate reference system"),
            *((key, value, comments.get(key, "WCS matrix")) for key, value in wcs.cards().items() if not key.startswith("PV")),
            ("CCD_ROT", 0.0, "CCD rotation angle")]


def write(root: Path, name: RawName, primary: Sequence[Card], images: Sequence[np.ndarray], overscans: Sequence[np.ndarray],
          quadrants: Sequence[Sequence[Card]], *, spoil=None) -> Path:
    """Write a file to `incoming` of a data root; `spoil(path)` may damage it before it gets its name."""
    final = Path(root) / name.incoming
    final.parent.mkdir(parents=True, exist_ok=True)
    aside = final.with_name(f".tmp-{os.getpid()}-{final.name}")
    write_raw(aside, primary, images, overscans, quadrants)
    if spoil is not None:
        spoil(aside)
    aside.replace(final)
    return final


def file_night(obsjd: float) -> str:
    """`YYYYMMDD` of a time."""
    return (datetime(2017, 1, 1) + timedelta(days=night_id(obsjd))).strftime("%Y%m%d")


def exposure_name(request_jd: float) -> str:
    """filefracday of the time at which an exposure was requested."""
    nid = night_id(request_jd)
    return f"{file_night(request_jd)}{int((request_jd - 2457754.5 - nid) * 1e6):06d}"


def _near(rng, value: float, spread: float) -> float:
    return round(float(rng.normal(value, spread)), 3)


def _iso(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds")


def _sexagesimal(value: float, separator: str, digits: int) -> str:
    ticks = round(abs(value) * 3600 * 10**digits)
    minutes, rest = divmod(ticks, 60 * 10**digits)
    hours, minutes = divmod(minutes, 60)
    marks = separator.split() if " " in separator else [separator, separator, ""]
    seconds = f"{rest / 10**digits:0{3 + digits if digits else 2}.{digits}f}"
    return f"{hours:02d}{marks[0]}{minutes:02d}{marks[1]}{seconds}{marks[2]}"


def _hms(degrees: float, separator: str, signed: bool = False) -> str:
    hours = degrees / 15.0 if signed else (degrees / 15.0) % 24.0
    hours = 0.0 if hours > 24.0 - 5e-3 / 3600 else hours
    return ("-" if hours < 0 else "+") + _sexagesimal(hours, separator, 2)


def _dms(degrees: float, separator: str) -> str:
    return ("-" if degrees < 0 else "+") + _sexagesimal(degrees, separator, 1)
