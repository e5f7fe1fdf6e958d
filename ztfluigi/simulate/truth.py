"""What the simulator put into a data root, for reports, tests and benchmarks only; the survey itself never looks."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from targets import paths
from targets.codecs import catalog
from ztfluigi.model.camera import load_camera
from ztfluigi.model.errors import BadInput
from ztfluigi.model.wcs import TpvWcs
from ztfluigi.simulate import detector as detectors
from ztfluigi.simulate import exposure, plan
from ztfluigi.simulate.survey import Survey


@dataclass(frozen=True)
class Truth:
    """Truth of a simulated data root: tables as written, and what can be simulated again from the seed."""

    root: Path

    @cached_property
    def survey(self) -> dict:
        """`survey.json`: camera, seed, density, field, plan, and a record of every exposure."""
        path = self.root / paths.TRUTH / "survey.json"
        if not path.exists():
            raise BadInput(f"{self.root} holds no truth: it was not made by `ztf simulate`")
        return json.loads(path.read_text())

    @property
    def exposures(self) -> list[dict]:
        """Records of every exposure: exposure (filefracday), night, type, filter, obsjd, fault, cloudy; of the sky also seeing, airmass,
        quadrants."""
        return self.survey["exposures"]

    def exposure(self, name: str) -> dict:
        """Record of one exposure by filefracday; BadInput when there is none."""
        for record in self.exposures:
            if record["exposure"] == name:
                return record
        raise BadInput(f"the simulated survey has no exposure {name}")

    def quadrant(self, name: str, ccdid: int, qid: int) -> dict:
        """zero_point, colour_term, fwhm_pix (pixels included), aperture_fraction, sky_dn, wcs (cards), counts of bad pixels."""
        return next(q for q in self.exposure(name)["quadrants"] if (q["ccdid"], q["qid"]) == (ccdid, qid))

    def wcs(self, name: str, ccdid: int, qid: int) -> TpvWcs:
        """True sky coordinates of one quadrant of an exposure."""
        return TpvWcs.from_cards(self.quadrant(name, ccdid, qid)["wcs"])

    def table(self, name: str) -> np.ndarray:
        """`sources`, `transients`, `orbits`, `movers` (a row per asteroid and exposure), `streaks` or `trails`."""
        return catalog.read_table(self.root / paths.TRUTH / f"{name}.fits")[0]

    @cached_property
    def simulated(self) -> Survey:
        """The survey again, ready to render any quadrant."""
        s = self.survey
        raw = s["plan"]
        nights = tuple(plan.Night(**{**n, "flats": _pairs(n["flats"]), "sky": _pairs(n["sky"])}) for n in raw["nights"])
        made = plan.SurveyPlan(**{**{k: tuple(v) if isinstance(v, list) else v for k, v in raw.items()}, "nights": nights})
        return Survey(load_camera(s["camera"]), made, s["seed"], s["density"], any(r["fault"] for r in s["exposures"]))

    def render(self, name: str, ccdid: int, qid: int) -> exposure.QuadrantExposure:
        """A quadrant simulated again: pixels, `objects` with true pixels and fluxes, masks of saturation, cosmic rays and trails."""
        number = self.exposure(name)["number"]
        return self.simulated.quadrant(self.simulated.exposures[number], ccdid, qid)

    def points(self, name: str) -> np.ndarray:
        """POINT rows (id, ra, dec, mag) of the transients (id 0 and up) and asteroids (id below 0) of one exposure."""
        return self.simulated.points(self.simulated.exposures[self.exposure(name)["number"]])

    def detector(self, ccdid: int, qid: int) -> detectors.Detector:
        """Response (true flat), bias structure, full well, dark current, noisy and dead pixels."""
        return detectors.make_detector(self.simulated.camera, ccdid, qid, self.survey["seed"])


def _pairs(items) -> tuple[tuple[str, int], ...]:
    return tuple((code, count) for code, count in items)
