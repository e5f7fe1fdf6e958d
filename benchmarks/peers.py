"""Side by side: the usual tools, where they are installed, and ours on the same simulated image in the same run.

A JSON line for each quantity: `{"peer": ..., "quantity": ..., "ours": ..., "theirs": ..., "unit": ..., "n": ...}`.
"""

from __future__ import annotations

import json
import math
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks import peers_catalogue, peers_difference
from benchmarks.truth import Case

MODULES = (peers_catalogue, peers_difference)
"""Each has `measure(case, folder)`, which simulates what it needs, calls the tools it finds and prints its lines."""


def run(density: str, *, quick: bool, seed: int) -> None:
    """Print the lines of every peer that is installed."""
    case = Case(density, seed, quick)
    for module in MODULES:
        with tempfile.TemporaryDirectory(prefix="ztfluigi-peers-") as folder:
            module.measure(case, Path(folder))


def installed(*names: str) -> bool:
    """Whether all these programs are there; says so in a plain word when one is not."""
    missing = [name for name in names if shutil.which(name) is None]
    if missing:
        print(f"not installed, not compared: {', '.join(missing)}", file=sys.stderr)
    return not missing


def call(command: list[str], folder: Path) -> float:
    """Run a program in `folder`, one thread; its CPU seconds. RuntimeError with its last words when it fails."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace", env=environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise RuntimeError(f"{command[0]} ended with {done.returncode}: {(done.stderr or done.stdout)[-500:]}")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def line(peer: str, quantity: str, ours: float | None, theirs: float | None, unit: str, n: int) -> None:
    """Print one comparison; null where one side has no such number."""
    values = [None if v is None or not math.isfinite(v) else round(float(v), 5) for v in (ours, theirs)]
    print(json.dumps({"peer": peer, "quantity": quantity, "ours": values[0], "theirs": values[1], "unit": unit, "n": int(n)}), flush=True)
