"""Candidates, the objects they make and the ledger of alert packets: bulk writes inside a seal, history by position.

Writers take the cursor of the caller's transaction, so that rows appear with their product or not at all. Every reader and
writer works in one run. Times are JD UTC, positions deg, radii arcsec.
"""

from __future__ import annotations

import datetime
import functools
import io
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import psycopg2.extras

from ztfluigi.model.ids import object_name
from ztfluigi.services import database, healpix
from ztfluigi.services.settings import settings

MATCH_RADIUS_ARCSEC = 1.5
"""Detections nearer than this are one object (alert schema)."""
LOCK_ORDER = 9
"""Order of the HEALPix cells (6.9 arcmin) that are locked while objects in them are named."""
OBJECT_LOCK = 7_236_003
HISTORY = ("jd", "fid", "pid", "diffmaglim", "pdiffimfilename", "programpi", "programid", "candid", "isdiffpos", "tblid", "nid", "rcid",
           "field", "xpos", "ypos", "ra", "dec", "magpsf", "sigmapsf", "chipsf", "magap", "sigmagap", "distnr", "magnr", "sigmagnr",
           "chinr", "sharpnr", "sky", "magdiff", "fwhm", "classtar", "mindtoedge", "magfromlim", "seeratio", "aimage", "bimage",
           "aimagerat", "bimagerat", "elong", "nneg", "nbad", "rb", "ssdistnr", "ssmagnr", "ssnamenr", "sumrat", "magapbig",
           "sigmagapbig", "ranr", "decnr", "scorr", "magzpsci", "magzpsciunc", "magzpscirms", "clrcoeff", "clrcounc", "rbversion")
"""Fields of `prv_candidate`, in schema order."""


@functools.lru_cache(maxsize=1)
def columns() -> dict[str, str]:
    """Columns of the candidates table: name to SQL type."""
    found = database.query("select attname, format_type(atttypid, atttypmod) as type from pg_attribute "
                           "where attrelid = 'candidates'::regclass and attnum > 0 and not attisdropped order by attnum")
    return {r["attname"]: r["type"] for r in found}


def night_and_channel(pid: int) -> tuple[int, int]:
    """nid and rcid of a processing id."""
    return pid // 10**9, pid // 100 % 100


def ensure_partition(nid: int, rcid: int) -> str:
    """Name of the partition of a night and readout channel; made when absent, at once and by itself (safe against races)."""
    name = f"candidates_n{nid:05d}_rc{rcid:02d}"
    if database.query("select to_regclass(%s) as found", (name,))[0]["found"] is None:
        with database.separate_transaction() as cursor:
            cursor.execute("select ensure_partition(%s, %s)", (nid, rcid))
    return name


def prepare(nids: Iterable[int], channels: Iterable[int]) -> int:
    """Make the partitions and the view of nights to come, by night id and readout channel; how many partitions there were to make.

    Asked daily (paper 2.3), so that no product of the night waits for one.
    """
    wanted = [(nid, rcid) for nid in nids for rcid in channels]
    with database.separate_transaction() as cursor:
        cursor.execute("select nid, rcid from unnest(%s::int[], %s::int[]) as q (nid, rcid) where to_regclass("
                       "'candidates_n' || lpad(nid::text, 5, '0') || '_rc' || lpad(rcid::text, 2, '0')) is null order by nid, rcid",
                       ([nid for nid, _ in wanted], [rcid for _, rcid in wanted]))
        missing = cursor.fetchall()
        for row in missing:
            cursor.execute("select ensure_partition(%s, %s)", (row["nid"], row["rcid"]))
    return len(missing)


