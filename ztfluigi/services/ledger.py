"""The ledger of alert packets as delivery sees it: what a broker has still to take, and where it put what it took.

A packet is pending while its row is `sealed` and has no time of delivery.
"""

from __future__ import annotations

from collections.abc import Mapping

import psycopg2.extras

from ztfluigi.services import database
from ztfluigi.services.settings import settings

_PENDING = "run = %(run)s and state = 'sealed' and delivered is null"


def pending_files(night: str) -> list[str]:
    """Archive files that hold pending packets of a night, in order of name."""
    found = database.query(f"select distinct file from alerts where {_PENDING} and night = %(night)s order by file",
                           {"run": settings().run, "night": night}, rows=tuple)
    return [file for file, in found]


def pending(file: str) -> int:
    """How many packets of an archive file no broker has taken."""
    return database.query(f"select count(*) as n from alerts where {_PENDING} and file = %(file)s", {"run": settings().run, "file": file})[0]["n"]


def claim(cursor, file: str) -> dict[int, dict]:
    """Pending packets of an archive file by candid, held by this transaction: another that wants them waits, and then finds them delivered."""
    cursor.execute(f"select candid, night::text as night, programid from alerts where {_PENDING} and file = %(file)s order by candid for update",
                   {"run": settings().run, "file": file})
    return {row["candid"]: dict(row) for row in cursor.fetchall()}


def sealed(night: str) -> dict[str, dict[int, dict]]:
    """Every packet of a night by archive file and candid, delivered or not."""
    files: dict[str, dict[int, dict]] = {}
    for row in database.query("select file, candid, night::text as night, programid from alerts where run = %s and night = %s "
                              "and state = 'sealed' order by file, candid", (settings().run, night)):
        files.setdefault(row["file"], {})[row["candid"]] = row
    return files


def programmes(night: str) -> list[int]:
    """Programmes that have sealed packets of a night."""
    found = database.query("select distinct programid from alerts where run = %s and night = %s and state = 'sealed' order by programid",
                           (settings().run, night), rows=tuple)
    return [programid for programid, in found]


def archived(night: str, programid: int) -> list[tuple[str, str, int]]:
    """Archive files with sealed packets of a night and programme: (file, provid, packets), in order of name."""
    return database.query("select file, provid, count(*) from alerts where run = %s and night = %s and programid = %s and state = 'sealed' "
                          "group by file, provid order by file", (settings().run, night, programid), rows=tuple)


def mark_delivered(cursor, placed: Mapping[int, tuple[str, int, int]]) -> None:
    """Note (topic, partition, offset) of packets that a broker has taken, by candid."""
    if placed:
        psycopg2.extras.execute_values(
            cursor, 'update alerts a set delivered = now(), topic = v.topic, partition = v.partition, "offset" = v.place, sends = a.sends + 1 '
            f"from (values %s) as v (candid, topic, partition, place) where a.candid = v.candid and a.run = '{settings().run}'",
            [(candid, *place) for candid, place in placed.items()], template="(%s::bigint, %s, %s::integer, %s::bigint)", page_size=1000)


def mark_refused(cursor, refused: Mapping[int, str]) -> None:
    """Keep packets that can never be published as `failed`, each with its reason."""
    for candid, reason in refused.items():
        cursor.execute("update alerts set state = 'failed', reason = %s where run = %s and candid = %s", (reason, settings().run, candid))


def counts(night: str) -> dict[str, int]:
    """Packets of a night: `delivered`, `pending`, `failed`."""
    found = database.query("select count(*) filter (where state = 'sealed' and delivered is not null) as delivered, "
                           "count(*) filter (where state = 'sealed' and delivered is null) as pending, "
                           "count(*) filter (where state = 'failed') as failed from alerts where run = %s and night = %s",
                           (settings().run, night))
    return dict(found[0])
