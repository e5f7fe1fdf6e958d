"""Carry out a plan: raw files, calibrator tables, orbits and truth of a data root."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from targets import paths
from targets.codecs import catalog
from targets.paths import RawName
from ztfluigi.model.camera import Camera
from ztfluigi.simulate import exposure, faults, plan, rawfile, scene, sky, solar_system
from ztfluigi.simulate.ephemeris import circumstances
from ztfluigi.simulate.exposure import POINT, STREAK, TRAIL
from ztfluigi.simulate.plan import Planned, SurveyPlan
from ztfluigi.simulate.seeds import generator
from ztfluigi.simulate.solar_system import ORBIT

TRANSIENT = np.dtype([("id", "i8"), ("ra", "f8"), ("dec", "f8"), ("start_mjd", "f8"), ("mag_r", "f8"), ("mag_mjd", "f8"), ("colour", "f8"),
                      ("host", "i8")])
"""A transient: light grows as (t - start)^2; `mag_r` is the magnitude at `mag_mjd`; `colour` g - r; `host` the id of its galaxy, or -1."""
POSITION = np.dtype([("id", "i8"), ("exposure", "S14"), ("ra", "f8"), ("dec", "f8"), ("mag", "f8"), ("distance", "f8"),
                     ("sun_distance", "f8")])
STREAK_ROW = np.dtype([("exposure", "S14"), *STREAK.descr])
TRAIL_ROW = np.dtype([("exposure", "S14"), ("ccdid", "i2"), ("qid", "i2"), *TRAIL.descr])
FLAT_LEVEL_DN = 15000.0


@dataclass(frozen=True)
class Summary:
    """What was written."""

    nights: int
    raw_files: int
    sky_exposures: int
    transients: int
    asteroids: int
    faults: int


class Survey:
    """One simulated survey: everything follows from camera, plan, seed and density."""

    def __init__(self, camera: Camera, survey_plan: SurveyPlan, seed: int, density: str = "high-lat", spoiled: bool = False):
        self.camera, self.plan, self.seed = camera, survey_plan, seed
        self.universe = sky.Sky(seed, density, scene.boost_of(camera))
        self.centre = camera.fields()[survey_plan.field]
        self.exposures = plan.exposures(camera, survey_plan, seed, spoiled)
        self.names = {item.conditions.number: rawfile.exposure_name(item.request_jd) for item in self.exposures}
        self.sources = lru_cache(maxsize=8)(self._sources)
        sky_exposures = [item for item in self.exposures if item.type == "o"]
        last = [item.conditions.mjd_mid for item in sky_exposures if item.night == survey_plan.nights[-1].date]
        self.mid_mjd = float(np.mean(last)) if last else 0.0
        self.transients = self._draw_transients()
        self.orbits = self._draw_orbits()
        self.positions = self._mover_positions(sky_exposures)
        self.streaks = self._draw_streaks(sky_exposures)

    def raw_name(self, item: Planned, ccdid: int) -> RawName:
        return RawName(self.names[item.conditions.number], self.plan.field if item.type == "o" else 0, item.filter, ccdid, item.type)

    def _sources(self, ccdid: int, qid: int) -> np.ndarray:
        return scene.quadrant_sky(self.camera, ccdid, qid, self.centre, self.universe, margin_deg=3.0 / 60.0)

    def _spots(self, rng, count: int) -> np.ndarray:
        """(count, 2) random (ra, dec) on the light-sensitive silicon, away from its edges."""
        amplifiers = [self.camera.amplifiers[n] for n in rng.permutation(len(self.camera.amplifiers))]
        ny, nx = self.camera.shape
        spots = []
        for n in range(count):
            amplifier = amplifiers[n % len(amplifiers)]
            wcs = self.camera.nominal_wcs(amplifier.ccdid, amplifier.qid, *self.centre)
            spots.append(wcs.sky(rng.uniform(0.08, 0.92) * nx, rng.uniform(0.08, 0.92) * ny))
        return np.array(spots, float).reshape(count, 2)

    def _draw_transients(self) -> np.ndarray:
        rng = generator(self.seed, "transients")
        rows = np.zeros(self.plan.transients, TRANSIENT)
        spots = self._spots(rng, len(rows))
        rows["id"], rows["host"] = np.arange(len(rows)), -1
        rows["ra"], rows["dec"] = spots[:, 0], spots[:, 1]
        rows["mag_r"], rows["mag_mjd"] = rng.uniform(*self.plan.transient_mags, len(rows)), self.mid_mjd
        rows["colour"], rows["start_mjd"] = rng.uniform(-0.1, 0.4, len(rows)), self.mid_mjd - rng.uniform(3.0, 9.0, len(rows))
        for row in rows[:len(rows) // 2]:
            near = self.universe.around(row["ra"], row["dec"], 0.06)
            near = near[near["galaxy"] & (near["r"] < 20.5) & (near["r"] > 16.0)]
            if len(near):
                host = near[rng.integers(len(near))]
                offset = host["radius_arcsec"] * np.abs(rng.normal(0.0, 0.8)) / 3600.0
                turn = rng.uniform(0, 2 * np.pi)
                row["ra"] = host["ra"] + offset * np.cos(turn) / np.cos(np.radians(host["dec"]))
                row["dec"] = host["dec"] + offset * np.sin(turn)
                row["host"] = host["id"]
        return rows

    def _draw_orbits(self) -> np.ndarray:
        rng = generator(self.seed, "asteroids")
        count = self.plan.known + self.plan.unknown
        spots = self._spots(rng, count)
        place, jd = solar_system.observer(self.camera, self.mid_mjd)
        rows = [solar_system.make_orbit(n, *spot, rng.uniform(*self.plan.asteroid_mags) + solar_system.V_MINUS_R, n < self.plan.known,
                                        place, jd, rng) for n, spot in enumerate(spots)]
        return np.concatenate(rows) if rows else np.zeros(0, ORBIT)

    def _mover_positions(self, items: list[Planned]) -> np.ndarray:
        rows = []
        places, jds = solar_system.observer(self.camera, np.array([item.conditions.mjd_mid for item in items]))
        for item, place, jd in zip(items, places, jds, strict=True):
            for orbit in self.orbits:
                seen = solar_system.see(orbit, place, jd)
                rows.append((orbit["id"], self.names[item.conditions.number].encode(), seen.ra, seen.dec, seen.mag(item.filter),
                             seen.distance, seen.sun_distance))
        return np.array(rows, POSITION)

    def _draw_streaks(self, items: list[Planned]) -> np.ndarray:
        rows = []
        for item in items:
            rng = generator(self.seed, "streaks", item.conditions.number)
            for ra, dec in self._spots(rng, item.streaks):
                half, turn = 0.5 * rng.uniform(35.0, 70.0) / 3600.0, rng.uniform(0, 2 * np.pi)
                d_ra, d_dec = half * np.cos(turn) / np.cos(np.radians(dec)), half * np.sin(turn)
                rows.append((self.names[item.conditions.number].encode(), -1000 - len(rows), ra - d_ra, dec - d_dec, ra + d_ra, dec + d_dec,
                             rng.uniform(14.8, 16.0)))
        return np.array(rows, STREAK_ROW)

    def points(self, item: Planned) -> np.ndarray:
        """POINT rows of one exposure: transients that have begun, and asteroids."""
        mjd, name = item.conditions.mjd_mid, self.names[item.conditions.number].encode()
        alive = self.transients[self.transients["start_mjd"] < mjd]
        movers = self.positions[self.positions["exposure"] == name]
        points = np.zeros(len(alive) + len(movers), POINT)
        age, then = mjd - alive["start_mjd"], alive["mag_mjd"] - alive["start_mjd"]
        mags = alive["mag_r"] - 5.0 * np.log10(age / then) + np.where(item.filter == "zg", alive["colour"], 0.0)
        for column in ("id", "ra", "dec"):
            points[column] = np.concatenate([alive[column], movers[column]])
        points["mag"] = np.concatenate([mags, movers["mag"]])
        return points

    def trails(self, item: Planned, ccdid: int, qid: int) -> np.ndarray:
        """TRAIL rows of one quadrant; a satellite crosses one quadrant of the camera."""
        if not item.trails:
            return np.zeros(0, TRAIL)
        rng = generator(self.seed, "trails", item.conditions.number)
        chosen = self.camera.quadrants[rng.integers(len(self.camera.quadrants))]
        return scene.random_trails(self.camera, item.trails if chosen == (ccdid, qid) else 0, rng)

    def quadrant(self, item: Planned, ccdid: int, qid: int) -> exposure.QuadrantExposure:
        """Pixels and truth of one quadrant of a sky exposure."""
        name = self.names[item.conditions.number].encode()
        streaks = self.streaks[self.streaks["exposure"] == name][list(STREAK.names)].astype(STREAK)
        return exposure.expose(self.camera, ccdid, qid, self.sources(ccdid, qid), self.centre, item.conditions, self.seed,
                               points=self.points(item), streaks=streaks, trails=self.trails(item, ccdid, qid))

    def pixels(self, item: Planned, ccdid: int, qid: int) -> tuple[np.ndarray, np.ndarray]:
        """(raw, overscan) of one quadrant of any exposure."""
        number = item.conditions.number
        if item.type == "o":
            made = self.quadrant(item, ccdid, qid)
            return made.raw, made.overscan
        if item.type == "b":
            return scene.simulate_bias(self.camera, number, seed=self.seed, ccdid=ccdid, qid=qid)
        return scene.simulate_flat(self.camera.on(item.conditions.obsjd), number, seed=self.seed, filter=item.filter, led=item.led,
                                   level_dn=FLAT_LEVEL_DN, exptime=item.conditions.exptime, ccdid=ccdid, qid=qid)

    def write_raw(self, root: Path, item: Planned, ccdid: int) -> list[dict]:
        """Write the raw file of one CCD of one exposure; the truth of its quadrants (of sky exposures) as plain data."""
        name = self.raw_name(item, ccdid)
        zenith = (circumstances(self.camera, item.conditions.obsjd, 0.0, 0.0).sidereal_deg, self.camera.latitude_deg)
        there = circumstances(self.camera, item.conditions.obsjd, *(self.centre if item.type == "o" else zenith))
        cards = rawfile.primary_cards(self.camera, name, item.conditions, there, frame=item.conditions.number, led=item.led)
        made, truth = [], []
        for qid in (1, 2, 3, 4):
            if item.type == "o":
                result = self.quadrant(item, ccdid, qid)
                made.append((result.raw, result.overscan))
                truth.append(_quadrant_truth(self.camera, ccdid, qid, result))
            else:
                made.append(self.pixels(item, ccdid, qid))
        rawfile.write(root, name, faults.spoil_cards(item.fault, cards), [m[0] for m in made], [m[1] for m in made],
                      [rawfile.quadrant_cards(self.camera, ccdid, qid, self.centre) for qid in (1, 2, 3, 4)],
                      spoil=lambda path: faults.spoil_file(item.fault, path))
        return truth

    def write_calibrators(self, root: Path) -> None:
        """Gaia and PS1 tables of every quadrant of the field."""
        for ccdid, qid in self.camera.quadrants:
            gaia, ps1 = scene.calibrators(self.camera, ccdid, qid, self.centre, self.universe)
            cards = {"FIELDID": self.plan.field, "CCDID": ccdid, "QID": qid}
            for path, write, table, name, release in ((paths.gaia, catalog.write_gaia, gaia, "Gaia", "DR2"),
                                                      (paths.ps1, catalog.write_ps1, ps1, "PS1", "DR1")):
                final = Path(root) / path(self.plan.field, ccdid, qid)
                final.parent.mkdir(parents=True, exist_ok=True)
                write(final, table, {**cards, "CATNAME": name, "CATDR": release})

    def write_truth(self, root: Path, quadrants: dict[tuple[int, int], list[dict]]) -> None:
        """Everything that was put in, under `truth/`."""
        folder = Path(root) / paths.TRUTH
        folder.mkdir(parents=True, exist_ok=True)
        trails = [(self.names[item.conditions.number].encode(), ccdid, qid, *row) for item in self.exposures if item.trails
                  for ccdid, qid in self.camera.quadrants for row in self.trails(item, ccdid, qid)]
        footprint = np.concatenate([self.sources(ccdid, qid) for ccdid, qid in self.camera.quadrants])
        tables = {"sources": footprint[np.unique(footprint["id"], return_index=True)[1]], "transients": self.transients,
                  "orbits": self.orbits, "movers": self.positions, "streaks": self.streaks, "trails": np.array(trails, TRAIL_ROW)}
        for name, table in tables.items():
            catalog.write_table(folder / f"{name}.fits", table)
        records = [self._record(item, quadrants) for item in self.exposures]
        head = {"camera": self.camera.name, "seed": self.seed, "density": self.universe.density, "boost": self.universe.boost,
                "field": self.plan.field, "ra": self.centre[0], "dec": self.centre[1], "plan": asdict(self.plan)}
        (folder / "survey.json").write_text(json.dumps({**head, "exposures": records}, indent=1) + "\n")

    def _record(self, item: Planned, quadrants: dict) -> dict:
        c = item.conditions
        record = {"exposure": self.names[c.number], "number": c.number, "night": item.night, "type": item.type, "filter": item.filter,
                  "obsjd": c.obsjd, "mjd_mid": c.mjd_mid, "exptime": c.exptime,
                  "files": [self.raw_name(item, ccd).filename for ccd in self.camera.ccds], "fault": item.fault,
                  "cloudy": item.cloudy, "led": item.led}
        if item.type == "o":
            record |= {"seeing_arcsec": c.seeing_arcsec, "airmass": c.airmass, "clouds_mag": c.clouds_mag,
                       "pointing_error_arcsec": list(c.pointing_error_arcsec), "streaks": item.streaks, "trails": item.trails,
                       "quadrants": [truth for ccdid in self.camera.ccds for truth in quadrants[c.number, ccdid]]}
        return record


def _quadrant_truth(camera: Camera, ccdid: int, qid: int, made: exposure.QuadrantExposure) -> dict:
    middle = (camera.crpix[0] - 1, camera.crpix[1] - 1)
    return {"ccdid": ccdid, "qid": qid, "zero_point": made.throughput.zero_point, "colour_term": made.throughput.colour_term,
            "sky_dn": made.sky_dn, "fwhm_pix": made.psf.effective_fwhm(*middle),
            "aperture_fraction": made.psf.aperture_fraction(*middle), "wcs": made.wcs.cards(),
            "saturated_pixels": int(made.saturated.sum()), "cosmic_ray_pixels": int((made.cosmic_dn > 20.0).sum()),
            "trail_pixels": int(made.trail_mask.sum())}


_survey: Survey | None = None
"""The survey of this process."""


def _start(survey: Survey | tuple) -> None:
    global _survey
    _survey = survey if isinstance(survey, Survey) else Survey(*survey)


def _work(root: Path, index: int, ccdid: int) -> tuple[int, int, list[dict]]:
    item = _survey.exposures[index]
    return item.conditions.number, ccdid, _survey.write_raw(root, item, ccdid)


def simulate_survey(root: Path, camera: Camera, survey_plan: SurveyPlan, seed: int, spoiled: bool = False, *, density: str = "high-lat",
                    processes: int = 1, progress: Callable = lambda items, **_: items) -> Summary:
    """Write a whole simulated survey into a data root: `incoming`, `ops/static`, `truth` (interfaces.md 1 and 2).

    The same arguments give the same bytes, however many processes share the work. `progress` wraps the sequence of files (tqdm).
    """
    root = Path(root)
    arguments = (camera, survey_plan, seed, density, spoiled)
    survey = Survey(*arguments)
    survey.write_calibrators(root)
    mpcorb = root / paths.MPCORB
    mpcorb.parent.mkdir(parents=True, exist_ok=True)
    solar_system.write_mpcorb(mpcorb, survey.orbits[survey.orbits["known"]])
    jobs = [(root, index, ccdid) for ccdid in camera.ccds for index in range(len(survey.exposures))]
    if processes > 1:
        with ProcessPoolExecutor(processes, get_context("spawn"), _start, (arguments,)) as pool:
            done = list(progress(pool.map(_work, *zip(*jobs, strict=True), chunksize=4), total=len(jobs)))
    else:
        _start(survey)
        done = [_work(*job) for job in progress(jobs, total=len(jobs))]
    survey.write_truth(root, {(number, ccdid): truth for number, ccdid, truth in done})
    sky_exposures = [item for item in survey.exposures if item.type == "o"]
    return Summary(len(survey_plan.nights), len(jobs), len(sky_exposures), len(survey.transients), len(survey.orbits),
                   sum(bool(item.fault) for item in survey.exposures))
