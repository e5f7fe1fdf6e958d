"""`kill -9` of the worker at random moments, then the same command: identical products, nothing lost, nothing doubled."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import time

import numpy as np
import pytest
from astropy.io import fits

from targets.codecs import alert
from tests.night.conftest import BIN, CHECKOUT, enter
from ztfluigi.services import database

pytestmark = [pytest.mark.xdist_group("night"), pytest.mark.night, pytest.mark.db, pytest.mark.slow, pytest.mark.timeout(1500)]

TIMES = {"CREATED", "CHECKSUM", "DATASUM"}


def test_ten_kills_change_nothing(surveys, monkeypatch):
    survey, twin = surveys
    night, draw = survey.nights[-1], random.Random(7)
    command = [BIN / "luigi", "--module", "ztfluigi.tasks", "Night", "--night", night, "--local-scheduler", "--workers", "2"]
    for _ in range(10):
        worker = subprocess.Popen(command, env=twin.environment, cwd=CHECKOUT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(draw.uniform(4.0, 11.0))
        os.kill(worker.pid, signal.SIGKILL)
        worker.wait()
    finished = twin.luigi("Night", "--night", night)
    assert finished.returncode == 0, finished.stderr[-3000:]
    enter(survey, monkeypatch)
    whole = snapshot(survey)
    enter(twin, monkeypatch)
    assert not list(twin.root.glob("**/.tmp-*"))
    again = snapshot(twin)
    assert again["products"] == whole["products"]
    assert again["candidates"] == whole["candidates"]
    assert again["ledger"] == whole["ledger"]
    for path in whole["files"]:
        same_content(survey.root / path, twin.root / path)


def snapshot(survey) -> dict:
    """What a finished night holds, without times and without the names that objects got in order of arrival."""
    night = survey.nights[-1]
    products = database.query("select kind, key, provid, state, reason, infobits from products where vbest > 0 and night = %s "
                              "order by kind, key", (night,))
    candidates = database.query("select candid, ra, dec, magpsf, sigmapsf, scorr, isdiffpos, fate, ndethist, ncovhist from candidates "
                                "where jd > 2458424 order by candid")
    files = database.query("select entry->>'path' as path from products, jsonb_array_elements(files) entry where vbest > 0 and night = %s "
                           "and kind <> 'IngestCcd' order by 1", (night,))
    ledger = database.query("select candid, file, state from alerts order by candid")
    assert len({one["candid"] for one in ledger}) == len(ledger)
    return {"products": products, "candidates": candidates, "files": [one["path"] for one in files], "ledger": ledger}


def same_content(one, other) -> None:
    """Equal pixels, tables and cards, but for the times of writing; equal packets, but for the objects' names."""
    if one.name.endswith(".tar.gz"):
        for (candid, left), (candid_too, right) in zip(alert.unpack_alerts(one), alert.unpack_alerts(other), strict=True):
            assert candid == candid_too
            assert re.sub(rb"ZTF\d\d[a-z]{7}", b"", left) == re.sub(rb"ZTF\d\d[a-z]{7}", b"", right)
    elif ".fits" in one.name:
        with fits.open(one) as left, fits.open(other) as right:
            for a, b in zip(left, right, strict=True):
                assert {k: v for k, v in a.header.items() if k not in TIMES} == {k: v for k, v in b.header.items() if k not in TIMES}, one.name
                if a.data is not None:
                    np.testing.assert_array_equal(np.asarray(a.data).view(np.uint8), np.asarray(b.data).view(np.uint8), err_msg=one.name)
    else:
        assert one.read_bytes() == other.read_bytes()
