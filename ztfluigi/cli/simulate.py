"""`ztf simulate`: a seeded sky and camera write a data root, with truth beside it."""

from __future__ import annotations

import sys
from pathlib import Path

from ztfluigi.model.camera import load_camera
from ztfluigi.model.errors import BadInput


def add_parser(subparsers) -> None:
    parser = subparsers.add_parser("simulate", help="write a simulated survey: raw files, calibrators, orbits, truth")
    parser.add_argument("--root", type=Path, help="data root to write to (default: that of luigi.cfg or ZTF_ROOT)")
    parser.add_argument("--camera", help="camera description (default: that of luigi.cfg or ZTF_CAMERA)")
    parser.add_argument("--preset", default="demo", help="demo (three nights, two filters) or tiny (two nights, one filter)")
    parser.add_argument("--seed", type=int, default=1, help="the same seed gives the same bytes (default 1)")
    parser.add_argument("--nights", type=int, metavar="N", help="only the last N nights of the preset")
    parser.add_argument("--density", choices=("high-lat", "plane"), default="high-lat", help="crowding of the sky")
    parser.add_argument("--faults", action="store_true", help="add damaged raw files to the last night")
    parser.add_argument("--processes", type=int, default=2, metavar="N", help="processes that share the work (default 2)")


def run(args) -> int:
    from dataclasses import replace

    from tqdm import tqdm

    from ztfluigi.services.settings import settings
    from ztfluigi.simulate import plan
    from ztfluigi.simulate.survey import simulate_survey

    if args.preset not in plan.PRESETS:
        raise BadInput(f"there is no preset {args.preset!r}; presets are {', '.join(plan.PRESETS)}")
    chosen = plan.PRESETS[args.preset]
    if args.nights is not None:
        if not 1 <= args.nights <= len(chosen.nights):
            raise BadInput(f"--nights {args.nights} is outside 1 to {len(chosen.nights)}, the nights of preset {args.preset}")
        chosen = replace(chosen, nights=chosen.nights[-args.nights:])
    root = args.root or settings().root
    camera = load_camera(args.camera or settings().camera)
    summary = simulate_survey(root, camera, chosen, args.seed, args.faults, density=args.density, processes=args.processes,
                              progress=lambda items, total: tqdm(items, total=total, unit="file", desc="simulating",
                                                                 disable=not sys.stderr.isatty()))
    damaged = f", {summary.faults} of them damaged on purpose" if summary.faults else ""
    print(f"{root}: {summary.nights} nights of camera {camera.name}, {summary.raw_files} raw files{damaged}, "
          f"{summary.sky_exposures} sky exposures of field {chosen.field}, {summary.transients} transients, "
          f"{summary.asteroids} asteroids; truth is in {root / 'truth'}")
    return 0
