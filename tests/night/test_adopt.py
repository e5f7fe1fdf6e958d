"""A real ZTF science image through our pipeline, from adoption to catalogues, beside the archive's own answers."""

from __future__ import annotations

import pytest

from tests.night.conftest import Survey, enter
from ztfluigi.services import database, postgres

pytestmark = [pytest.mark.real, pytest.mark.db, pytest.mark.slow]


def test_a_real_image_is_adopted_and_measured(shared_data, tmp_path, monkeypatch):
    survey = Survey(tmp_path / "root")
    monkeypatch.setattr(Survey, "environment", Survey.environment.fget(survey) | {"ZTF_CAMERA": "ztf"})
    files = sorted(str(path) for path in (shared_data / "ztf-sciimg").glob("*.fits.fz"))
    done = survey.command("ztf", "adopt", "--measure", *files)
    assert done.returncode == 0, done.stderr[-2000:]
    table = {words[0]: (float(words[1]), float(words[2])) for words in (line.split() for line in done.stdout.splitlines())
             if len(words) == 3 and words[0].isupper()}
    assert table["SEEING"][0] == pytest.approx(table["SEEING"][1], abs=0.1)
    assert table["MAGLIM"][0] == pytest.approx(table["MAGLIM"][1], abs=0.2)
    for n in range(1, 7):
        ours, theirs = table[f"APCOR{n}"]
        assert ours == pytest.approx(theirs, abs=0.02)
    enter(survey, monkeypatch)
    try:
        assert survey.registry().select("SourceCatalog")[0].numbers["n_psf_sources"] > 12000
    finally:
        database.disconnect()
        postgres.stop(survey.root)
