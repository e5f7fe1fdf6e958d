"""Fixtures that several test folders import: a data root with its own database server, and a run of one's own in it."""

from __future__ import annotations

import itertools
import os

import pytest

from ztfluigi.services import database as database_module
from ztfluigi.services import postgres

_runs = itertools.count()


@pytest.fixture(scope="session")
def survey_root(tmp_path_factory):
    """A data root for the session; its embedded server starts when first needed and is stopped at the end."""
    root = tmp_path_factory.mktemp("survey")
    yield root
    postgres.stop(root)


@pytest.fixture
def database(survey_root, monkeypatch):
    """The database module, set to the session's root and to a run that no other test uses."""
    for name in ("ZTF_DATABASE", "ZTF_KAFKA", "ZTF_CAMERA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ZTF_ROOT", str(survey_root))
    monkeypatch.setenv("ZTF_RUN", f"test{os.getpid()}-{next(_runs)}")
    yield database_module
    database_module.disconnect()


@pytest.fixture
def own_root(tmp_path, monkeypatch):
    """A fresh data root for one test, with no server yet; whatever runs there at the end is stopped."""
    for name in ("ZTF_DATABASE", "ZTF_KAFKA", "ZTF_CAMERA", "ZTF_RUN"):
        monkeypatch.delenv(name, raising=False)
    root = tmp_path / "root"
    root.mkdir(mode=0o700)
    monkeypatch.setenv("ZTF_ROOT", str(root))
    yield root
    database_module.disconnect()
    postgres.stop(root)
