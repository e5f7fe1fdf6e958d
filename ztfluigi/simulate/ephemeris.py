"""Where Sun, Moon and field stand over the observatory at a time, for raw headers and airmasses."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from astropy.coordinates import get_body_barycentric
from astropy.time import Time

from ztfluigi.model.camera import Camera

SECONDS_PER_AU = 499.004784


@dataclass(frozen=True)
class Circumstances:
    """Angles in degrees; azimuth from north through east; `moon_phase` is the Sun-Moon-observer angle."""

    ra: float
    dec: float
    sidereal_deg: float
    hour_angle_deg: float
    azimuth: float
    altitude: float
    airmass: float
    sun_azimuth: float
    sun_altitude: float
    moon_ra: float
    moon_dec: float
    moon_altitude: float
    moon_illuminated: float
    moon_phase: float
    hjd: float


def circumstances(camera: Camera, obsjd: float, ra: float, dec: float) -> Circumstances:
    """Circumstances of an observation of (ra, dec) at a JD (UTC). Good to a tenth of a degree: precession is left out."""
    time = Time(obsjd, format="jd", scale="utc")
    earth = get_body_barycentric("earth", time, ephemeris="builtin").xyz.to_value("au")
    sun = get_body_barycentric("sun", time, ephemeris="builtin").xyz.to_value("au") - earth
    moon = get_body_barycentric("moon", time, ephemeris="builtin").xyz.to_value("au") - earth
    sidereal = (280.46061837 + 360.98564736629 * (obsjd - 2451545.0) + camera.longitude_deg) % 360.0
    azimuth, altitude = _horizon(camera, sidereal, ra, dec)
    sun_azimuth, sun_altitude = _horizon(camera, sidereal, *_direction(sun))
    moon_ra, moon_dec = _direction(moon)
    to_sun = sun - moon
    phase = np.degrees(np.arccos(np.clip(-(to_sun @ moon) / np.linalg.norm(to_sun) / np.linalg.norm(moon), -1, 1)))
    alpha, delta = np.radians([ra, dec])
    star = np.array([np.cos(delta) * np.cos(alpha), np.cos(delta) * np.sin(alpha), np.sin(delta)])
    return Circumstances(ra, dec, sidereal, float((sidereal - ra + 180.0) % 360.0 - 180.0), azimuth, altitude, hardie_airmass(altitude),
                         sun_azimuth, sun_altitude, moon_ra, moon_dec, _horizon(camera, sidereal, moon_ra, moon_dec)[1],
                         float(0.5 * (1.0 + np.cos(np.radians(phase)))), float(phase),
                         float(obsjd - SECONDS_PER_AU * (star @ sun) / 86400.0))


def hardie_airmass(altitude: float) -> float:
    """Airmass by Hardie's formula; that of 10 degrees below it."""
    z = 1.0 / np.sin(np.radians(max(altitude, 10.0))) - 1.0
    return float(1.0 + z - 0.0018167 * z - 0.002875 * z**2 - 0.0008083 * z**3)


def _direction(vector: np.ndarray) -> tuple[float, float]:
    return float(np.degrees(np.arctan2(vector[1], vector[0])) % 360.0), float(np.degrees(np.arcsin(vector[2] / np.linalg.norm(vector))))


def _horizon(camera: Camera, sidereal: float, ra: float, dec: float) -> tuple[float, float]:
    hour, dec, lat = np.radians([sidereal - ra, dec, camera.latitude_deg])
    altitude = np.arcsin(np.sin(lat) * np.sin(dec) + np.cos(lat) * np.cos(dec) * np.cos(hour))
    azimuth = np.arctan2(-np.cos(dec) * np.sin(hour), np.sin(dec) * np.cos(lat) - np.cos(dec) * np.cos(hour) * np.sin(lat))
    return float(np.degrees(azimuth) % 360.0), float(np.degrees(altitude))
