"""The product registry: the only code that reads or writes rows of `products` and `raw_files`.

A row is current (`vbest` 1, or 2 when locked) or superseded (0, kept for the record). There is one current row per run, kind
and key. Selections of inputs go through `usable_products`, which hides what is bad, replaced, unusable or superseded.
Two back ends share one contract: `PostgresRegistry` here, `InMemoryRegistry` in `targets.registry_memory`.
"""

from __future__ import annotations

import abc
import dataclasses
import json
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence

import psycopg2.extras

from targets.rows import COLUMNS, JSON_COLUMNS, Between, ExposureRow, ProductRow, RawFile, completed, plain
from ztfluigi.model.errors import BadInput
from ztfluigi.model.ids import night_nid
from ztfluigi.services import database
from ztfluigi.services.settings import settings

__all__ = ["Between", "ExposureRow", "PostgresRegistry", "ProductRow", "RawFile", "Registry"]

WAITING = "waiting"
"""Fate in `counts` of a quadrant that has no row yet: its night is not finished."""
FATE_ORDER = ("failed", "quarantined", "unusable", "sealed", "nothing-to-do")
"""The fate of a quadrant whose chain has not ended is the first of these that one of its products has."""
CHAIN = "Quadrant"
"""The product that ends the chain of a science quadrant; its state is the quadrant's fate."""
PACKET = "packet"
"""Fate of an event that became a packet; any other is the reason why it did not."""
QUADRANTS = (1, 2, 3, 4)
INGEST = "IngestCcd"
MARKS = ("is_bad", "replaced_by", "good_after", "good_until", "vbest")
Inputs = Mapping[str, "str | Iterable[str]"] | Iterable[str]

_STORED = tuple(name for name in COLUMNS if name not in ("id", "created"))
_DATES = ("night", "good_after", "good_until")
_LIST = ", ".join(COLUMNS)
_INSERT = f"insert into products ({', '.join(_STORED)}) values ({', '.join(f'%({name})s' for name in _STORED)})"
_RAW_COLUMNS = tuple(f.name for f in dataclasses.fields(RawFile))
_EXPOSURE_COLUMNS = tuple(f.name for f in dataclasses.fields(ExposureRow))
_CURRENT = "run = %(run)s and kind = %(kind)s and key = %(key)s and vbest > 0"


