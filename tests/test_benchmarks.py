"""The benchmark commands: their lines are the contract."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks import meter
from benchmarks.accuracy import AREAS

ROOT = Path(__file__).resolve().parents[1]


def benchmark(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "benchmarks", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=240)


def test_figures_are_json_lines_with_the_contracted_keys():
    done = benchmark("accuracy", "--quick", "--area", "mask")
    assert done.returncode == 0, done.stderr
    figures = [json.loads(line) for line in done.stdout.splitlines()]
    assert all(set(row) == {"figure", "value", "unit", "n", "target", "seed"} for row in figures)
    assert {row["figure"] for row in figures} == {f"mask.{name}.{density}" for density in ("high", "plane") for name in (
        "cosmic_recall", "cosmic_faint_recall", "cosmic_precision", "star_cores", "trail_recall", "trail_found", "ghost_recall")}
    assert all(row["n"] == 0 or (0.0 <= row["value"] <= 1.0 and row["n"] > 10) for row in figures)


def test_an_unknown_area_is_refused_with_the_known_ones():
    done = benchmark("accuracy", "--area", "nowhere")
    assert done.returncode == 2 and all(area in done.stderr for area in AREAS)


def test_a_meter_charges_each_second_to_one_stage(capsys):
    made = meter.Meter()
    with made.stage("outer"):
        busy(0.05)
        with made.stage("inner"):
            busy(0.2)
            block = np.ones(40 * 2**17)  # 40 MiB
        busy(0.05)
    assert made.cpu_s["inner"] == pytest.approx(0.2, rel=0.5) and made.cpu_s["outer"] == pytest.approx(0.1, rel=0.5)
    assert block.all() and made.peak_mib["inner"] > 40
    meter.emit(made.row("sum", ["outer", "inner"]))
    row = json.loads(capsys.readouterr().out)
    assert set(row) == {"stage", "cpu_s", "peak_mib", "sources"} and row["cpu_s"] == pytest.approx(sum(made.cpu_s.values()), abs=1e-3)


def test_watched_functions_are_stages_only_while_watched():
    made = meter.Meter()
    original = busy
    with made.watch((sys.modules[__name__], "busy", "busy")):
        busy(0.01)
    assert busy is original and made.cpu_s["busy"] >= 0.01


def busy(seconds: float) -> None:
    """Use CPU time."""
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass
