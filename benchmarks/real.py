"""Figures on real pixels and real catalogues: what other pipelines and their own headers say of them is the judge, not a simulation."""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks import real_bogus, real_calibration, real_detector, real_difference, real_science, real_solar_system

DATA = Path(__file__).resolve().parents[1] / "shared" / "data"
"""The real-data folder: `shared/data` in the checkout, or beside it."""

MODULES = (real_detector, real_calibration, real_science, real_difference, real_solar_system, real_bogus)
"""Each has `measure(data)`, which prints its figures from the folders below `data`."""


def measure() -> None:
    """Print every figure of real data; a plain word where the folder is absent."""
    data = next((folder for folder in (DATA, DATA.parents[2] / "shared" / "data") if folder.is_dir()), None)
    if data is None:
        print(f"no real-data folder {DATA}: the figures of area real are not measured", file=sys.stderr)
        return
    for module in MODULES:
        module.measure(data)
