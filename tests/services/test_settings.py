import os
from dataclasses import dataclass

import luigi.configuration
import pytest

from ztfluigi.model.config import knob
from ztfluigi.model.errors import BadInput, ConfigError
from ztfluigi.services.settings import check_sections, section, settings


@pytest.fixture
def config(tmp_path, monkeypatch):
    """Write a luigi.cfg that is the only one in force."""
    parser = luigi.configuration.LuigiConfigParser

    def write(text: str) -> None:
        (tmp_path / "luigi.cfg").write_text(text)
        fresh = parser()
        fresh.read([str(tmp_path / "luigi.cfg")])
        monkeypatch.setattr(parser, "_instance", fresh)

    for name in ("ROOT", "CAMERA", "DATABASE", "KAFKA", "RUN"):
        monkeypatch.delenv(f"ZTF_{name}", raising=False)
    monkeypatch.chdir(tmp_path)
    return write


def test_file_then_environment(config, tmp_path, monkeypatch):
    config("[ztf]\nroot = survey\ncamera = ztf-mini\n")
    assert settings().root == tmp_path / "survey" and settings().root.is_dir()
    assert (settings().camera, settings().database, settings().kafka, settings().run) == ("ztf-mini", None, None, "main")
    monkeypatch.setenv("ZTF_ROOT", str(tmp_path / "other"))
    monkeypatch.setenv("ZTF_DATABASE", "postgresql://h/d")
    monkeypatch.setenv("ZTF_RUN", "second")
    monkeypatch.setenv("ZTF_CAMERA", "")
    assert settings().root == tmp_path / "other"
    assert (settings().camera, settings().database, settings().run) == ("ztf-mini", "postgresql://h/d", "second")


@pytest.mark.parametrize("text, says", [
    ("[ztf]\nroot = x\nrout = y\n", r"\[ztf\] has no setting 'rout'"),
    ("[ztf]\ncamera = ztf\n", "no data root.*ZTF_ROOT"),
    ("[ztf]\nroot = x\nrun = a/b\n", "run = 'a/b' must be a name"),
])
def test_wrong_setting_is_one_sentence(config, text, says):
    config(text)
    with pytest.raises(ConfigError, match=says) as caught:
        settings()
    assert "\n" not in caught.value.reason


def test_root_that_cannot_be_used(config, tmp_path):
    (tmp_path / "file").write_text("")
    config("[ztf]\nroot = file\n")
    with pytest.raises(BadInput, match="data root .*file cannot be created"):
        settings()


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_root_read_only(config, tmp_path):
    (tmp_path / "shut").mkdir(mode=0o500)
    config("[ztf]\nroot = shut\n")
    with pytest.raises(BadInput, match="not writable"):
        settings()


@dataclass(frozen=True)
class Example:
    radius_arcsec: float = knob(1.5, "a radius", unit="arcsec", low=0.1, high=10)


def test_science_sections(config):
    config("[ztf]\nroot = x\n[matching]\nradius_arcsec = 2\n[core]\nno_lock = true\n[ScienceImage]\nx = 1\n")
    check_sections({"matching": Example})
    assert section(Example, "matching") == Example(2.0)
    assert section(Example, "absent") == Example()


@pytest.mark.parametrize("text, says", [
    ("[matching]\nradius = 2\n", "has no setting 'radius'"),
    ("[matching]\nradius_arcsec = 20\n", "outside 0.1..10"),
    ("[matchnig]\nradius_arcsec = 2\n", r"section \[matchnig\] is unknown"),
])
def test_wrong_section_is_refused_at_start(config, text, says):
    config(text)
    with pytest.raises(ConfigError, match=says):
        check_sections({"matching": Example})