class Registry(abc.ABC):
    """The contract. `run` names the coherent set of products; by default that of the settings."""

    def __init__(self, run: str | None = None):
        self._run = run

    @property
    def run(self) -> str:
        return self._run or settings().run

    @abc.abstractmethod
    def current(self, kind: str, key: str) -> ProductRow | None:
        """The current row, whatever its state, or None."""

    @abc.abstractmethod
    def current_many(self, kind: str, keys: Iterable[str]) -> dict[str, ProductRow]:
        """The current rows of those keys that have one."""

    def seal(self, row: ProductRow, inputs: Inputs = (), also: Callable | None = None) -> ProductRow:
        """Make `row` the current one: supersede, insert, note the inputs, run `also(cursor)`; all or nothing.

        Parameters
        ----------
        inputs : role to provid(s), or provids alone.
        also : writes what must appear with the row (events, ledger); called with the transaction's cursor (None in memory).

        Raises `BadInput` when the current row is locked, `Transient` when the database gave up.
        """
        if row.state != "sealed":
            raise ValueError(f"{row.kind} {row.key}: seal() takes a sealed row, not {row.state}")
        return self._put(row, _roles(inputs), also)

    def record(self, row: ProductRow, inputs: Inputs = (), also: Callable | None = None) -> ProductRow:
        """Record that there is no product, for good and with its reason: unusable, nothing-to-do or quarantined."""
        if row.state not in ("unusable", "nothing-to-do", "quarantined") or not row.reason:
            raise ValueError(f"{row.kind} {row.key}: record() takes an unusable, nothing-to-do or quarantined row with a reason")
        return self._put(row, _roles(inputs), also)

    @abc.abstractmethod
    def _put(self, row: ProductRow, roles: list[tuple[str, str]], also: Callable | None) -> ProductRow: ...

    @abc.abstractmethod
    def fail(self, kind: str, key: str, message: str, **identity) -> int:
        """Count a failed attempt; the number of attempts since the product last had another state.

        A row `failed` stands for the product unless an older one is current: that stays. `identity`: columns night, exposure, ...
        """

    @abc.abstractmethod
    def mark(self, kind: str, key: str, **marks) -> None:
        """Set quality marks of the current row: is_bad, replaced_by, good_after, good_until; vbest 2 locks, 1 unlocks."""

    @abc.abstractmethod
    def withdraw(self, kind: str, key: str) -> ProductRow | None:
        """Supersede the current row without a successor (before its files are removed); the row withdrawn."""

    @abc.abstractmethod
    def by_provid(self, provid: str) -> ProductRow | None:
        """The newest row of a product id, current or superseded."""

    @abc.abstractmethod
    def inputs_of(self, provid: str) -> list[tuple[str, str]]:
        """(role, provid) of what a product was made of, sorted."""

    @abc.abstractmethod
    def dependents_of(self, provid: str) -> list[str]:
        """provids of what was made of a product, sorted."""

    @abc.abstractmethod
    def select(self, kind: str, *, at: str | None = None, **filters) -> list[ProductRow]:
        """Usable rows of a kind, by key. A filter is a column with a value, a list of values, or `Between`.

        at : night for which the product must be valid (good_after <= at <= good_until).
        """

    @abc.abstractmethod
    def put_raw_file(self, raw: RawFile, cursor=None) -> None:
        """Insert or replace the row of a raw file; inside the caller's transaction when `cursor` is given."""

    @abc.abstractmethod
    def put_exposure(self, row: ExposureRow, cursor=None) -> None:
        """Insert the row of an exposure unless it has one; inside the caller's transaction when `cursor` is given."""

    @abc.abstractmethod
    def exposures(self, night: str) -> list[ExposureRow]:
        """Every exposure of a night, by name."""

    @abc.abstractmethod
    def raw_files(self, night: str) -> list[RawFile]:
        """Every raw file of a night, by name."""

    @abc.abstractmethod
    def counts(self, night: str) -> dict[str, dict[str, int]]:
        """Fates of a night: `raw files`, `quadrants`, `events`, `packets`, each fate to number. A quadrant of an accepted file
        without a row counts as `waiting`; an event that was not judged too. An event is `sealed` in a packet, or `nothing-to-do`."""


