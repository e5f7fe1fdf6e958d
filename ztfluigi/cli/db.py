"""`ztf db`: the embedded database server of a data root, and the tables for nights to come."""

from __future__ import annotations

import datetime

from ztfluigi.model.camera import load_camera
from ztfluigi.model.ids import night_nid, rcid
from ztfluigi.services import candidates, postgres
from ztfluigi.services.settings import settings


def add_parser(subparsers) -> None:
    parser = subparsers.add_parser("db", help="the database: start or stop the embedded server, print its URI, prepare nights to come")
    parser.add_argument("action", choices=("start", "stop", "uri", "prepare"))
    parser.add_argument("--night", help="first night to prepare, YYYY-MM-DD (default today, UT)")
    parser.add_argument("--nights", type=int, default=2, help="how many nights to prepare (default 2)")


def run(args) -> int:
    root = settings().root
    if args.action == "stop":
        postgres.stop(root)
        print(f"database of {root} is stopped")
    elif args.action == "prepare":
        first = args.night or datetime.datetime.now(datetime.UTC).date().isoformat()
        nid = night_nid(first)
        made = candidates.prepare(range(nid, nid + args.nights), [rcid(ccdid, qid) for ccdid, qid in load_camera(settings().camera).quadrants])
        print(f"{made} partitions of candidates made for {args.nights} nights from {first}")
    else:
        print(postgres.ensure(root))
    return 0
