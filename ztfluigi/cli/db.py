"""`ztf db`: the embedded database server of a data root."""

from __future__ import annotations

from ztfluigi.services import postgres
from ztfluigi.services.settings import settings


def add_parser(subparsers) -> None:
    parser = subparsers.add_parser("db", help="the embedded database server: start, stop, or print its URI")
    parser.add_argument("action", choices=("start", "stop", "uri"))


def run(args) -> int:
    root = settings().root
    if args.action == "stop":
        postgres.stop(root)
        print(f"database of {root} is stopped")
    else:
        print(f"postgresql://postgres@/postgres?host={postgres.serve(root)}&port={postgres.PORT}")
    return 0
