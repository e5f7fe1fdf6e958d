"""What every product task shares: identity, product id, sealed output, and the three kinds of failure.

A subclass states its parameters (identity only), `requires()`, `files()`, the configuration it depends on and `build()`; the rest is here.
This is the only place that catches failures, and each one ends in a registry row.
"""

from __future__ import annotations

import datetime
import os
import platform
import resource
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import luigi

import ztfluigi
from targets.current import registry
from targets.registry import ProductRow
from targets.sealed import Stage
from ztfluigi.model.config import critical_values
from ztfluigi.model.errors import BadInput, NoWork, Unusable, ZtfError
from ztfluigi.model.provenance import product_id
from ztfluigi.tasks import process
from ztfluigi.tasks.settings import configuration, root

GOOD = "sealed"
SETTLED = ("sealed", "unusable", "nothing-to-do", "quarantined")


@dataclass
class Built:
    """What `build()` hands over for sealing.

    numbers : QA scalars and lists for the registry. infobits, usable, reason : the verdict on the product.
    place : identity columns that only the data know (field, obsjd, footprint, ...).
    also : callable(cursor) that writes rows in the sealing transaction.
    state : the fate, where it is not `sealed` or `unusable` by `usable`.
    """

    numbers: dict = field(default_factory=dict)
    infobits: int = 0
    usable: bool = True
    reason: str = ""
    place: dict = field(default_factory=dict)
    also: object = None
    state: str = ""


class Inherited(ZtfError):
    """An input did not come out well; this product shares its fate."""

    def __init__(self, row: ProductRow):
        super().__init__(row.reason or f"{row.kind} {row.key} is {row.state}")
        self.state = row.state
        self.infobits = row.infobits or 0


class ProductTarget(luigi.Target):
    """A product as the registry and the disk know it. It exists when a settled row carries the expected id and its files are there."""

    def __init__(self, task: Product):
        self.task = task

    def row(self) -> ProductRow | None:
        """The current registry row of this product, fresh or stale."""
        return registry().current(self.task.kind, self.task.key)

    def exists(self) -> bool:
        row = self.row()
        return row is not None and row.state in SETTLED and row.provid == self.task.provid() and whole(row)

    def path(self, role: str) -> Path:
        """Absolute path of one of its files."""
        return root() / self.task.files()[role]


def whole(row: ProductRow) -> bool:
    """Every file of a row is there, at the size it was sealed with."""
    try:
        return all((root() / entry["path"]).stat().st_size == entry["size"] for entry in row.files or ())
    except OSError:
        return False


