"""A camera is data: one TOML description gives CCDs, quadrants, amplifiers, layout, filters and fields. Nothing else knows 3072."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path

import numpy as np

from ztfluigi.model.errors import ConfigError
from ztfluigi.model.ids import rcid
from ztfluigi.model.wcs import TpvWcs, deproject


@dataclass(frozen=True)
class Amplifier:
    """One quadrant's readout channel.

    gain [electron/DN], read_noise [electron], nonlinearity (A, B) of DN_true = x / (A x^2 + B x + 1) [DN],
    offset_deg (east, north) of the quadrant centre from the field centre, tangent plane [deg].
    """

    ccdid: int
    qid: int
    gain: float
    read_noise: float
    nonlinearity: tuple[float, float]
    offset_deg: tuple[float, float]


@dataclass(frozen=True)
class Filter:
    """One passband: fid, code (`zr`), zero point of a 30 s exposure at airmass 1 [mag], PS1 colour, coefficient, LEDs of its flats."""

    code: str
    fid: int
    zero_point: float
    sky_dn: float
    colour_coefficient: float
    colour: str
    leds: tuple[int, ...]


@dataclass(frozen=True)
class Camera:
    """Everything that is true of the instrument, whatever the night."""

    name: str
    ccds: tuple[int, ...]
    shape: tuple[int, int]
    overscan_columns: int
    pixel_scale_arcsec: float
    saturation_dn: float
    bias_level_dn: float
    dark_electron_per_s: float
    exposure_s: float
    readout_s: float
    longitude_deg: float
    latitude_deg: float
    altitude_m: float
    amplifiers: tuple[Amplifier, ...]
    filters: tuple[Filter, ...]
    distortion: tuple[dict[int, float], dict[int, float]]
    fields_file: str

    @property
    def quadrants(self) -> tuple[tuple[int, int], ...]:
        """All (ccdid, qid)."""
        return tuple((a.ccdid, a.qid) for a in self.amplifiers)

    def amplifier(self, ccdid: int, qid: int) -> Amplifier:
        """The readout channel of a quadrant; ConfigError when the camera has none."""
        for amp in self.amplifiers:
            if (amp.ccdid, amp.qid) == (ccdid, qid):
                return amp
        raise ConfigError(f"camera {self.name} has no quadrant ccd {ccdid}, q {qid}")

    def filter(self, code: str) -> Filter:
        """Filter by code; ConfigError when the camera has none."""
        for item in self.filters:
            if item.code == code:
                return item
        raise ConfigError(f"camera {self.name} has no filter {code!r}")

    @property
    def crpix(self) -> tuple[float, float]:
        """FITS pixel of a quadrant's centre."""
        return (self.shape[1] + 1) / 2.0, (self.shape[0] + 1) / 2.0

    @property
    def site(self) -> tuple[float, float, float]:
        """The observatory: longitude (east) and latitude [deg], altitude [m]."""
        return self.longitude_deg, self.latitude_deg, self.altitude_m

    def nominal_wcs(self, ccdid: int, qid: int, ra: float, dec: float) -> TpvWcs:
        """Where a quadrant looks when the field centre is (ra, dec) [deg]: x to the west, y to the south, distortion prior included."""
        east, north = self.amplifier(ccdid, qid).offset_deg
        centre = deproject(east, north, ra, dec)
        scale = self.pixel_scale_arcsec / 3600.0
        return TpvWcs(self.crpix, (float(centre[0]), float(centre[1])), ((-scale, 0.0), (0.0, -scale)), *self.distortion)

    def fields(self) -> dict[int, tuple[float, float]]:
        """Field grid: id -> (ra, dec) [deg]."""
        return _load_fields(self.fields_file)

    def rcids(self) -> tuple[int, ...]:
        return tuple(rcid(c, q) for c, q in self.quadrants)


@lru_cache
def _load_fields(name: str) -> dict[int, tuple[float, float]]:
    with resources.files("ztfluigi.data").joinpath(name).open() as lines:
        table = np.loadtxt(lines, comments="%", usecols=(0, 1, 2))
    return {int(row[0]): (float(row[1]), float(row[2])) for row in np.atleast_2d(table)}


@lru_cache
def load_camera(name: str) -> Camera:
    """Read `data/cameras/<name>.toml`, or the file `name` itself when it ends in `.toml`; ConfigError in one sentence otherwise."""
    source = Path(name) if name.endswith(".toml") else resources.files("ztfluigi.data").joinpath("cameras", f"{name}.toml")
    if not source.is_file():
        known = sorted(p.name[:-5] for p in resources.files("ztfluigi.data").joinpath("cameras").iterdir() if p.name.endswith(".toml"))
        raise ConfigError(f"camera {name!r} is not described; known cameras are {', '.join(known)}, or give the path of a .toml file")
    try:
        return _parse(tomllib.loads(source.read_text()))
    except (tomllib.TOMLDecodeError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"camera description {name!r} is not valid: {error!r}") from error


def _parse(raw: dict) -> Camera:
    amplifiers = tuple(Amplifier(a["ccdid"], a["qid"], a["gain"], a["read_noise"], tuple(a["nonlinearity"]), tuple(a["offset_deg"]))
                       for a in raw.pop("amplifier"))
    filters = tuple(Filter(f["code"], f["fid"], f["zero_point"], f["sky_dn"], f["colour_coefficient"], f["colour"], tuple(f["leds"]))
                    for f in raw.pop("filter"))
    distortion = raw.pop("distortion", {})
    pv = tuple({int(k): float(v) for k, v in distortion.get(axis, {"1": 1.0}).items()} for axis in ("pv1", "pv2"))
    return Camera(amplifiers=amplifiers, filters=filters, distortion=pv, ccds=tuple(sorted({a.ccdid for a in amplifiers})),
                  shape=tuple(raw.pop("shape")), **raw)