def replace_events(cursor, pid: int, provid: str, nid: int, rcid: int, rows: np.ndarray | Sequence[Mapping]) -> int:
    """Put the events of one difference image in the place of those it had; the number written.

    Parameters
    ----------
    rows : structured array or dicts; names are columns of `candidates` (see `columns`), at least candid, jd, fid, field, ra, dec.
        A column left out, NaN, infinity and None become null; pid, nid, rcid, hpx, run and provid are filled in here.

    Raises `ValueError` for an unknown column or rows of another image.
    """
    partition, run = ensure_partition(nid, rcid), settings().run
    values = _columns_of(rows)
    n = len(rows)
    if unknown := set(values) - set(columns()):
        raise ValueError(f"candidates have no column {', '.join(sorted(unknown))}")
    cursor.execute(f"delete from {partition} where run = %s and candid >= %s and candid < %s", (run, pid * 10**6, (pid + 1) * 10**6))
    cursor.execute("delete from detections where run = %s and candid >= %s and candid < %s", (run, pid * 10**6, (pid + 1) * 10**6))
    if n and any(candid // 10**6 != pid for candid in values["candid"]):
        raise ValueError(f"not every candid is of pid {pid}")
    pixels = healpix.index(np.array(values["ra"], float), np.array(values["dec"], float)) if n else np.zeros(0, np.int64)
    if n:
        values |= {"run": [run] * n, "provid": [provid] * n, "pid": [pid] * n, "nid": [nid] * n, "rcid": [rcid] * n, "hpx": pixels.tolist()}
        text = "\n".join("\t".join(row) for row in zip(*([_copy_text(v) for v in column] for column in values.values()))) + "\n"
        cursor.copy_expert(f"copy {partition} ({', '.join(values)}) from stdin", io.StringIO(text))
        names = ", ".join(("run", "hpx", *HISTORY))
        cursor.execute(f"insert into detections ({names}) select {names} from {partition} where run = %s and candid >= %s and candid < %s",
                       (run, pid * 10**6, (pid + 1) * 10**6))
    return n


def update_events(cursor, pid: int, rows: np.ndarray | Sequence[Mapping]) -> int:
    """Set columns (objectid, fate, history, context, ...) of events already there, by candid; the number touched."""
    values = _columns_of(rows)
    if not len(rows):
        return 0
    names = [name for name in values if name != "candid"]
    touched = _update(cursor, ensure_partition(*night_and_channel(pid)), names, values)
    if by_place := [name for name in names if name in HISTORY]:
        _update(cursor, "detections", by_place, values)
    return touched


def _update(cursor, table: str, names: Sequence[str], values: Mapping[str, list]) -> int:
    types = columns()
    tuples = [tuple(_null(v) for v in row) for row in zip(values["candid"], *(values[name] for name in names))]
    touched = psycopg2.extras.execute_values(
        cursor, f"update {table} t set {', '.join(f'{name} = v.{name}' for name in names)} "
        f"from (values %s) as v (candid, {', '.join(names)}) where t.candid = v.candid and t.run = '{settings().run}' returning 1",
        tuples, template="(%s::bigint, " + ", ".join(f"%s::{types[name]}" for name in names) + ")", page_size=len(tuples), fetch=True)
    return len(touched)


def events(pid: int) -> list[dict]:
    """Every event of a difference image, by candid, all columns."""
    return database.query("select * from candidates where nid = %s and rcid = %s and run = %s and candid >= %s and candid < %s "
                          "order by candid", (*night_and_channel(pid), settings().run, pid * 10**6, (pid + 1) * 10**6))


def numbered(pid: int) -> np.ndarray:
    """Every event of a difference image that ever had a candid, there now or published once: rows candid, ra, dec [deg].

    The place of one that is gone is that of its object.
    """
    there = [(row["candid"], row["ra"], row["dec"]) for row in events(pid)]
    kept = database.query("select m.candid, o.ra, o.dec from object_members m join objects o using (run, objectid) where m.run = %s "
                          "and m.candid >= %s and m.candid < %s and not m.candid = any(%s::bigint[]) order by m.candid",
                          (settings().run, pid * 10**6, (pid + 1) * 10**6, [row[0] for row in there]), rows=tuple)
    return np.array([*there, *kept], [("candid", "i8"), ("ra", "f8"), ("dec", "f8")])


def history(ra, dec, jd_from: float, jd_to: float, *, radius_arcsec: float = MATCH_RADIUS_ARCSEC) -> list[list[dict]]:
    """Earlier detections at many positions: for each, rows with the `prv_candidate` fields, by time.

    Every event counts, whatever its fate; the interval is jd_from <= jd < jd_to.
    """
    return _detections(ra, dec, jd_from, jd_to, radius_arcsec, HISTORY)


def detection_counts(candid, ra, dec, jd: float, *, field: int, rcid: int) -> list[tuple[int, float, float]]:
    """(ndethist, jdstarthist, jdendhist) of candidates of one image: detections of the same field and rcid since the survey began.

    The candidate itself counts once, stored or not. `jd` is the image's.
    """
    found = _detections(ra, dec, -math.inf, np.nextafter(jd, np.inf), MATCH_RADIUS_ARCSEC, ("candid", "jd"), field=field, rcid=rcid)
    counts = []
    for own, rows in zip(np.atleast_1d(candid).tolist(), found):
        times = {r["candid"]: r["jd"] for r in rows} | {own: jd}
        counts.append((len(times), min(times.values()), max(times.values())))
    return counts


def _detections(ra, dec, jd_from, jd_to, radius_arcsec, wanted, *, field=None, rcid=None) -> list[list[dict]]:
    ra, dec = np.atleast_1d(ra).astype(float), np.atleast_1d(dec).astype(float)
    found: list[list[dict]] = [[] for _ in ra]
    position, pixel = healpix.disc_pixels(ra, dec, radius_arcsec)
    times = {"from": jd_from if np.isfinite(jd_from) else 0.0, "to": jd_to, "run": settings().run, "field": field, "rcid": rcid}
    same = "and field = %(field)s and rcid = %(rcid)s " if field is not None else ""
    names = ", ".join(dict.fromkeys((*wanted, "jd", "candid", "ra", "dec", "hpx")))
    # One index probe a pixel, whatever the planner believes about a table it has no statistics of (hence `offset 0`).
    rows = database.query(
        f"select c.* from unnest(%(pixels)s::bigint[]) as p (pixel) cross join lateral (select {names} from detections where hpx = pixel "
        f"and run = %(run)s and jd >= %(from)s and jd < %(to)s {same} offset 0) c order by c.jd, c.candid",
        times | {"pixels": np.unique(pixel).tolist()})
    owners = defaultdict(list)
    for p, x in zip(position.tolist(), pixel.tolist()):
        owners[x].append(p)
    pairs = np.array([(i, p) for i, row in enumerate(rows) for p in owners[row["hpx"]]], np.int64).reshape(-1, 2)
    at = np.array([(row["ra"], row["dec"]) for row in rows], float).reshape(-1, 2)
    near = healpix.separation_arcsec(at[pairs[:, 0], 0], at[pairs[:, 0], 1], ra[pairs[:, 1]], dec[pairs[:, 1]]) <= radius_arcsec
    for i, p in pairs[near].tolist():
        found[p].append({name: rows[i][name] for name in wanted})
    return found


def assign_object_ids(cursor, candidates: Iterable[tuple]) -> dict[int, str]:
    """objectId of each candidate (candid, ra, dec, jd, field, rcid): that of an object within 1.5 arcsec, else a new one.

    A candidate that had an objectId keeps it. Two transactions that name objects in one neighbourhood do it one after the other
    (locks on the HEALPix cells around, held until commit), so that one place never gets two names; others run side by side.
    Names are counted per UT year of the first candidate; a transaction that fails leaves a gap.
    """
    candidates = sorted((int(c), float(a), float(d), float(jd), int(field), int(rcid)) for c, a, d, jd, field, rcid in candidates)
    if not candidates:
        return {}
    run = settings().run
    candid, ra, dec = (np.array(column) for column in list(zip(*candidates))[:3])
    position, pixel = healpix.disc_pixels(ra, dec, MATCH_RADIUS_ARCSEC)
    cursor.execute("select pg_advisory_xact_lock(%s, cell) from unnest(%s::int[]) as cell",
                   (OBJECT_LOCK, healpix.cells(pixel, LOCK_ORDER).tolist()))  # sorted: no two transactions can wait for each other
    cursor.execute("select candid, objectid from object_members where run = %s and candid = any(%s::bigint[])", (run, candid.tolist()))
    names = {r["candid"]: r["objectid"] for r in cursor.fetchall()}
    cursor.execute("select objectid, ra, dec, hpx from objects where run = %s and hpx = any(%s::bigint[])",
                   (run, np.unique(pixel).tolist()))
    places = defaultdict(list)
    for r in cursor.fetchall():
        places[r["hpx"]].append((r["ra"], r["dec"], r["objectid"]))
    reach = defaultdict(list)
    for p, x in zip(position.tolist(), pixel.tolist()):
        reach[p].append(x)
    own = healpix.index(ra, dec).tolist()
    fresh: dict[int, list[int]] = defaultdict(list)  # year -> rows that found an object
    joined: dict[int, int] = {}  # row -> row whose new object it joins
    for i, row in enumerate(candidates):
        if row[0] in names:
            continue
        near = [(healpix.separation_arcsec(ra[i], dec[i], *place[:2]), place[2]) for x in reach[i] for place in places.get(x, ())]
        distance, found = min(near, key=lambda pair: pair[0], default=(math.inf, None))
        if distance <= MATCH_RADIUS_ARCSEC:
            if isinstance(found, str):
                names[row[0]] = found
            else:
                joined[i] = found
        else:
            fresh[_year(row[3])].append(i)
            places[own[i]].append((ra[i], dec[i], i))
    objects = []
    for year, rows in fresh.items():
        first = _reserve_names(run, year, len(rows))
        for seq, i in enumerate(rows, first):
            names[candidates[i][0]] = object_name(year, seq)
            objects.append((run, names[candidates[i][0]], *candidates[i][:3], own[i], *candidates[i][4:6], candidates[i][3], year, seq))
    for i, first in joined.items():
        names[candidates[i][0]] = names[candidates[first][0]]
    if objects:
        psycopg2.extras.execute_values(
            cursor, "insert into objects (run, objectid, candid, ra, dec, hpx, field, rcid, jd, year, seq) values %s", objects)
    psycopg2.extras.execute_values(cursor, "insert into object_members (run, candid, objectid) values %s on conflict do nothing",
                                   [(run, key, name) for key, name in names.items()])
    return names


def _reserve_names(run: str, year: int, n: int) -> int:
    """First of `n` sequence numbers nobody else gets. On its own connection: the counter is not held until the seal commits."""
    with database.separate_transaction() as cursor:
        cursor.execute("insert into object_sequences (run, year, next) values (%(run)s, %(year)s, %(n)s) on conflict (run, year) "
                       "do update set next = object_sequences.next + %(n)s returning next - %(n)s as first",
                       {"run": run, "year": year, "n": n})
        return cursor.fetchone()["first"]


def _year(jd: float) -> int:
    return (datetime.datetime(2000, 1, 1) + datetime.timedelta(days=jd - 2451544.5)).year


def replace_alerts(cursor, pid: int, provid: str, night: str, rows: Sequence[Mapping]) -> None:
    """Put the packets of one quadrant in the ledger in place of those it had.

    rows : dicts with candid, objectid and any of programid, file, state, reason. A packet of the same provid that was delivered stays so;
        one that was delivered and is no longer made stays too, as `nothing-to-do`: the world has it.
    """
    run = settings().run
    gone = "run = %s and pid = %s and not candid = any(%s::bigint[])"
    args = (run, pid, [r["candid"] for r in rows])
    cursor.execute(f"delete from alerts where {gone} and delivered is null and sends = 0", args)
    cursor.execute(f"update alerts set state = 'nothing-to-do', reason = 'delivered, but no longer made' where {gone}", args)
    if rows:
        kept = ", ".join(f'{name} = case when alerts.provid = excluded.provid then alerts.{name} end'
                         for name in ("delivered", "topic", "partition", '"offset"'))
        psycopg2.extras.execute_values(
            cursor, "insert into alerts (run, pid, provid, night, candid, objectid, programid, file, state, reason) values %s "
            "on conflict (run, candid) do update set pid = excluded.pid, provid = excluded.provid, night = excluded.night, "
            "objectid = excluded.objectid, programid = excluded.programid, file = excluded.file, state = excluded.state, "
            f"reason = excluded.reason, created = now(), {kept}",
            [(run, pid, provid, night, r["candid"], r["objectid"], r.get("programid"), r.get("file"), r.get("state", "sealed"),
              r.get("reason")) for r in rows])


def _columns_of(rows: np.ndarray | Sequence[Mapping]) -> dict[str, list]:
    if isinstance(rows, np.ndarray):
        return {name: rows[name].tolist() for name in rows.dtype.names}
    return {name: [row.get(name) for row in rows] for name in dict.fromkeys(name for row in rows for name in row)}


def _null(value):
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _copy_text(value) -> str:
    """One value in PostgreSQL's COPY text format."""
    value = _null(value)
    if value is None:
        return "\\N"
    if isinstance(value, bytes):
        value = value.decode()
    if isinstance(value, str):
        return value.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")
    return repr(value)
