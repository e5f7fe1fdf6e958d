"""`ztf demo`: simulate a small survey, run its nights through Luigi, and report what was found against truth."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from ztfluigi.cli import contact_sheet, report
from ztfluigi.model.camera import load_camera
from ztfluigi.model.errors import Transient
from ztfluigi.services.settings import settings
from ztfluigi.simulate import plan
from ztfluigi.simulate.truth import Truth


def add_parser(subparsers) -> None:
    parser = subparsers.add_parser("demo", help="simulate a small survey, run it through Luigi, report against truth")
    parser.add_argument("--preset", default="demo", choices=sorted(plan.PRESETS), help="simulated survey (default demo)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2, help="Luigi worker processes (default 2)")


def run(args) -> int:
    root, camera = settings().root, load_camera(settings().camera)
    simulate(root, camera, args)
    nights = sorted({record["night"] for record in Truth(root).exposures})
    for night in nights:
        process(night, args.workers)
    print(report.text(root, nights[-1]))
    sheet = contact_sheet.draw(root, nights[-1])
    print(f"\nwhere to look\n  data root        {root}\n  contact sheet    {sheet}\n  night's counts   ztf status --night {nights[-1]}\n"
          f"  any product      ztf why DifferenceImage {report.example(nights[-1])}\n  alert packets    {root / 'archive/sci'}/*/*/*/*alerts.tar.gz")
    return 0


def simulate(root: Path, camera, args) -> None:
    """Write the survey unless it is there already."""
    if (root / "truth" / "survey.json").exists():
        return
    command = [Path(sys.executable).parent / "ztf", "simulate", "--root", root, "--camera", camera.name, "--preset", args.preset,
               "--seed", args.seed, "--processes", args.workers]
    checked(command, "the simulation")


def process(night: str, workers: int) -> None:
    """One night through the `luigi` command."""
    started = time.monotonic()
    checked([Path(sys.executable).parent / "luigi", "--module", "ztfluigi.tasks", "Night", "--night", night, "--local-scheduler",
             "--workers", workers], f"night {night}")
    print(f"night {night} took {time.monotonic() - started:.0f} s", file=sys.stderr)


def checked(command: list, what: str) -> None:
    """Run a command; Transient when it fails, since the same command finishes it."""
    status = subprocess.run([str(part) for part in command]).returncode
    if status:
        raise Transient(f"{what} ended with status {status}; what was wrong stands above, and the same command goes on from there")
