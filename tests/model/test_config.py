"""Settings, product ids and mask bits."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil

import pytest

import ztfluigi.model.config as config
from ztfluigi.model import maskbits
from ztfluigi.model.config import critical_values, knob, parse
from ztfluigi.model.errors import ConfigError
from ztfluigi.model.provenance import product_id


@dataclasses.dataclass(frozen=True)
class Sample:
    size: int = knob(3, "a size", unit="pix", low=1, high=9)
    limit: float | None = knob(None, "a limit")
    names: tuple[str, ...] = knob(("a",), "names", choices=("a", "b"))
    loud: bool = knob(False, "verbosity", critical=False)


def sections():
    for module in pkgutil.iter_modules(config.__path__):
        for name, item in vars(importlib.import_module(f"ztfluigi.model.config.{module.name}")).items():
            if dataclasses.is_dataclass(item) and item.__module__.startswith("ztfluigi.model.config."):
                yield pytest.param(item, id=name)


def test_values_are_converted():
    assert parse(Sample, "sample", {"size": "4", "limit": "2.5", "names": "a, b", "loud": "yes"}) == Sample(4, 2.5, ("a", "b"), True)
    assert parse(Sample, "sample", {"limit": "none"}) == Sample()


@pytest.mark.parametrize("values, words", [({"sise": "4"}, "no setting 'sise'"), ({"size": "four"}, "not a valid int"),
                                           ({"size": "40"}, "outside 1..9"), ({"names": "c"}, "not one of a, b"),
                                           ({"loud": "perhaps"}, "not true or false")])
def test_wrong_settings_are_named(values, words):
    with pytest.raises(ConfigError, match=words) as caught:
        parse(Sample, "sample", values)
    assert "[sample]" in caught.value.reason


def test_only_critical_knobs_enter_identity():
    assert critical_values(Sample()) == {"size": 3, "limit": None, "names": ("a",)}


@pytest.mark.parametrize("section", list(sections()))
def test_every_section_is_documented_and_in_range(section):
    fields = dataclasses.fields(section)
    assert len(fields) < 10
    for item in fields:
        assert item.metadata["doc"]
        default, low, high = getattr(section(), item.name), item.metadata["low"], item.metadata["high"]
        for value in default if isinstance(default, tuple) else (default,):
            assert value is None or isinstance(value, (str, bool)) or ((low is None or value >= low) and (high is None or value <= high))


def test_product_id_depends_on_what_matters_alone():
    base = ("ScienceImage:20180601250000/c01q1", "1.2.0", {"a": 1, "b": 2.5}, ["x", "y"])
    one = product_id(*base)
    assert len(one) == 24 and int(one, 16) >= 0
    assert one == product_id(base[0], "1.2.9", {"b": 2.5, "a": 1}, ["y", "x"])
    changed = [("Other", *base[1:]), (base[0], "1.3.0", *base[2:]), (*base[:2], {"a": 1, "b": 2.6}, base[3]), (*base[:3], ["x"])]
    assert len({one, *(product_id(*item) for item in changed)}) == 5


def test_mask_bits_are_ztf_s():
    assert maskbits.UNUSABLE == 6141 == sum(int(bit) for bit in maskbits.Mask) - maskbits.SOURCE
    assert maskbits.SOURCE == 2050
    cards = maskbits.bit_cards()
    assert [n for _, n, _ in cards] == list(range(16))
    assert cards[8] == ("BIT08", 8, "SATURATED") and cards[15][2].startswith("RESERVED")
