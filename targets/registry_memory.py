"""The registry held in memory, for tests of what stands on it: the same contract as `PostgresRegistry`."""

from __future__ import annotations

import copy
import dataclasses
import datetime
from collections import Counter
from collections.abc import Callable

from targets.registry import CHAIN, FATE_ORDER, INGEST, QUADRANTS, WAITING, Registry, attempts_after, check_filters, check_marks
from targets.rows import Between, ExposureRow, ProductRow, RawFile, completed
from ztfluigi.model.errors import BadInput


class InMemoryRegistry(Registry):
    """Rows in a list, in order of arrival. `events` and `packets` (fate words by night) are set by the test itself."""

    def __init__(self, run: str = "memory"):
        super().__init__(run)
        self.rows: list[ProductRow] = []
        self.roles: dict[str, list[tuple[str, str]]] = {}
        self.failures: list[tuple[str, str, int, str]] = []
        self.raw: dict[str, RawFile] = {}
        self.taken: dict[str, ExposureRow] = {}
        self.events: dict[str, list[str]] = {}
        self.packets: dict[str, list[str]] = {}

    def _find(self, kind: str, key: str) -> ProductRow | None:
        return next((row for row in self.rows if row.vbest > 0 and row.kind == kind and row.key == key), None)

    def current(self, kind, key):
        return copy.deepcopy(self._find(kind, key))

    def current_many(self, kind, keys):
        keys = set(keys)
        return {row.key: copy.deepcopy(row) for row in self.rows if row.vbest > 0 and row.kind == kind and row.key in keys}

    def _put(self, row: ProductRow, roles: list[tuple[str, str]], also: Callable | None) -> ProductRow:
        before = self._find(row.kind, row.key)
        row = completed(row, self.run)
        row.attempts = attempts_after(row, dataclasses.asdict(before) if before else None)
        self._number(row)
        if also is not None:
            also(None)  # before anything is kept: when it raises, nothing was written
        if before is not None:
            before.vbest = 0
        self.rows.append(row)
        self.roles[row.provid] = roles
        return copy.deepcopy(row)

    def _number(self, row: ProductRow) -> None:
        row.id, row.created = len(self.rows) + 1, datetime.datetime.now(datetime.timezone.utc)

    def fail(self, kind, key, message, **identity):
        before = self._find(kind, key)
        if before is None:
            attempts, row = 1, completed(ProductRow(kind, key, "", "failed", message, **identity), self.run)
            self._number(row)
            self.rows.append(row)
        elif before.state == "failed":
            before.attempts += 1
            before.reason = message
            attempts = before.attempts
        else:
            attempts = sum(1 for k, i, after, _ in self.failures if (k, i, after) == (kind, key, before.id)) + 1
        self.failures.append((kind, key, before.id if before else 0, message))
        return attempts

    def mark(self, kind, key, **marks):
        check_marks(marks)
        row = self._find(kind, key)
        if row is None:
            raise BadInput(f"there is no {kind} {key} in run {self.run} to mark")
        for name, value in marks.items():
            setattr(row, name, value)

    def withdraw(self, kind, key):
        row = self._find(kind, key)
        if row is not None:
            row.vbest = 0
        return copy.deepcopy(row)

    def by_provid(self, provid):
        return copy.deepcopy(next((row for row in reversed(self.rows) if row.provid == provid), None))

    def inputs_of(self, provid):
        return list(self.roles.get(provid, ()))

    def dependents_of(self, provid):
        return sorted(made for made, roles in self.roles.items() if any(used == provid for _, used in roles))

    def select(self, kind, *, at=None, **filters):
        check_filters(filters)
        usable = (row for row in self.rows if row.vbest > 0 and row.state == "sealed" and not row.is_bad and row.replaced_by is None)
        chosen = [row for row in usable if row.kind == kind and all(_passes(getattr(row, n), wanted) for n, wanted in filters.items())
                  and (at is None or (row.good_after or at) <= at <= (row.good_until or at))]
        return copy.deepcopy(sorted(chosen, key=lambda row: row.key))

    def put_raw_file(self, raw, cursor=None):
        self.raw[raw.filename] = dataclasses.replace(raw)

    def put_exposure(self, row, cursor=None):
        self.taken.setdefault(row.exposure, copy.deepcopy(row))

    def exposures(self, night):
        return [copy.deepcopy(row) for _, row in sorted(self.taken.items()) if row.night == night]

    def raw_files(self, night):
        return [dataclasses.replace(raw) for _, raw in sorted(self.raw.items()) if raw.night == night]

    def counts(self, night):
        quadrants = Counter(self._quadrant_fate(raw, qid) for raw in self.raw_files(night) if raw.state == "sealed" for qid in QUADRANTS)
        return {"raw files": dict(Counter(raw.state for raw in self.raw_files(night))), "quadrants": dict(quadrants),
                "events": dict(Counter(self.events.get(night, ()))), "packets": dict(Counter(self.packets.get(night, ())))}

    def _quadrant_fate(self, raw: RawFile, qid: int) -> str:
        states = {row.state for row in self.rows if row.vbest > 0 and row.kind != INGEST
                  and (row.exposure, row.ccdid) == (raw.exposure, raw.ccdid)
                  and (row.qid == qid or (row.qid is None and raw.imgtype != "o"))}
        chain = self._find(CHAIN, f"{raw.exposure}/{raw.ccdid}/{qid}")
        return chain.state if chain else next((state for state in FATE_ORDER if state in states), WAITING)


def _passes(value, wanted) -> bool:
    if isinstance(wanted, Between):
        return value is not None and (wanted.low is None or value >= wanted.low) and (wanted.high is None or value <= wanted.high)
    return value in wanted if isinstance(wanted, (list, tuple, set, frozenset)) else value == wanted
