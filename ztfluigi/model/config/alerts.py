"""Alert packets: what goes into them."""

from __future__ import annotations

from dataclasses import dataclass

from ztfluigi.model.config import knob


@dataclass(frozen=True)
class AlertConfig:
    """Section [alerts]."""

    schema: str = knob("4.02", "packet schema version", choices=("3.3", "4.02"))
    history_days: float = knob(30.0, "span of the history in a packet: 100000 is everything", unit="day", low=0.0)
    forced_days: float = knob(30.0, "span of the forced photometry in a packet: every image of it is opened", unit="day", low=0.0)
    match_radius_arcsec: float = knob(1.5, "radius of one object", unit="arcsec", low=0.1, high=10.0)
    publisher: str = knob("ZTF (www.ztf.caltech.edu)", "publisher field of every packet", critical=False)
