"""A real ZTF science image through our pipeline, from adoption to catalogues, beside the archive's own answers."""

from __future__ import annotations

import json

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


@pytest.mark.xdist_group("night")
@pytest.mark.night
@pytest.mark.timeout(1500)
def test_adopted_epochs_make_a_reference_and_take_synthetic_sources(surveys, tmp_path):
    """Few epochs for a reference here, so that the test is short."""
    made, (first, last) = surveys[0], surveys[0].nights
    epochs = [record["exposure"] for record in made.sky(first)[:3]] + [made.sky(last)[0]["exposure"]]
    files = [str(path) for one in epochs for path in made.root.glob(f"archive/sci/*/*/*/ztf_{one}_*_q2_*img.fits") if "diffimg" not in path.name]
    survey, place = Survey(tmp_path / "root"), ("--exposure", epochs[-1], "--ccdid", "1", "--qid", "2")
    (tmp_path / "luigi.cfg").write_text("[reference_inputs]\nmin_inputs = 3\n")
    try:
        assert survey.command("ztf", "adopt", *files).returncode == 0
        asked = survey.luigi("DifferenceImage", *place, folder=tmp_path)
        assert asked.returncode == 0, asked.stderr[-2000:]
        told = survey.command("ztf", "inject", *place, "--snr", "8", "30", "--json", folder=tmp_path)
        assert told.returncode == 0, told.stderr[-2000:]
    finally:
        postgres.stop(survey.root)
    numbers = json.loads(told.stdout)
    found = [(share or 0.0) * count for share, count in zip(numbers["blank_complete"], numbers["blank_in_bin"], strict=True)]
    assert numbers["blank_n"] >= 15 and sum(found) >= 0.9 * sum(numbers["blank_in_bin"])