class PostgresRegistry(Registry):
    """The registry in the operations database."""

    def _named(self, kind: str, key: str) -> dict:
        return {"run": self.run, "kind": kind, "key": key, "name": f"{self.run}/{kind}/{key}"}

    def current(self, kind, key):
        rows = _rows(f"select {_LIST} from products where {_CURRENT}", self._named(kind, key))
        return rows[0] if rows else None

    def current_many(self, kind, keys):
        rows = _rows(f"select {_LIST} from products where run = %s and kind = %s and key = any(%s) and vbest > 0",
                     (self.run, kind, list(keys)))
        return {row.key: row for row in rows}

    def _lock(self, cursor, kind: str, key: str) -> dict | None:
        """The current row's state, once this transaction is the only writer of the product."""
        cursor.execute("select pg_advisory_xact_lock(hashtextextended(%(name)s, 0)); "
                       f"select vbest, state, attempts, created from products where {_CURRENT}", self._named(kind, key))
        return cursor.fetchone()

    def _put(self, row, roles, also):
        row = completed(row, self.run)
        with database.transaction() as cursor:
            row.attempts = attempts_after(row, self._lock(cursor, row.kind, row.key))
            cursor.execute(f"update products set vbest = 0 where {_CURRENT}; delete from product_inputs where provid = %(provid)s; "
                           f"{_INSERT} returning id, created", _stored(row))
            row = dataclasses.replace(row, **cursor.fetchone())
            if roles:
                psycopg2.extras.execute_values(cursor, "insert into product_inputs (provid, role, input_provid) values %s",
                                               [(row.provid, *pair) for pair in roles])
            if also is not None:
                also(cursor)
        return row

    def fail(self, kind, key, message, **identity):
        names = self._named(kind, key) | {"message": message, "host": socket.gethostname()}
        with database.transaction() as cursor:
            before = self._lock(cursor, kind, key)
            if before is None:
                attempts = 1
                cursor.execute(_INSERT, _stored(completed(ProductRow(kind, key, "", "failed", message, **identity), self.run)))
            elif before["state"] == "failed":
                attempts = before["attempts"] + 1
                cursor.execute("update products set attempts = attempts + 1, reason = %(message)s, host = %(host)s "
                               f"where {_CURRENT}", names)
            else:
                cursor.execute('select count(*) + 1 as next from failures where run = %(run)s and kind = %(kind)s and key = %(key)s '
                               'and "when" > %(created)s', names | {"created": before["created"]})
                attempts = cursor.fetchone()["next"]
            cursor.execute("insert into failures (run, kind, key, attempts, message, host) "
                           "values (%(run)s, %(kind)s, %(key)s, %(attempts)s, %(message)s, %(host)s)", names | {"attempts": attempts})
        return attempts

    def mark(self, kind, key, **marks):
        check_marks(marks)
        done = database.execute(f"update products set {', '.join(f'{name} = %({name})s' for name in marks)} where {_CURRENT}",
                                marks | self._named(kind, key))
        if not done:
            raise BadInput(f"there is no {kind} {key} in run {self.run} to mark")

    def withdraw(self, kind, key):
        with database.transaction() as cursor:
            cursor.execute(f"update products set vbest = 0 where {_CURRENT} returning {_LIST}", self._named(kind, key))
            found = cursor.fetchone()
        return _row(tuple(found.values())) if found else None

    def by_provid(self, provid):
        rows = _rows(f"select {_LIST} from products where provid = %s and run = %s order by id desc limit 1", (provid, self.run))
        return rows[0] if rows else None

    def inputs_of(self, provid):
        found = database.query("select role, input_provid from product_inputs where provid = %s order by 1, 2", (provid,))
        return [(r["role"], r["input_provid"]) for r in found]

    def dependents_of(self, provid):
        found = database.query("select distinct provid from product_inputs where input_provid = %s order by 1", (provid,))
        return [r["provid"] for r in found]

    def select(self, kind, *, at=None, **filters):
        check_filters(filters)
        clauses, args = ["run = %s", "kind = %s"], [self.run, kind]
        if at is not None:
            clauses.append("coalesce(good_after <= %s, true) and coalesce(good_until >= %s, true)")
            args += [at, at]
        for name, value in filters.items():
            if isinstance(value, Between):
                for sign, bound in ((">=", value.low), ("<=", value.high)):
                    if bound is not None:
                        clauses.append(f"{name} {sign} %s")
                        args.append(bound)
            elif value is None:
                clauses.append(f"{name} is null")
            elif isinstance(value, (list, tuple, set, frozenset)):
                clauses.append(f"{name} in %s" if value else "false")
                args += [tuple(value)] if value else []
            else:
                clauses.append(f"{name} = %s")
                args.append(value)
        return _rows(f"select {_LIST} from usable_products where {' and '.join(clauses)} order by key", args)

    def put_raw_file(self, raw, cursor=None):
        changes = ", ".join(f"{name} = excluded.{name}" for name in _RAW_COLUMNS[1:])
        sql = (f"insert into raw_files ({', '.join(_RAW_COLUMNS)}) values ({', '.join(f'%({name})s' for name in _RAW_COLUMNS)}) "
               f"on conflict (filename) do update set {changes}")
        _put(sql, dataclasses.asdict(raw), cursor)

    def put_exposure(self, row, cursor=None):
        sql = (f"insert into exposures ({', '.join(_EXPOSURE_COLUMNS)}) values ({', '.join(f'%({name})s' for name in _EXPOSURE_COLUMNS)}) "
               "on conflict (exposure) do nothing")
        _put(sql, dataclasses.asdict(row) | {"header": json.dumps(plain(row.header))}, cursor)

    def exposures(self, night):
        found = database.query(f"select {', '.join(_EXPOSURE_COLUMNS)} from exposures where night = %s order by exposure", (night,))
        return [ExposureRow(**{**row, "night": row["night"].isoformat()}) for row in found]

    def raw_files(self, night):
        found = database.query(f"select {', '.join(_RAW_COLUMNS)} from raw_files where night = %s order by filename", (night,))
        return [RawFile(**{**row, "night": row["night"].isoformat()}) for row in found]

    def counts(self, night):
        raw = "select state, count(*) as n from raw_files where night = %(night)s group by 1"
        quadrants = """
            select coalesce(state, %(waiting)s) as state, count(*) as n from (
                select r.exposure, r.ccdid, q.qid, coalesce(max(p.state) filter (where p.kind = %(chain)s), (%(order)s::text[])[
                       min(array_position(%(order)s::text[], p.state)) filter (where p.qid = q.qid or r.imgtype <> 'o')]) as state
                from raw_files r cross join unnest(%(quadrants)s::int[]) as q(qid)
                left join products p on p.exposure = r.exposure and p.ccdid = r.ccdid and (p.qid = q.qid or p.qid is null)
                     and p.run = %(run)s and p.vbest > 0 and p.kind <> %(ingest)s
                where r.night = %(night)s and r.state = 'sealed' group by 1, 2, 3) fates
            group by 1"""
        events = ("select case when fate is null then %(waiting)s when fate = %(packet)s then 'sealed' else 'nothing-to-do' end as state, "
                  "count(*) as n from candidates where nid = %(nid)s and run = %(run)s group by 1")
        packets = "select state, count(*) as n from alerts where run = %(run)s and night = %(night)s group by 1"
        args = {"night": night, "nid": night_nid(night), "run": self.run, "waiting": WAITING, "order": list(FATE_ORDER),
                "quadrants": list(QUADRANTS), "ingest": INGEST, "chain": CHAIN, "packet": PACKET}
        parts = {"raw files": raw, "quadrants": quadrants, "events": events, "packets": packets}
        return {name: {r["state"]: r["n"] for r in database.query(sql, args)} for name, sql in parts.items()}


