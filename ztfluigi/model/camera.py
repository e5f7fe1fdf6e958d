"""A camera is data: one TOML description gives CCDs, quadrants, amplifiers, layout, filters and fields. Nothing else knows 3072."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, replace
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

    gain [electron/DN], read_noise [electron], nonlinearity (A, B) of DN_true = x / (A x^2 + B x + 1) [DN], the newest or that of
    `Camera.on`, offset_deg (east, north) of the quadrant centre from the field centre, tangent plane [deg].
    linearity : (JD, A, B) rows, each valid from its time on, the first one also before.
    """

    ccdid: int
    qid: int
    gain: float
    read_noise: float
    nonlinearity: tuple[float, float]
    offset_deg: tuple[float, float]
    linearity: tuple[tuple[float, float, float], ...] = ()


@dataclass(frozen=True)
class Ghost:
    """A reflection in the optics: a flat ring that holds `light` of a star's light between two radii [pix].

    Its centre lies at middle + scale (star - middle) + offset, middle being that of the quadrant, offset (x, y) [pix].
    """

    light: float
    inner_pix: float
    outer_pix: float
    scale: float
    offset_pix: tuple[float, float]

    def centre(self, x, y, shape: tuple[int, int]):
        """Zero-based (x, y) of the reflections of stars at zero-based x, y on a quadrant of `shape`."""
        middle = (shape[1] - 1) / 2, (shape[0] - 1) / 2
        return tuple(m + self.scale * (np.asarray(p) - m) + o for m, p, o in zip(middle, (x, y), self.offset_pix, strict=True))

    def brightness(self, light_dn):
        """Light per pixel of the ring [DN] for stars of `light_dn`."""
        return self.light * np.asarray(light_dn) / (np.pi * (self.outer_pix**2 - self.inner_pix**2))


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
    ghosts: tuple[Ghost, ...] = ()

    def on(self, jd: float) -> Camera:
        """The camera as it was at a time: amplifiers with the non-linearity measured last before then."""
        if not any(a.linearity for a in self.amplifiers):
            return self
        rows = [next((row for row in reversed(a.linearity) if row[0] <= jd), (a.linearity or ((0.0, *a.nonlinearity),))[0])
                for a in self.amplifiers]
        return replace(self, amplifiers=tuple(replace(a, nonlinearity=row[1:]) for a, row in zip(self.amplifiers, rows, strict=True)))

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
    amplifiers = tuple(_amplifier(item) for item in raw.pop("amplifier"))
    ghosts = tuple(Ghost(**{**item, "offset_pix": tuple(item["offset_pix"])}) for item in raw.pop("ghost", ()))
    filters = tuple(Filter(f["code"], f["fid"], f["zero_point"], f["sky_dn"], f["colour_coefficient"], f["colour"], tuple(f["leds"]))
                    for f in raw.pop("filter"))
    distortion = raw.pop("distortion", {})
    pv = tuple({int(k): float(v) for k, v in distortion.get(axis, {"1": 1.0}).items()} for axis in ("pv1", "pv2"))
    return Camera(amplifiers=amplifiers, ghosts=ghosts, filters=filters, distortion=pv, ccds=tuple(sorted({a.ccdid for a in amplifiers})),
                  shape=tuple(raw.pop("shape")), **raw)


def _amplifier(item: dict) -> Amplifier:
    """`nonlinearity` is [A, B], or rows [first day, A, B] in order of the days."""
    rows = item["nonlinearity"]
    dated = tuple((day.toordinal() + 1721424.5, a, b) for day, a, b in rows) if isinstance(rows[0], list) else ()
    if any(later[0] <= row[0] for row, later in zip(dated, dated[1:], strict=False)):
        raise ValueError(f"non-linearity of ccd {item['ccdid']} q {item['qid']} is not in order of its days")
    return Amplifier(item["ccdid"], item["qid"], item["gain"], item["read_noise"], dated[-1][1:] if dated else tuple(rows),
                     tuple(item["offset_deg"]), dated)