class Product(luigi.Task):
    """Base of every product task."""

    #: MAJOR.MINOR.PATCH of the algorithm; a new MAJOR or MINOR makes existing products stale.
    version = "1.0.0"
    #: Names of the configuration sections whose critical settings shape this product.
    sections: tuple[str, ...] = ()
    #: Whether compiled kernels do the work: they are loaded before processes are forked for it.
    kernels = False
    #: Passing trouble is retried this often before the night is left unfinished.
    retry_count = 3

    def __init__(self, *args, **kwargs):
        process.ensure_ready()
        super().__init__(*args, **kwargs)

    # -- identity ---------------------------------------------------------------------------------------------------------------
    @property
    def kind(self) -> str:
        return self.get_task_family()

    @property
    def key(self) -> str:
        """Canonical text of the identity."""
        return "/".join(str(getattr(self, name)) for name, _ in self.get_params())

    def place(self) -> dict:
        """Identity columns of the registry row: night, exposure, field, filter, ccdid, qid."""
        names = ("night", "exposure", "field", "filter", "ccdid", "qid")
        return {name: getattr(self, name) for name in names if hasattr(self, name)}

    def ingredients(self) -> Iterable[Product]:
        """The products this one is made of; their ids enter its id."""
        return luigi.task.flatten(self.requires())

    def critical(self) -> dict[str, object]:
        """Critical settings, `section.name` to value."""
        return {f"{name}.{key}": value for name in self.sections for key, value in critical_values(configuration(name)).items()}

    def provid(self) -> str:
        """The product id expected from today's configuration and inputs. Remembered once every frozen choice in it is made."""
        return self.settled_provid()[0]

    def settled_provid(self) -> tuple[str, bool]:
        """(product id, whether it can still change by a choice not yet made)."""
        known = process.PROVIDS.get(self.task_id)
        if known:
            return known, True
        inputs = [task.settled_provid() for task in self.ingredients()]
        provid = product_id(f"{self.kind}:{self.key}", self.version, self.critical(), [one for one, _ in inputs])
        settled = all(flag for _, flag in inputs)
        if settled:
            process.PROVIDS[self.task_id] = provid
        return provid, settled

    # -- output -----------------------------------------------------------------------------------------------------------------
    def files(self) -> Mapping[str, PurePosixPath]:
        """Paths relative to the data root, by role."""
        return {}

    def output(self) -> ProductTarget:
        return ProductTarget(self)

    def row(self) -> ProductRow:
        """The registry row of this product; it must be complete."""
        row = self.output().row()
        if row is None:
            raise ZtfError(f"{self.kind} {self.key} is not built")
        return row

    def path(self, role: str) -> Path:
        """Absolute path of one of this product's files."""
        return self.output().path(role)

    def complete(self) -> bool:
        """Sealed, or recorded with its reason. A request that cannot be (no such night, no such file) ends with one sentence."""
        try:
            done = super().complete()
        except BadInput as error:
            process.refuse(error)
        if not done and self.kernels:
            process.load_kernels()
        return done

    def deps(self):
        """As luigi asks for them; a request that cannot be ends with one sentence here too."""
        try:
            return super().deps()
        except BadInput as error:
            process.refuse(error)

    # -- running ----------------------------------------------------------------------------------------------------------------
    def build(self, stage: Stage) -> Built:
        """Make the product: write files to `stage[role]`, return the verdict. About ten lines in every subclass."""
        raise NotImplementedError

    def requires_more(self) -> list[Product]:
        """Prerequisites known only once `requires()` are complete (the members of a frozen choice)."""
        return []

    def gates(self) -> Iterable[Product]:
        """Ingredients that must have come out well; otherwise this product shares their fate."""
        return self.ingredients()

    def run(self):
        """Build, seal, register. Luigi calls it; every way out leaves a registry row."""
        more = [task for task in self.requires_more() if not task.complete()]
        if more:
            yield more
        if self.complete():
            return
        process.enter_task()
        clock = _Clock()
        try:
            self._seal(clock)
        except Exception as error:
            registry().fail(self.kind, self.key, _sentence(error), **self.place())
            raise

    def _seal(self, clock: _Clock) -> None:
        provid, inputs = self.provid(), self.input_ids()
        stage = Stage(root(), self.files())
        stage.sweep()
        try:
            for task in self.gates():
                row = task.row()
                if row.state != GOOD:
                    raise Inherited(row)
            built = self.build(stage)
            state = built.state or (GOOD if built.usable else "unusable")
        except NoWork as reason:
            built, state = Built(numbers=reason.numbers, reason=reason.reason), "nothing-to-do"
        except Unusable as reason:
            built, state = Built(numbers=reason.numbers, infobits=reason.infobits, reason=reason.reason), "unusable"
        except Inherited as reason:
            built, state = Built(infobits=reason.infobits, reason=reason.reason), reason.state
        files = stage.publish()
        row = self._row(clock, state, provid=self.sealed_provid(provid, built), reason=built.reason, infobits=built.infobits,
                        numbers=built.numbers, files=files, **built.place)
        put = registry().seal if state == GOOD else registry().record
        put(row, inputs, built.also)

    def input_ids(self) -> dict[str, list[str]]:
        """Product ids of the ingredients, by kind."""
        ids: dict[str, list[str]] = {}
        for task in self.ingredients():
            ids.setdefault(task.kind, []).append(task.provid())
        return ids

    def sealed_provid(self, expected: str, built: Built) -> str:
        """The id the product is registered under."""
        return expected

    def _row(self, clock: _Clock, state: str, **columns) -> ProductRow:
        values = {**self.place(), **clock.spent(), **columns}
        return ProductRow(kind=self.kind, key=self.key, state=state, version=self.version, config=self.critical(),
                          host=platform.node(), pilot=os.environ.get("ZTF_PILOT", ""), code_version=ztfluigi.__version__, **values)


class Choice(Product):
    """A choice made once and kept: which frames, which calibration, which inputs. Its id is a hash of what was chosen.

    `choose()` looks at the world as it is now; the answer is frozen when it is sealed, so that the graph is the same each time it is
    drawn. A choice that found nothing to do is looked at again, and is complete only while the world still gives the same answer.
    """

    #: States in which the recorded choice stands.
    frozen = ("sealed",)

    def choose(self) -> list:
        """The choice as the world is now, a list of JSON values; no side effects."""
        raise NotImplementedError

    def chosen(self) -> list:
        """The frozen choice, or what would be chosen now."""
        return self._standing()[0]

    def _standing(self) -> tuple[list, bool]:
        row = registry().current(self.kind, self.key)
        if row is not None and row.state in self.frozen:
            recorded = row.numbers["chosen"]
            if row.provid == self._provid_of(recorded):
                return recorded, True
        return self.choose(), False

    def _provid_of(self, chosen: list) -> str:
        return product_id(f"{self.kind}:{self.key}", self.version, self.critical(), [str(item) for item in chosen])

    def settled_provid(self) -> tuple[str, bool]:
        known = process.PROVIDS.get(self.task_id)
        if known:
            return known, True
        chosen, settled = self._standing()
        provid = self._provid_of(chosen)
        if settled:
            process.PROVIDS[self.task_id] = provid
        return provid, settled

    def sealed_provid(self, expected: str, built: Built) -> str:
        return self._provid_of(built.numbers["chosen"]) if "chosen" in built.numbers else expected

    def gates(self) -> Iterable[Product]:
        return ()


class _Clock:
    """Wall time, CPU time and peak memory of one task."""

    def __init__(self):
        self.started = datetime.datetime.now(datetime.UTC)
        self.wall, self.cpu = time.monotonic(), time.process_time()

    def spent(self) -> dict:
        return {"started": self.started, "seconds": time.monotonic() - self.wall, "cpu_s": time.process_time() - self.cpu,
                "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0}


def _sentence(error: Exception) -> str:
    return error.reason if isinstance(error, ZtfError) else f"{type(error).__name__}: {error}"
