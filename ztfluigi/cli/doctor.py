"""`ztf doctor`: is this installation, data root and archive in order?"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from targets import rawfiles
from targets.sealed import sha256
from ztfluigi.model.errors import ZtfError
from ztfluigi.services import database
from ztfluigi.services.settings import settings
from ztfluigi.tasks import settings as tasks_settings


def add_parser(subparsers) -> None:
    parser = subparsers.add_parser("doctor", help="check settings, database, calibrators and every archived file")
    parser.add_argument("--content", action="store_true", help="also compare every file's SHA-256 (reads the whole archive)")


def run(args) -> int:
    problems = 0
    for name, trouble in examine(args.content):
        problems += bool(trouble)
        print(f"{'BAD ' if trouble else 'ok  '} {name}" + (f": {trouble}" if trouble else ""))
    return 1 if problems else 0


def examine(content: bool) -> Iterator[tuple[str, str]]:
    """(what was looked at, what is wrong or an empty string)."""
    try:
        tasks_settings.check()
    except ZtfError as error:
        yield "settings and database", error.reason
        return
    root = settings().root
    yield f"settings, data root {root}, database", ""
    version = database.query("select count(*) as n from migrations")[0]["n"]
    yield f"database schema, {version} migrations", ""
    for what, folder in (("astrometric", "astrom"), ("photometric", "photom")):
        count = len(list((root / "ops/static").glob(f"rc*/{folder}/*.fits")))
        yield f"{what} calibrators, {count} field quadrants", "" if count else f"none under {root}/ops/static/rc*/{folder}"
    for path in rawfiles.strays(root):
        yield str(path.relative_to(root)), "not named as a raw CCD file, so never ingested: a copy that broke off, or a wrong name"
    for row in database.query("select kind, key, files from products where vbest > 0 and run = %s and files <> '[]' order by kind, key",
                              (settings().run,)):
        yield from _files(root, row, content)


def _files(root: Path, row: dict, content: bool) -> Iterator[tuple[str, str]]:
    for entry in row["files"]:
        path = root / entry["path"]
        if not path.exists():
            yield entry["path"], f"registered by {row['kind']} {row['key']} but not on disk; ask for the product again to rebuild it"
        elif path.stat().st_size != entry["size"] or (content and sha256(path) != entry["sha256"]):
            yield entry["path"], f"differs from what {row['kind']} {row['key']} sealed; delete it and ask for the product again"
