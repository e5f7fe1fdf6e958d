"""References of one's own, and the lock."""

from __future__ import annotations

from pathlib import PurePosixPath

import luigi
import pytest

from targets.rows import ProductRow
from ztfluigi.cli import inject, reference
from ztfluigi.model.errors import BadInput
from ztfluigi.tasks import process
from ztfluigi.tasks.base import Built, Product
from ztfluigi.tasks.difference import DifferenceImage
from ztfluigi.tasks.reference import ReferenceCatalog, ReferenceImage, ReferenceInputs, _Locked, usable_reference

CELL = 505, "zr", 6, 1
NIGHTS = ["20181108", "20181109", "20181110"]
WORLD = {"setting": 1}
EXPOSURES = [f"{night}{n:06d}" for night in NIGHTS for n in range(100, 110)]


def test_the_surveys_reference_keeps_its_key_and_path():
    image = ReferenceImage(*CELL)
    assert image.key == "505/zr/6/1" and image.place()["field"] == 505
    assert str(image.files()["refimg"]) == "archive/ref/000/field000505/zr/ccd06/q1/ztf_000505_zr_c06_q1_refimg.fits"


def test_a_reference_of_ones_own_is_apart_and_its_catalogue_follows():
    own = ReferenceCatalog(*CELL, before="2018-11-10", exclude=f"{EXPOSURES[1]}, {EXPOSURES[0]}")
    same = ReferenceCatalog(*CELL, before="2018-11-10", exclude=f"{EXPOSURES[0]},{EXPOSURES[1]}")
    image = own.requires()
    assert own.key == same.key == f"505/zr/6/1/before=2018-11-10/exclude={EXPOSURES[0]},{EXPOSURES[1]}"
    assert own.files() == same.files() and own.place() == {}
    assert own.files()["refpsfcat"].parent == image.files()["refimg"].parent != ReferenceImage(*CELL).files()["refimg"].parent
    assert image.inputs().before == "2018-11-10" and image.inputs().excluded == EXPOSURES[:2]


@pytest.mark.parametrize("words", [{"before": "10 November"}, {"exclude": "2018"}])
def test_words_that_mean_nothing_are_told(words):
    with pytest.raises(BadInput, match="expected"):
        ReferenceInputs(*CELL, **words).variant  # noqa: B018  the property raises


def test_epochs_are_admitted_by_night_and_name():
    inputs = ReferenceInputs(*CELL, before="2018-11-10", exclude=EXPOSURES[0])
    assert [e for e in EXPOSURES if inputs.admits(e)] == EXPOSURES[1:20]


def test_the_survey_does_not_use_a_reference_of_ones_own(registry):
    own = ReferenceCatalog(*CELL, before="2018-11-10")
    registry.seal(ProductRow(own.kind, own.key, "one", "sealed", **own.place()))
    assert usable_reference(own.cell) is None
    survey = ReferenceCatalog(*CELL)
    registry.seal(ProductRow(survey.kind, survey.key, "two", "sealed", **survey.place()))
    assert usable_reference(own.cell).provid == "two"


def test_a_locked_reference_keeps_its_id_until_it_is_unlocked(registry):
    image = ReferenceImage(*CELL)
    registry.seal(ProductRow(image.kind, image.key, "as it was", "sealed", **image.place()))
    assert image.provid() != "as it was"
    registry.mark(image.kind, image.key, vbest=2)
    assert image.settled_provid() == ("as it was", True) and image.complete()
    registry.mark(image.kind, image.key, vbest=1)
    assert image.provid() != "as it was" and not image.output().exists()


def test_unlocking_keeps_the_files_and_says_what_follows(registry, tmp_path):
    tasks = [ReferenceImage(*CELL), ReferenceCatalog(*CELL)]
    for task, role in zip(tasks, ("refimg", "refpsfcat"), strict=True):
        path = tmp_path / task.files()[role]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(role)
        registry.seal(ProductRow(task.kind, task.key, f"old {role}", "sealed", version="0.9.0", config=task.critical(),
                                 files=[{"role": role, "path": str(task.files()[role]), "size": len(role)}]))
        registry.mark(task.kind, task.key, vbest=2)
    registry.seal(ProductRow("DifferenceImage", "1/6/1", "made of it", "sealed", night="2018-11-08"), {"ReferenceImage": ["old refimg"]})
    with pytest.raises(BadInput, match="0 good epochs, 15 are needed"):
        reference.unlock(tasks, choose_again=True)
    assert "locked" in reference.listing()[1].split() and registry.current("ReferenceImage", tasks[0].key).vbest == 2
    told = "\n".join(reference.unlock(tasks, choose_again=False))
    assert "algorithm version was 0.9.0" in told and "1 differences were made with it, of nights 2018-11-08" in told
    assert "ReferenceCatalog --field 505 --filter zr --ccdid 6 --qid 1 --local" in told
    for task, role in zip(tasks, ("refimg", "refpsfcat"), strict=True):
        final = tmp_path / task.files()[role]
        final.with_name("new").write_text(role.upper())
        final.with_name("new").replace(final)  # as a product is replaced
        assert (final.parent / "kept-old refimg" / final.name).read_text() == role
        assert registry.current(task.kind, task.key).vbest == 1 and not task.complete()
    reference.lock(tasks)
    assert registry.current("ReferenceCatalog", tasks[1].key).vbest == 2 and tasks[0].settled_provid() == ("old refimg", True)
    with pytest.raises(BadInput, match="not built"):
        reference.unlock([ReferenceImage(*CELL, before="2018-11-10"), tasks[1]], choose_again=False)


def test_inject_says_what_a_quadrant_lacks():
    task = DifferenceImage("20181108000100", 6, 1)
    assert "not built" in inject.missing(task, None) and "DifferenceImage --exposure 20181108000100 --ccdid 6 --qid 1" in inject.missing(task, None)
    row = ProductRow(task.kind, "20181108000100/6/1", "x", "nothing-to-do", "no reference: 2 good epochs, 15 are needed")
    assert "2 good epochs, 15 are needed; bring in more epochs of that field" in inject.missing(task, row)


class Kept(_Locked, Product):
    """A locked product of a setting."""

    name = luigi.Parameter()

    def files(self):
        return {"text": PurePosixPath(f"ops/{self.name}.txt")}

    def critical(self):
        return dict(WORLD)

    def build(self, stage):
        stage["text"].write_text(str(WORLD["setting"]))
        return Built()


def test_a_locked_product_outlives_its_settings_and_is_mended_when_its_file_is_lost(registry, tmp_path, monkeypatch):
    def ask() -> bool:
        process.PROVIDS.clear()
        return luigi.build([Kept("x")], local_scheduler=True, log_level="CRITICAL")

    assert ask() and registry.current("Kept", "x").vbest == 2
    monkeypatch.setitem(WORLD, "setting", 2)
    assert ask() and (tmp_path / "ops/x.txt").read_text() == "1"
    (tmp_path / "ops/x.txt").unlink()
    assert ask() and (tmp_path / "ops/x.txt").read_text() == "2" and registry.current("Kept", "x").vbest == 2
    registry.mark("Kept", "x", vbest=1)
    monkeypatch.setitem(WORLD, "setting", 3)
    assert ask() and (tmp_path / "ops/x.txt").read_text() == "3"
