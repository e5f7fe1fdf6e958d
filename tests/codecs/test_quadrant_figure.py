"""The QA figure can be drawn of whatever a quadrant's chain has reached."""

from __future__ import annotations

import numpy as np
from matplotlib import image

from targets.codecs.quadrant_figure import QuadrantPlot, write_quadrant_figure
from tests.algorithms.test_photometric_calibration import night
from ztfluigi.algorithms.astrometry import RESIDUAL
from ztfluigi.algorithms.photometric_calibration import fit_zero_point
from ztfluigi.model.maskbits import Mask
from ztfluigi.model.psf import PsfModel

SHAPE = (300, 280)


def test_everything_and_almost_nothing(tmp_path):
    rng = np.random.default_rng(1)
    data, mask = rng.normal(200.0, 6.0, SHAPE).astype(np.float32), np.zeros(SHAPE, np.uint16)
    mask[40:44, 60:70] = Mask.SATURATED
    stars = np.zeros(80, RESIDUAL)
    stars["x"], stars["y"], stars["g_mag"] = rng.uniform(0, 280, 80), rng.uniform(0, 300, 80), rng.uniform(12, 18, 80)
    stars["dra_mas"], stars["ddec_mas"] = rng.normal(0, 20, (2, 80))
    fit = fit_zero_point(*night(1, 400), filter_code="zr", shape=(3080, 3072))
    whole = QuadrantPlot("a quadrant", True, [], [("sky", "200.0 DN")], 1.0125, data, mask, np.full(SHAPE, 200.0, np.float32), stars, fit,
                         PsfModel.gaussian(2.2, SHAPE))
    bare = QuadrantPlot("a bad quadrant", False, ["ASTROMETRIC CALIBRATION NOT POSSIBLE"], [], 1.0125, np.full(SHAPE, np.nan, np.float32))
    pictures = []
    for name, plot in (("whole", whole), ("bare", bare)):
        write_quadrant_figure(tmp_path / name, plot)
        pictures.append(image.imread(tmp_path / name, format="png"))
    assert pictures[0].shape == pictures[1].shape and pictures[0].shape[1] > 1500
    colours = [len(np.unique(np.round(picture[::3, ::3, :3] * 31).reshape(-1, 3), axis=0)) for picture in pictures]
    assert colours[0] > 3 * colours[1] > 3
