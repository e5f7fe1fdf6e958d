"""Known solar-system objects of a night: every orbit of MPCORB.DAT carried to the night (paper 4.1)."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import luigi
import numpy as np

from targets import paths
from targets.codecs import orbits as orbit_codec
from targets.codecs.mpcorb import read_mpcorb
from targets.sealed import Stage, sha256
from ztfluigi.algorithms import solar_system
from ztfluigi.model.errors import BadInput, NoWork, Unusable
from ztfluigi.model.ids import JD_NIGHT_ZERO, night_nid, night_of
from ztfluigi.model.orbits import NightStates
from ztfluigi.services import ephemeris
from ztfluigi.tasks.base import Built, Choice
from ztfluigi.tasks.settings import camera, root

LISTED = 1000
"""Lines and designations given by name in the registry; more are only counted."""


class KnownOrbits(Choice):
    """Heliocentric states of all known objects at the middle of a night, by N-body integration; the orbit file as it is tonight is the choice."""

    night = luigi.Parameter()
    priority = 10  # every quadrant of the night waits for it

    @classmethod
    def of_exposure(cls, exposure: str) -> KnownOrbits:
        return cls(night_of(exposure))

    def ingredients(self):
        return ()

    def files(self):
        return {"states": paths.known_orbits(self.night)}

    def choose(self) -> list:
        """The digest of the orbit file; nothing where there is none."""
        path = root() / paths.MPCORB
        return [_digest(path, path.stat().st_mtime_ns)] if path.exists() else []

    def build(self, stage: Stage) -> Built:
        chosen = self.choose()
        if not chosen:
            raise NoWork(f"there is no {paths.MPCORB}", chosen=chosen)
        try:
            elements, bad = read_mpcorb(root() / paths.MPCORB)
        except BadInput as error:
            raise Unusable(error.reason, chosen=chosen) from error
        states = carry(elements, self.night, camera().longitude_deg)
        lost = ~np.isfinite(states.states["x"])
        kept = NightStates(states.states[~lost], states.close[np.isfinite(states.close["x"])], states.earth)
        orbit_codec.write_night_states(stage["states"], kept, {"NIGHT": self.night, "NORBITS": len(elements), "PROVID": self.provid()})
        numbers = {"chosen": chosen, "n_orbits": len(elements), "n_close": len(np.unique(kept.close["designation"])), "n_bad_lines": len(bad),
                   "bad_lines": [str(line) for line in bad[:LISTED]], "n_lost": int(lost.sum()),
                   "lost": [name.decode() for name in states.states["designation"][lost][:LISTED]]}
        return Built(numbers=numbers, reason=_sentence(bad, int(lost.sum())))

    def states(self) -> NightStates:
        """The sealed states; BadInput with the reason when this night has none."""
        row = self.output().row()
        if row is None or row.state != "sealed":
            raise BadInput(row.reason if row else f"KnownOrbits {self.night} is not built")
        path = self.path("states")
        return _read(path, path.stat().st_mtime_ns)


def carry(elements: np.ndarray, night: str, longitude_deg: float) -> NightStates:
    """Orbits (rows of `orbits.ELEMENT`) at the middle of a night; those near the Earth all through it."""
    middle, times = solar_system.night_times(JD_NIGHT_ZERO + night_nid(night), longitude_deg)
    middle, times = solar_system.dynamical_time(middle), np.array([solar_system.dynamical_time(time) for time in times])
    earth, states = ephemeris.earth(times), ephemeris.propagate(elements, middle)
    close = solar_system.is_close(states, earth)
    return NightStates(states[~close], ephemeris.trace(states[close], times), earth)


def _sentence(bad: list, lost: int) -> str:
    said = [f"lines of MPCORB.DAT that are no orbits, left out: {len(bad)}, the first is {bad[0]}"] if bad else []
    return "; ".join(said + [f"orbits that could not be integrated to the night: {lost}"] * (lost > 0))


@lru_cache(maxsize=2)
def _digest(path: Path, stamp: int) -> str:
    return sha256(path)


@lru_cache(maxsize=2)
def _read(path: Path, stamp: int) -> NightStates:
    return orbit_codec.read_night_states(path)
