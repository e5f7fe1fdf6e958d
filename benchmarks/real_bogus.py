"""Our real-bogus scores on real ZTF packets, from nothing but what our pipeline would have: against IPAC's rb and drb, and asteroids."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.stats import rankdata, spearmanr

from benchmarks.meter import figure
from targets.codecs import alert
from ztfluigi.algorithms.real_bogus import FIELDS, STAMP
from ztfluigi.model.alert_schema import CUTOUTS, MISSING
from ztfluigi.tasks.scoring import classifier

SURE_REAL, SURE_BOGUS = 0.8, 0.2
"""IPAC's drb (or rb where there is none) above and below which an event is taken for real and bogus."""
SSO_ARCSEC = 2.0


def measure(data: Path) -> None:
    """Rank correlation of each score with IPAC's of the same name; chance that IPAC's sure real outranks its sure bogus; shares above 0.5 of
    both and of known asteroids."""
    packets = read(data / "ztf-alerts")
    if not packets:
        return
    rb, drb = score(packets)
    theirs = {name: np.array([_number(packet["candidate"].get(name)) for packet in packets]) for name in ("rb", "drb")}
    best = np.where(np.isfinite(theirs["drb"]), theirs["drb"], theirs["rb"])
    asteroid = np.array([0 <= _number(packet["candidate"].get("ssdistnr")) <= SSO_ARCSEC for packet in packets])
    sure = {"sure_real": best >= SURE_REAL, "sure_bogus": best <= SURE_BOGUS, "asteroids": asteroid}
    for name, ours in (("rb", rb), ("drb", drb)):
        there = np.isfinite(theirs[name])
        figure(f"real.{name}_rank", spearmanr(ours[there], theirs[name][there])[0], "correlation", there.sum(), None)
        figure(f"real.{name}_auc", area_under_curve(ours[sure["sure_real"]], ours[sure["sure_bogus"]]), "chance",
               np.count_nonzero(sure["sure_real"] | sure["sure_bogus"]), None)
        for word, chosen in sure.items():
            figure(f"real.{name}_{word}", np.mean(ours[chosen] > 0.5), "fraction", chosen.sum(), None)


def read(folder: Path) -> list[dict]:
    """Every distinct packet below a folder."""
    found = {packet["candid"]: packet for path in sorted(folder.rglob("*.avro")) for packet in alert.read_packets(path)}
    return list(found.values())


def score(packets: list[dict]) -> tuple[np.ndarray, np.ndarray]:
    """Our (rb, drb) of packets."""
    table = {name: np.array([packet["candidate"][name] if name == "isdiffpos" else _number(packet["candidate"].get(name)) for packet in packets])
             for name in FIELDS}
    stamps = np.stack([[_whole(alert.decode_cutout(packet["cutout" + word.capitalize()]["stampData"]), packet["candidate"])
                        for word in CUTOUTS.values()] for packet in packets])
    return classifier().score(table, stamps, signed=True)


def area_under_curve(real: np.ndarray, bogus: np.ndarray) -> float:
    """Chance that one of the first is above one of the second; equal ones count half."""
    if not len(real) or not len(bogus):
        return float("nan")
    ranks = rankdata(np.concatenate([real, bogus]))[:len(real)]
    return float((ranks.sum() - len(real) * (len(real) + 1) / 2) / (len(real) * len(bogus)))


def _whole(stamp: np.ndarray, candidate: dict) -> np.ndarray:
    """A stamp cut at the image's edge as the full square, NaN outside."""
    square = np.full((STAMP, STAMP), np.nan, np.float32)
    top, left = (max(0, STAMP // 2 + 1 - round(candidate[axis])) if n < STAMP else 0
                 for axis, n in zip(("ypos", "xpos"), stamp.shape, strict=True))
    top, left = min(top, STAMP - stamp.shape[0]), min(left, STAMP - stamp.shape[1])
    square[top:top + stamp.shape[0], left:left + stamp.shape[1]] = stamp
    return square


def _number(value) -> float:
    return np.nan if value is None or value == MISSING else float(value)
