"""What a simulated survey observes: nights, exposures, transients and asteroids. A plan is data; `survey` carries it out."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ztfluigi.model.camera import Camera
from ztfluigi.model.ids import night_nid
from ztfluigi.simulate.ephemeris import circumstances
from ztfluigi.simulate.optics import Conditions
from ztfluigi.simulate.seeds import generator

FAULTS = ("truncated", "checksum", "keyword", "shutter")
FIRST_CALIBRATION_S = 600
"""Calibrations begin ten minutes after midnight UT, before sunset."""
CALIBRATION_STEP_S = 20
FIRST_SKY_S = 4 * 3600 + 1800
LAST_SKY_S = 11 * 3600 + 600


@dataclass(frozen=True)
class Night:
    """One night: calibration frames, sky exposures by filter, and what else happens.

    cloudy : unusable exposures added. trails : satellites, one each in the first exposures. streaks : fast asteroids, one each in the first
    exposures after those.
    """

    date: str
    bias: int = 20
    flats: tuple[tuple[str, int], ...] = ()
    sky: tuple[tuple[str, int], ...] = ()
    cloudy: int = 0
    trails: int = 0
    streaks: int = 0


@dataclass(frozen=True)
class SurveyPlan:
    """Nights of one field. Transients are given for the last night, by magnitude then; asteroids cross the field in its middle.

    transients : number, half of them in galaxies. transient_mags, asteroid_mags : brightest and faintest, r. known, unknown : asteroids.
    """

    field: int
    nights: tuple[Night, ...]
    transients: int = 0
    transient_mags: tuple[float, float] = (17.8, 20.3)
    known: int = 0
    unknown: int = 0
    asteroid_mags: tuple[float, float] = (17.5, 20.0)
    seeing_arcsec: tuple[float, float] = (2.0, 2.5)


@dataclass(frozen=True)
class Planned:
    """One exposure of a survey. `type` is the letter of the file name; `fault` one of FAULTS or ''."""

    type: str
    filter: str
    conditions: Conditions
    request_jd: float
    night: str
    led: int | None = None
    trails: int = 0
    streaks: int = 0
    fault: str = ""
    cloudy: bool = False


def preset(name: str) -> SurveyPlan:
    """`demo` : the demonstration (three nights). `tiny` : the night of the test suite (two nights, one filter)."""
    return PRESETS[name]


PRESETS = {
    "demo": SurveyPlan(
        field=505, transients=16, known=9, unknown=4,
        nights=(Night("2018-10-16", 20, (("zg", 20), ("zr", 20)), (("zg", 1), ("zr", 9))),
                Night("2018-10-19", 12, (), (("zr", 7),)),
                Night("2018-11-02", 20, (("zr", 20),), (("zg", 1), ("zr", 5)), cloudy=1, trails=1, streaks=1))),
    "tiny": SurveyPlan(
        field=505, transients=10, known=4, unknown=2,
        nights=(Night("2018-10-16", 20, (("zr", 20),), (("zr", 15),)),
                Night("2018-11-02", 20, (("zr", 20),), (("zr", 3),), cloudy=1, trails=1))),
}
"""Field 505 stands high and near opposition in autumn, four degrees from the ecliptic; the Moon is below half on these nights."""


def exposures(camera: Camera, plan: SurveyPlan, seed: int, faults: bool = False) -> list[Planned]:
    """Every exposure of a plan in order of time. With `faults`, four more on the last night whose files are damaged."""
    planned: list[Planned] = []
    for night in plan.nights:
        last = night is plan.nights[-1]
        planned += _calibrations(camera, night, seed, len(planned))
        planned += _sky(camera, plan, night, seed, len(planned), FAULTS if faults and last else ())
    return planned


def at(date: str, second: float) -> float:
    """JD (UTC) of a second of a night's UT date."""
    return 2457754.5 + night_nid(date) + second / 86400.0


def _calibrations(camera: Camera, night: Night, seed: int, first: int) -> list[Planned]:
    kinds = [("b", "bi", None)] * night.bias
    for code, count in night.flats:
        leds = camera.filter(code).leds
        kinds += [("f", code, leds[n * len(leds) // count]) for n in range(count)]
    planned = []
    for n, (letter, code, led) in enumerate(kinds):
        start = at(night.date, FIRST_CALIBRATION_S + CALIBRATION_STEP_S * n)
        conditions = Conditions(code if letter == "f" else "zr", start, first + n, exptime=0.0 if letter == "b" else 10.0)
        planned.append(_timed(Planned(letter, code, conditions, start, night.date, led), seed))
    return planned


def _sky(camera: Camera, plan: SurveyPlan, night: Night, seed: int, first: int, faults: tuple[str, ...]) -> list[Planned]:
    codes = _interleaved(night.sky)
    kinds = [(code, {"trails": int(n < night.trails), "streaks": int(night.trails <= n < night.trails + night.streaks)})
             for n, code in enumerate(codes)]
    kinds += [(codes[0], {"cloudy": True})] * night.cloudy
    kinds += [(codes[-1], {"fault": fault}) for fault in faults]
    if not kinds:
        return []
    step = min((LAST_SKY_S - FIRST_SKY_S) / len(kinds), 2400.0)
    ra, dec = camera.fields()[plan.field]
    planned = []
    for n, (code, options) in enumerate(kinds):
        rng = generator(seed, "weather", first + n)
        start = at(night.date, round(FIRST_SKY_S + step * n + rng.uniform(0.0, 0.2 * step)))
        there = circumstances(camera, start, ra, dec)
        moonlight = 1.0 + 1.5 * there.moon_illuminated * max(np.sin(np.radians(there.moon_altitude)), 0.0)
        cloudy = options.get("cloudy", False)
        seeing, sky_factor = float(rng.uniform(*plan.seeing_arcsec)), float(moonlight * rng.uniform(0.9, 1.15) * (2.0 if cloudy else 1.0))
        conditions = Conditions(code, start, first + n, seeing, round(there.airmass, 4), 8.0 if cloudy else 0.0, sky_factor,
                                tuple(rng.normal(0.0, 15.0, 2).tolist()), camera.exposure_s)
        planned.append(_timed(Planned("o", code, conditions, start, night.date, **options), seed))
    return planned


def _timed(planned: Planned, seed: int) -> Planned:
    """OBSJD on a whole UT second, the request (which names the file) 1 to 3 s before it, now and then most of a minute."""
    rng = generator(seed, "times", planned.conditions.number)
    lead = rng.uniform(1.0, 3.0) if rng.random() < 0.9 else rng.uniform(10.0, 50.0)
    conditions = replace(planned.conditions, shutter_delay_s=round(float(rng.uniform(0.8, 1.6)), 3))
    return replace(planned, conditions=conditions, request_jd=conditions.obsjd - lead / 86400.0)


def _interleaved(counts: tuple[tuple[str, int], ...]) -> list[str]:
    """Filters in turn, spread evenly over the night."""
    order = sorted(((n + 0.5) / count, code) for code, count in counts for n in range(count))
    return [code for _, code in order]
