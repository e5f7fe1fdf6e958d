"""What every product task promises: sealed or absent, stale exactly when it should be, each failure recorded as what it is."""

from __future__ import annotations

from pathlib import PurePosixPath

import luigi
import pytest

from ztfluigi.model.errors import NoWork, Transient, Unusable
from ztfluigi.tasks import process
from ztfluigi.tasks.base import Built, Choice, Product

RAN: list[str] = []
WORLD = {"files": ["a", "b"], "trouble": None, "setting": 1}


@pytest.fixture(autouse=True)
def clean():
    RAN.clear()
    WORLD.update(files=["a", "b"], trouble=None, setting=1)


class Pick(Choice):
    """Freezes a list of at least two."""

    name = luigi.Parameter()

    def choose(self):
        return list(WORLD["files"])

    def build(self, stage):
        RAN.append("Pick")
        if len(self.choose()) < 2:
            raise NoWork(f"{len(self.choose())} files, 2 are needed", chosen=self.choose())
        return Built(numbers={"chosen": self.choose()})


class First(Product):
    """A file made from the pick."""

    name = luigi.Parameter()

    def requires(self):
        return Pick(self.name)

    def files(self):
        return {"text": PurePosixPath(f"ops/{self.name}.txt")}

    def critical(self):
        return {"first.setting": WORLD["setting"]}

    def build(self, stage):
        RAN.append("First")
        if WORLD["trouble"]:
            raise WORLD["trouble"]
        stage["text"].write_text(" ".join(self.requires().chosen()))
        return Built(numbers={"n": 2})


class Second(Product):
    """A file made from the first."""

    name = luigi.Parameter()

    def requires(self):
        return First(self.name)

    def files(self):
        return {"text": PurePosixPath(f"ops/{self.name}-2.txt")}

    def build(self, stage):
        RAN.append("Second")
        stage["text"].write_text(self.requires().path("text").read_text() * 2)
        return Built()


def ask(task) -> bool:
    """One request in one process, as a fresh command would make it."""
    RAN.clear()
    process.PROVIDS.clear()
    return luigi.build([task], local_scheduler=True, log_level="CRITICAL")


def test_a_product_is_built_once_with_what_it_needs(registry, tmp_path):
    assert ask(Second("x"))
    assert RAN == ["Pick", "First", "Second"]
    assert (tmp_path / "ops/x-2.txt").read_text() == "a ba b"
    row = registry.current("First", "x")
    assert (row.state, row.numbers["n"], row.files[0]["size"]) == ("sealed", 2, 3)
    assert registry.inputs_of(row.provid) == [("Pick", Pick("x").provid())]
    assert ask(Second("x")) and not RAN


def test_a_deleted_file_is_rebuilt_alone_and_keeps_its_id(registry, tmp_path):
    ask(Second("x"))
    before = registry.current("First", "x").provid
    (tmp_path / "ops/x.txt").unlink()
    assert Second("x").complete() and not First("x").complete()
    assert ask(First("x")) and RAN == ["First"]
    assert registry.current("First", "x").provid == before
    assert Second("x").complete()


def test_a_critical_setting_makes_exactly_what_depends_on_it_stale(registry):
    ask(Second("x"))
    WORLD["setting"] = 2
    process.PROVIDS.clear()
    assert Pick("x").complete() and not First("x").complete() and not Second("x").complete()
    assert ask(Second("x")) and RAN == ["First", "Second"]


def test_a_choice_stays_as_it_was_made(registry):
    ask(Second("x"))
    WORLD["files"].append("c")
    assert ask(Second("x")) and not RAN


def test_nothing_to_do_is_complete_until_the_world_changes(registry):
    WORLD["files"] = ["a"]
    assert ask(Second("x"))
    rows = [registry.current(kind, "x") for kind in ("Pick", "First", "Second")]
    assert [row.state for row in rows] == ["nothing-to-do"] * 3
    assert {row.reason for row in rows} == {"1 files, 2 are needed"}
    assert ask(Second("x")) and not RAN
    WORLD["files"] = ["a", "b"]
    assert ask(Second("x")) and RAN == ["Pick", "First", "Second"]


def test_unusable_is_recorded_once_and_inherited(registry, tmp_path):
    WORLD["trouble"] = Unusable("7 stars, 20 are needed", infobits=1 << 12, found=7)
    assert ask(Second("x"))
    first, second = (registry.current(kind, "x") for kind in ("First", "Second"))
    assert (first.state, first.infobits, first.numbers["found"]) == ("unusable", 4096, 7)
    assert (second.state, second.infobits, second.reason) == ("unusable", 4096, "7 stars, 20 are needed")
    assert not (tmp_path / "ops/x-2.txt").exists()
    assert ask(Second("x")) and not RAN


def test_passing_trouble_is_raised_counted_and_mended_by_the_same_request(registry):
    WORLD["trouble"] = Transient("the disk is full")
    assert not ask(Second("x"))
    row = registry.current("First", "x")
    assert (row.state, row.reason) == ("failed", "the disk is full")
    WORLD["trouble"] = None
    assert ask(Second("x")) and RAN == ["First", "Second"]
    assert registry.current("First", "x").state == "sealed"


def test_a_death_between_rename_and_registry_leaves_the_product_absent(registry, tmp_path, monkeypatch):
    ask(Pick("x"))
    with monkeypatch.context() as patch:
        patch.setattr(type(registry), "seal", lambda *a, **k: (_ for _ in ()).throw(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            list(First("x").run())
    assert (tmp_path / "ops/x.txt").exists() and registry.current("First", "x") is None and not First("x").complete()
    assert ask(First("x")) and RAN == ["First"]


def test_leftovers_of_a_killed_attempt_are_swept(registry, tmp_path):
    (tmp_path / "ops").mkdir()
    (tmp_path / "ops/.tmp-99-x.txt").write_text("half")
    assert ask(First("x"))
    assert sorted(p.name for p in (tmp_path / "ops").iterdir()) == ["x.txt"]
