"""One small seeded survey for all: simulated with damaged files, run night by night through the real `luigi` command."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from targets import current
from targets.registry import PostgresRegistry
from ztfluigi.services import database, postgres
from ztfluigi.simulate.truth import Truth

BIN = Path(sys.executable).parent
CHECKOUT = Path(__file__).resolve().parents[2]


@dataclass
class Survey:
    """A data root and how to run commands on it."""

    root: Path
    runs: dict[str, subprocess.CompletedProcess] = field(default_factory=dict)
    patience_s: int = 800

    @property
    def environment(self) -> dict[str, str]:
        clean = {key: value for key, value in os.environ.items() if not key.startswith("ZTF_")}
        return clean | {"ZTF_ROOT": str(self.root), "ZTF_CAMERA": "ztf-mini", "OMP_NUM_THREADS": "1"}

    def command(self, program: str, *arguments: str, folder: Path = CHECKOUT) -> subprocess.CompletedProcess:
        """Run a console script of this installation; output as text."""
        return subprocess.run([BIN / program, *arguments], env=self.environment, cwd=folder, text=True, capture_output=True, timeout=self.patience_s)

    def luigi(self, task: str, *arguments: str, folder: Path = CHECKOUT) -> subprocess.CompletedProcess:
        """Ask for a product."""
        return self.command("luigi", "--module", "ztfluigi.tasks", task, *arguments, "--local-scheduler", "--workers", "2", folder=folder)

    @property
    def truth(self) -> Truth:
        return Truth(self.root)

    @property
    def nights(self) -> list[str]:
        return sorted({record["night"] for record in self.truth.exposures})

    def sky(self, night: str) -> list[dict]:
        """Truth records of the night's undamaged sky exposures under a clear sky."""
        return [r for r in self.truth.exposures if r["night"] == night and r["type"] == "o" and not r["fault"] and not r["cloudy"]]

    def registry(self) -> PostgresRegistry:
        return current.registry()


def enter(survey: Survey, monkeypatch) -> None:
    """Point this process at a survey."""
    for name, value in survey.environment.items():
        if name.startswith("ZTF_"):
            monkeypatch.setenv(name, value)
    monkeypatch.delenv("ZTF_RUN", raising=False)
    database.disconnect()


@pytest.fixture(scope="session")
def surveys(tmp_path_factory):
    """(survey after both nights, its twin as it was after the first night)."""
    base = tmp_path_factory.mktemp("night")
    survey, twin = Survey(base / "survey"), Survey(base / "twin")
    made = survey.command("ztf", "simulate", "--preset", "tiny", "--faults", "--processes", "2")
    assert made.returncode == 0, made.stderr
    first, last = survey.nights
    survey.runs[first] = survey.luigi("Night", "--night", first)
    postgres.stop(survey.root)
    shutil.copytree(survey.root, twin.root)
    survey.runs[last] = survey.luigi("Night", "--night", last)
    yield survey, twin
    for one in (survey, twin):
        postgres.stop(one.root)


@pytest.fixture
def survey(surveys, monkeypatch):
    """The survey after both nights; this process looks at its database."""
    enter(surveys[0], monkeypatch)
    yield surveys[0]
    database.disconnect()


@pytest.fixture
def twin(surveys, monkeypatch):
    """The survey after its first night only."""
    enter(surveys[1], monkeypatch)
    yield surveys[1]
    database.disconnect()
