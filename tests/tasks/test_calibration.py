"""The frozen choice of calibrations: a low-frequency flat is in the graph where it was chosen, and nowhere else."""

from __future__ import annotations

import numpy as np
import pytest

from targets.codecs import image as image_codec
from targets.registry import ProductRow
from ztfluigi.tasks import process
from ztfluigi.tasks.calibration import CalibrationChoice, FlatImage
from ztfluigi.tasks.low_flat import LowFlatInputs, LowFrequencyFlat

CELL = ("zr", 3, 1)


def seal(registry, task, **values):
    values = {"night": task.night, "filter": task.filter, "ccdid": task.ccdid, "qid": task.qid} | values
    registry.seal(ProductRow(task.kind, task.key, values.pop("provid", None) or task.provid(), **values))


def freeze(registry, choice):
    seal(registry, choice, provid=choice.sealed_provid("", choice.build(None)), numbers={"chosen": choice.choose()})
    process.PROVIDS.clear()


def test_a_low_frequency_flat_serves_later_nights_and_no_choice_already_made(registry):
    for night in ("2018-10-16", "2018-11-02"):
        seal(registry, FlatImage(night, *CELL), provid=f"flat{night}")
    before = CalibrationChoice("2018-10-16", *CELL)
    freeze(registry, before)
    assert before.chosen_tasks() == [FlatImage("2018-10-16", *CELL)] and before.low_flat() is None
    made = LowFrequencyFlat("2018-10-20", *CELL)
    seal(registry, made, provid="low")
    after = CalibrationChoice("2018-11-02", *CELL)
    assert before.chosen() == ["2018-10-16"] and after.choose() == ["2018-11-02", "2018-10-20"]
    freeze(registry, after)
    seal(registry, LowFrequencyFlat("2018-10-25", *CELL), provid="lower")
    assert after.chosen_tasks() == [FlatImage("2018-11-02", *CELL), made]
    assert CalibrationChoice("2018-11-02", "bi", 3, 1).choose() == []
    path = made.path("image")
    path.parent.mkdir(parents=True)
    image_codec.write_image(path, np.full((4, 5), 1.01, np.float32))
    np.testing.assert_allclose(after.low_flat(), 1.01)
    assert str(path).endswith("ops/static/rc08/calimg/ztf_20181020_zr_c03_q1_lownuflat.fits")


def test_no_master_no_choice_even_with_a_low_frequency_flat(registry):
    seal(registry, LowFrequencyFlat("2018-10-01", *CELL), provid="low")
    assert CalibrationChoice("2018-10-16", *CELL).choose() == []


@pytest.mark.parametrize("own", [True, False])
def test_inputs_are_our_own_good_exposures_up_to_the_night(registry, own):
    for day, rms in ((16, 0.02), (17, 0.5), (18, None), (19, 0.03), (21, 0.02)):
        exposure = f"201810{day}300000"
        place = {"night": f"2018-10-{day}", "filter": "zr", "ccdid": 3, "qid": 1, "exposure": exposure}
        registry.seal(ProductRow("SourceCatalog", f"{exposure}/3/1", f"c{day}", numbers={"MAGZPRMS": rms}, **place))
        if own:
            registry.seal(ProductRow("CalibratedImage", f"{exposure}/3/1", f"i{day}", **place))
    assert LowFlatInputs("2018-10-20", *CELL).choose() == (["20181016300000", "20181019300000"] if own else [])
