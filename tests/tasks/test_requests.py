"""Requests that cannot be met end with one clear sentence and a status that is not zero, through the real commands."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ztfluigi.services import postgres

pytestmark = pytest.mark.db
BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("requests") / "root"
    yield folder
    postgres.stop(folder)


def ask(root: Path, folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("ZTF_")}
    return subprocess.run([BIN / "luigi", "--module", "ztfluigi.tasks", *arguments, "--local-scheduler", "--no-lock"], cwd=folder, text=True,
                          capture_output=True, env=clean | {"ZTF_ROOT": str(root), "ZTF_CAMERA": "ztf-mini"} | environment, timeout=120)


def sentence(done: subprocess.CompletedProcess) -> str:
    """What was said besides the closing counts; no traceback."""
    assert done.returncode != 0
    assert "Traceback" not in done.stderr, done.stderr
    return next(line for line in done.stderr.splitlines() if line.startswith("ztf: "))


def test_a_night_without_files(root, tmp_path):
    assert "night 2018-01-01 has no raw files under" in sentence(ask(root, tmp_path, "Night", "--night", "2018-01-01"))


def test_an_exposure_that_is_not_there(root, tmp_path):
    assert "exposure 20180101123456 has no raw file" in sentence(ask(root, tmp_path, "Exposure", "--exposure", "20180101123456"))
    told = sentence(ask(root, tmp_path, "ScienceImage", "--exposure", "20180101123456", "--ccdid", "1", "--qid", "1"))
    assert "no raw file of exposure 20180101123456, ccd 01" in told


@pytest.mark.parametrize("text, expected", [
    ("[difference]\nmatch_snrr = 3\n", "[difference] has no setting 'match_snrr'; known settings are tile_size"),
    ("[difference]\nmatch_snr = many\n", "[difference] match_snr = 'many' is not a valid float"),
    ("[difference]\nmatch_snr = 1\n", "[difference] match_snr = 1.0 is outside"),
    ("[diference]\nmatch_snr = 3\n", "section [diference] is unknown"),
])
def test_a_wrong_setting(root, tmp_path, text, expected):
    (tmp_path / "luigi.cfg").write_text(text)
    assert expected in sentence(ask(root, tmp_path, "Night", "--night", "2018-01-01"))


def test_a_database_that_refuses(root, tmp_path):
    told = sentence(ask(root, tmp_path, "Night", "--night", "2018-01-01", ZTF_DATABASE="postgresql://nobody@127.0.0.1:9/none"))
    assert "127.0.0.1" in told


def test_a_root_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("")
    assert "cannot be created" in sentence(ask(tmp_path / "file" / "root", tmp_path, "Night", "--night", "2018-01-01"))


def test_a_camera_that_is_not_described(root, tmp_path):
    assert "camera 'pinhole' is not described" in sentence(ask(root, tmp_path, "Night", "--night", "2018-01-01", ZTF_CAMERA="pinhole"))
