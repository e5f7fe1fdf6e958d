"""`ztf inject`: synthetic sources in a sealed quadrant, and how many of them the difference gives back."""

from __future__ import annotations

import dataclasses
import json

from ztfluigi.model.errors import BadInput
from ztfluigi.model.ids import check_exposure


def add_parser(subparsers) -> None:
    parser = subparsers.add_parser("inject", help="put synthetic sources into a sealed science image, difference it in memory, report")
    parser.add_argument("--exposure", required=True, metavar="FILEFRACDAY")
    parser.add_argument("--ccdid", type=int, required=True)
    parser.add_argument("--qid", type=int, required=True)
    parser.add_argument("--number", type=int, help="sources in a full-size quadrant (default: [injection] number)")
    parser.add_argument("--snr", type=float, nargs=2, metavar=("LOW", "HIGH"), help="range of true S/N")
    parser.add_argument("--seed", type=int, help="places and brightness (default: of the quadrant's own)")
    parser.add_argument("--json", action="store_true", help="print the numbers as one JSON object")


def run(args) -> int:
    from ztfluigi.tasks import settings
    from ztfluigi.tasks.difference import DifferenceImage
    from ztfluigi.tasks.injection import draw, inject

    settings.check()
    try:
        check_exposure(args.exposure)
    except ValueError as error:
        raise BadInput(str(error)) from error
    task = DifferenceImage(args.exposure, args.ccdid, args.qid)
    row = task.output().row()
    if row is None or row.state != "sealed":
        raise BadInput(missing(task, row))
    config = settings.configuration("injection")
    wanted = {"number": args.number, "min_snr": args.snr and args.snr[0], "max_snr": args.snr and args.snr[1]}
    config = dataclasses.replace(config, **{name: value for name, value in wanted.items() if value is not None})
    if config.number < 1 or config.min_snr <= 0:
        raise BadInput(f"{config.number} sources from S/N {config.min_snr:g} cannot be placed, expected at least one and S/N above 0")
    seed = draw(args.exposure, args.ccdid, args.qid) if args.seed is None else args.seed
    _, numbers = inject(task, seed=seed, config=config)
    print(json.dumps(numbers) if args.json else "\n".join(report(numbers)))
    return 0


def missing(task, row) -> str:
    """What a quadrant without a sealed difference lacks, and what to do."""
    command = f"luigi --module ztfluigi.tasks DifferenceImage --exposure {task.exposure} --ccdid {task.ccdid} --qid {task.qid} --local-scheduler"
    if row is None:
        return f"DifferenceImage {task.key} is not built, expected a sealed one; ask for it first: {command}"
    more = "; bring in more epochs of that field (a night, or `ztf adopt`), then ask for it again: " + command
    return f"DifferenceImage {task.key} is {row.state}, expected a sealed one: {row.reason}" + (more if row.state == "nothing-to-do" else "")


def report(numbers: dict) -> list[str]:
    """Lines of a table: completeness by true S/N and place, then photometry, positions and scores by place."""
    from ztfluigi.algorithms.injection import PLACES

    edges = numbers["snr_bins"]
    lines = [f"{numbers['n_injected']} sources", "true S/N   " + "".join(f"{name:>16s}" for name in PLACES) + "     found / number"]
    for k, (low, high) in enumerate(zip(edges, edges[1:], strict=False)):
        cells = [(numbers[f"{name}_complete"][k], numbers[f"{name}_in_bin"][k]) for name in PLACES]
        lines.append(f"{low:4g} - {high:<4g}" + "".join(f"{_text(share, '.3f'):>10s} / {count:3d}" for share, count in cells))
    words = (("n", "sources", "d"), ("snr_half", "S/N of half completeness", ".2f"), ("pull_bias", "flux pull, median", ".2f"),
             ("pull_width", "flux pull, width", ".2f"), ("position_mas", "position error, S/N > 20 [mas]", ".0f"),
             ("rb_kept", "rb > 0.5", ".3f"), ("drb_kept", "drb > 0.5", ".3f"))
    for key, word, form in words:
        lines.append(f"{word:32s}" + "".join(f"{name} {_text(numbers[f'{name}_{key}'], form):10s}" for name in PLACES))
    return lines


def _text(value, form: str) -> str:
    return "-" if value is None else format(value, form)
