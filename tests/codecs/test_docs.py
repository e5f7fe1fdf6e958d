"""docs/raw_files.md says what the code checks."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from targets.codecs import raw
from ztfluigi.model.columns import GAIA, PS1
from ztfluigi.model.ids import FILTERS

PAGE = (Path(__file__).parents[2] / "docs" / "raw_files.md").read_text()
TABLES = [[[cell.strip() for cell in row.strip("|").split("|")] for row in table.splitlines()]
          for table in re.findall(r"\|---.*\n((?:\|.*\n)+)", PAGE)]


def test_there_are_six_tables():
    assert [len(table) for table in TABLES] == [3, len(raw.ALWAYS), len(raw.OF_OBJECTS), len(raw.OF_QUADRANTS), len(GAIA), len(PS1)]


@pytest.mark.parametrize("table, keywords", [(1, raw.ALWAYS), (2, raw.OF_OBJECTS), (3, raw.OF_QUADRANTS)])
def test_keywords_and_ranges_are_those_checked(table, keywords):
    assert tuple(row[0] for row in TABLES[table]) == keywords
    for keyword, kind, _, limits, _ in TABLES[table]:
        low, high = raw.RANGES.get(keyword, (None, None))
        assert limits == ("" if low is None else f"{low:.10g} to {high:.10g}"), keyword
        assert low is None or kind in ("number", "integer"), keyword


@pytest.mark.parametrize("table, columns", [(4, GAIA), (5, PS1)])
def test_calibrator_columns_are_those_read(table, columns):
    assert TABLES[table] == [[c.name, c.dtype, c.unit, c.meaning] for c in columns]


def test_times_and_codes_are_those_checked():
    text = " ".join(PAGE.split())
    low, high = raw.NAME_LEAD_S
    assert f"{low:g} to {high:g} s after it" in text
    assert f"within {raw.SHUTTER_TOLERANCE_S:g} s of OBSJD" in text and f"within {raw.SHUTTER_TOLERANCE_S:g} s |" in text
    assert f"{raw.MISSING_SENSOR:g} where the sensor is missing" in text
    assert ", ".join(f"{fid} `{code}`" for code, fid in FILTERS.items()) in text
    assert f"quadrants {raw.QUADRANTS[0]} to {raw.QUADRANTS[-1]}" in text
