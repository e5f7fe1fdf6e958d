"""Camera descriptions."""

from __future__ import annotations

from dataclasses import replace
from importlib import resources

import pytest

from ztfluigi.model.camera import load_camera
from ztfluigi.model.errors import ConfigError
from ztfluigi.model.ids import night_jd


def test_the_non_linearity_is_that_of_the_day():
    camera = load_camera("ztf")
    assert len(camera.amplifiers) == 64
    curves = [camera.on(night_jd(night)).amplifier(3, 1).nonlinearity
              for night in ("2017-11-01", "2018-03-28", "2019-10-22", "2019-10-23", "2020-04-28", "2026-01-01")]
    assert curves == [(-1.14e-11, 6.94e-07)] * 3 + [(-1.36e-11, 6.38e-07)] + [(-6.27e-12, 6.92e-08)] * 2
    assert camera.amplifier(3, 1).nonlinearity == curves[-1]
    mini = load_camera("ztf-mini")
    assert mini.on(night_jd("2017-11-01")) is mini


def test_days_out_of_order_are_refused(tmp_path):
    words = "nonlinearity = [[2018-03-28, -1.09e-11, 6.64e-07], [2019-10-23"
    text = resources.files("ztfluigi.data").joinpath("cameras", "ztf.toml").read_text()
    assert words in text
    path = tmp_path / "mine.toml"
    path.write_text(text.replace(words, words.replace("2018-03-28", "2021-03-28")))
    with pytest.raises(ConfigError, match="not in order of its days"):
        load_camera(str(path))


def test_reflections_lie_about_the_middle_of_a_quadrant():
    (ghost,) = load_camera("ztf").ghosts
    x, y = replace(ghost, scale=2.0, offset_pix=(1.0, -1.0)).centre([10.0], [20.0], (41, 21))
    assert (x[0], y[0]) == (11.0, 19.0)
    assert ghost.brightness(1e6) == pytest.approx(0.004e6 / (3.14159265 * (48**2 - 22**2)))