def _put(sql: str, values: dict, cursor) -> None:
    if cursor is None:
        database.execute(sql, values)
    else:
        cursor.execute(sql, values)


def _rows(sql: str, args: Sequence | Mapping) -> list[ProductRow]:
    return [_row(found) for found in database.query(sql, args, rows=tuple)]


def _row(found: Sequence) -> ProductRow:
    """A row from values in the order of COLUMNS."""
    row = ProductRow(*found)
    for name in _DATES:
        if (value := getattr(row, name)) is not None:
            setattr(row, name, value.isoformat())
    return row


def _stored(row: ProductRow) -> dict:
    values = {name: getattr(row, name) for name in _STORED}
    for name in JSON_COLUMNS:
        values[name] = json.dumps(values[name], allow_nan=False)
    return values


def _roles(inputs: Inputs) -> list[tuple[str, str]]:
    if not isinstance(inputs, Mapping):
        inputs = {"": inputs}
    pairs = {(role, provid) for role, given in inputs.items() for provid in ([given] if isinstance(given, str) else given)}
    return sorted(pairs)


def attempts_after(row: ProductRow, before: Mapping | None) -> int:
    """Attempts of a row that follows the current one `before`; `BadInput` when that is locked."""
    if before is not None and before["vbest"] == 2:
        raise BadInput(f"{row.kind} {row.key} of run {row.run} is locked as best: unlock it, or use another run")
    return before["attempts"] + 1 if before is not None and before["state"] == "failed" else 1


def check_marks(marks: Mapping) -> None:
    if not marks or (unknown := set(marks) - set(MARKS)):
        raise ValueError(f"marks are {', '.join(MARKS)}, not {sorted(unknown) if marks else 'none'}")


def check_filters(filters: Mapping) -> None:
    if unknown := set(filters) - set(COLUMNS):
        raise ValueError(f"products have no column {', '.join(sorted(unknown))}")
