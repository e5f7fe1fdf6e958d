"""Command line of the benchmarks."""

from __future__ import annotations

import argparse
import os
import sys

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_name] = "1"  # before numpy is imported


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    speed = commands.add_parser("speed", help="CPU seconds and peak memory of a full-size quadrant, a JSON line a stage")
    speed.add_argument("--density", choices=("high-lat", "plane"), default="high-lat")
    accuracy = commands.add_parser("accuracy", help="figures against the simulator's truth, a JSON line a figure")
    accuracy.add_argument("--quick", action="store_true", help="small quadrants, few seeds")
    accuracy.add_argument("--area", help="only this area")
    accuracy.add_argument("--seed", type=int, default=1, help="seed of the sky and the instrument")
    peers = commands.add_parser("peers", help="the usual tools, where installed, beside ours on the same image, a JSON line a quantity")
    peers.add_argument("--density", choices=("high-lat", "plane"), default="high-lat")
    peers.add_argument("--quick", action="store_true", help="a small quadrant")
    peers.add_argument("--seed", type=int, default=1, help="seed of the sky and the instrument")
    given = parser.parse_args(arguments)
    if given.command == "speed":
        from benchmarks.speed import run

        run(given.density)
        return 0
    if given.command == "peers":
        from benchmarks.peers import run

        run(given.density, quick=given.quick, seed=given.seed)
        return 0
    from benchmarks.accuracy import AREAS, ONCE, run

    if given.area is not None and given.area not in AREAS | ONCE:
        parser.error(f"area {given.area!r} is unknown; areas are {', '.join(AREAS | ONCE)}")
    run(given.area, quick=given.quick, seed=given.seed)
    return 0


if __name__ == "__main__":
    sys.exit(main())
