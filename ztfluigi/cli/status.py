"""`ztf status --night`: what became of everything that came in."""

from __future__ import annotations

from targets import rawfiles
from targets.current import registry
from ztfluigi.model.errors import BadInput
from ztfluigi.model.ids import night_code
from ztfluigi.services.settings import settings as survey


def add_parser(subparsers) -> None:
    parser = subparsers.add_parser("status", help="counts of a night: raw files, quadrants, events, packets and what became of them")
    parser.add_argument("--night", required=True, metavar="YYYY-MM-DD")


def run(args) -> int:
    try:
        night_code(args.night)
    except ValueError as error:
        raise BadInput(f"night {args.night!r} is not a date YYYY-MM-DD") from error
    from ztfluigi.tasks import settings

    settings.check()
    for level, fates in registry().counts(args.night).items():
        total = sum(fates.values())
        print(f"{level:10s} {total:7d}  " + ", ".join(f"{count} {fate}" for fate, count in sorted(fates.items(), key=lambda item: -item[1])))
    strays = rawfiles.strays(survey().root, args.night)
    if strays:
        print(f"left alone {len(strays):7d}  in incoming, not named ztf_<exposure>_<field>_<filter>_c<CC>_<type>.fits.fz (half copied?): "
              + ", ".join(path.name for path in strays[:5]) + (" ..." if len(strays) > 5 else ""))
    return 0
