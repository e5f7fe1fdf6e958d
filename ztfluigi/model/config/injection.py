"""Synthetic sources: how many, how bright, in which share of the quadrants."""

from __future__ import annotations

from dataclasses import dataclass

from ztfluigi.model.config import knob


@dataclass(frozen=True)
class InjectionConfig:
    """Section [injection]. The share of quadrants is chosen by a hash of their names, so that it is the same whenever one asks."""

    share: float = knob(0.02, "share of the differenced quadrants of a night that Night tests with synthetic sources; 0 for none",
                        critical=False, low=0.0, high=1.0)
    number: int = knob(300, "most sources placed in a full-size quadrant, by area in smaller ones (but 60 at least)", low=1)
    min_snr: float = knob(3.0, "lowest true S/N", low=0.5)
    max_snr: float = knob(30.0, "highest true S/N; ln S/N is spread evenly", low=1.0)
    separation_pix: float = knob(40.0, "least distance between two sources", unit="pix", low=10.0)
