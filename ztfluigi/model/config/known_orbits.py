"""Known solar-system objects near candidates."""

from __future__ import annotations

from dataclasses import dataclass

from ztfluigi.model.config import knob


@dataclass(frozen=True)
class KnownOrbitsConfig:
    """Section [known_orbits]."""

    use: bool = knob(True, "look for known solar-system objects near candidates; they are null in packets when this is false")
    faintest_mag: float = knob(22.0, "predicted V magnitude beyond which an object is no neighbour", unit="mag", low=10.0, high=40.0)
