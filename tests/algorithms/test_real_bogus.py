"""Real-bogus scores: what they must not depend on, the arithmetic of both classifiers, and the classifiers that ship."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.signal import correlate

from benchmarks.train import network as training
from benchmarks.train import samples, trees
from benchmarks.train.__main__ import calibration
from tests.algorithms import pairs
from tests.algorithms.pairs import make_pair
from ztfluigi.algorithms import real_bogus
from ztfluigi.algorithms.cutouts import cut
from ztfluigi.algorithms.events import extract, light_filter
from ztfluigi.services import classifiers
from ztfluigi.tasks.scoring import classifier

PLACES = [(40 + 35 * (k % 5), 40 + 40 * (k // 5), 10 ** (2.9 + 0.05 * k)) for k in range(20)]


@pytest.fixture(scope="module")
def found():
    """Events of a pair with transients, past the light filter, their stamps, and whether they are transients."""
    pair = make_pair(31, n_stars=40, transients=PLACES, depth=400)
    difference = pair.subtract()
    table = extract(difference, wcs=pairs.SCIENCE_WCS, psfcat_ref=pair.psfcat_ref, reference_magzp=pairs.REFERENCE_ZP)
    table = table[light_filter(table) == ""]
    stamps = np.stack([cut(image, table["xpos"] - 1, table["ypos"] - 1)
                       for image in (pair.science.data, difference.reference, difference.data)], axis=1)
    real = np.array([min(np.hypot(row["xpos"] - 1 - x, row["ypos"] - 1 - y) for x, y, _ in PLACES) < 2 for row in table])
    return table, stamps, real


def test_transients_score_high_and_dipoles_low(found):
    table, stamps, real = found
    rb, drb = classifier().score(table[real], stamps[real])
    assert np.median(rb) > 0.9 and np.median(drb) > 0.9 and np.mean((rb > 0.5) & (drb > 0.5)) >= 0.9
    wrong = stamps[real].copy()
    wrong[:, 1] = wrong[:, 0]  # a star in both images, displaced
    noise = np.std(wrong[:, 2, :20, :20], axis=(1, 2))[:, None]
    wrong[:, 2, 24:39, 24:39] = np.random.default_rng(2).normal(size=(len(wrong), 15, 15)) * noise[:, None]
    wrong[:, 2, 29:34, 30:33] += 6 * noise[:, None]
    wrong[:, 2, 29:34, 33:36] -= 6 * noise[:, None]
    assert np.median(classifier().score(table[real], wrong)[1]) < 0.2


def test_scores_know_no_units_background_or_zero_point(found):
    table, stamps, _ = found
    score = classifier().score
    expected = score(table, stamps)
    moved = table.copy()
    for name in ("magpsf", "magap", "magapbig", "magnr", "diffmaglim"):
        moved[name] += 1.5
    other = 3.7 * stamps + np.array([400.0, -20.0, 0.0], np.float32)[None, :, None, None]
    np.testing.assert_allclose(score(moved, other), expected, atol=2e-3)
    packet = {name: table[name] for name in real_bogus.FIELDS}
    sign = np.where(table["isdiffpos"] == "t", 1, -1)[:, None, None]
    shown = stamps.copy()
    shown[:, 2] *= sign
    np.testing.assert_allclose(score(packet, shown, signed=True), expected, atol=1e-6)


def test_stamps_at_the_edge_and_missing_numbers_are_scored(found):
    table, stamps, _ = found
    cropped, bare = stamps.copy(), table.copy()
    cropped[:, :, :25] = np.nan
    cropped[0] = np.nan
    for name in ("distnr", "magnr", "magdiff", "magapbig", "elong"):
        bare[name] = np.nan
    for values in classifier().score(bare, cropped):
        assert np.isfinite(values).all() and (values >= 0).all() and (values <= 1).all()
    for values in classifier().score(table[:0], stamps[:0]):
        assert values.shape == (0,)


def test_the_network_computes_convolutions():
    rng = np.random.default_rng(3)
    x, weight = rng.normal(size=(2, 7, 8, 3)), rng.normal(size=(27, 4))
    expected = np.stack([[sum(correlate(image[..., c], weight.reshape(3, 3, 3, 4)[:, :, c, k], mode="valid") for c in range(3))
                          for k in range(4)] for image in x])
    np.testing.assert_allclose(np.moveaxis(real_bogus.patches(x) @ weight, 3, 1), expected, atol=1e-10)


def test_gradients_are_those_of_the_loss():
    rng = np.random.default_rng(4)
    shapes = training.shapes()
    weights, biases = [rng.normal(size=s) / np.sqrt(s[0]) for s in shapes], [0.1 * rng.normal(size=s[1]) for s in shapes]
    x, target = rng.normal(size=(6, real_bogus.CROP, real_bogus.CROP, 6)), np.arange(6) % 2
    table = rng.normal(size=(6, len(real_bogus.FEATURES)))
    table[2, real_bogus.BESIDE[3]] = np.nan
    scale = training.scale(table)

    def loss(step, along):
        moved = [p + step * d for p, d in zip(weights + biases, along, strict=True)]
        p = training.of([(moved[:len(weights)], moved[len(weights):])], scale).score(x, table)
        return -np.mean(np.log(np.where(target, p, 1 - p)))

    side = real_bogus.beside(table, *scale)
    gradients = training.gradients(x, side, target, weights, biases, np.ones((6, training.DENSE)))
    for k in range(len(gradients)):
        along = [rng.normal(size=g.shape) if n == k else np.zeros(g.shape) for n, g in enumerate(gradients)]
        expected = (loss(1e-6, along) - loss(-1e-6, along)) / 2e-6
        assert np.sum(gradients[k] * along[k]) == pytest.approx(expected, rel=1e-4, abs=1e-7)


def test_joined_trees_and_networks_give_mean_odds():
    rng = np.random.default_rng(5)
    table = rng.normal(size=(400, len(real_bogus.FEATURES)))
    parts = [{"roots": np.array([0], np.int32), "feature": np.array([k, -1, -1], np.int16), "threshold": np.array([0.1 * k, 0, 0]),
              "nan_left": np.zeros(3, bool), "left": np.array([1, 0, 0], np.int32), "right": np.array([2, 0, 0], np.int32),
              "value": np.array([0.0, -k, 2.0 * k]), "base": 0.3 * k} for k in (1, 2)]
    one, two, both = (real_bogus.Trees(**part, calibration=training.IDENTITY).raw(table) for part in (*parts, trees.join(parts)))
    np.testing.assert_allclose(both, (one + two) / 2, atol=1e-9)
    shapes = training.shapes()
    members = [([0.1 * rng.normal(size=s) for s in shapes], [0.1 * rng.normal(size=s[1]) for s in shapes]) for _ in range(2)]
    x, scale = rng.normal(size=(9, real_bogus.CROP, real_bogus.CROP, 6)), training.scale(table)
    first, second, both = (training.of(chosen, scale) for chosen in (members[:1], members[1:], members))
    expected = (first.raw(x, table[:9]) + second.raw(real_bogus.turned(x, 1), table[:9])) / 2
    np.testing.assert_allclose(both.raw(x, table[:9]), expected)


def test_a_star_that_one_image_of_the_reference_lacks_has_its_mean_light():
    def image(*rows):
        return SimpleNamespace(truth=SimpleNamespace(objects=np.array(list(rows), [("id", "i8"), ("mag", "f8")])))

    ids, light = samples._mean_light([image((7, 20.0), (3, 18.0)), image((3, 18.0)), image((3, 18.0), (7, 22.5))])
    assert list(ids) == [3, 7]
    np.testing.assert_allclose(light, [10.0**-7.2, (10.0**-8 + 10.0**-9) / 2])


def test_calibrated_odds_are_chances():
    rng = np.random.default_rng(6)
    odds = rng.normal(scale=2.0, size=20000)
    real = rng.random(20000) < 1.0 / (1.0 + np.exp(-odds))
    p = calibration(3.0 * odds + 1.0, real)(3.0 * odds + 1.0)
    np.testing.assert_allclose(p, 1.0 / (1.0 + np.exp(-odds)), atol=0.03)


def test_a_version_names_its_weights(tmp_path):
    arrays = {"weight0": np.ones((2, 2))}
    first = classifiers.store(tmp_path, "drb", arrays)
    second = classifiers.store(tmp_path, "drb", {"weight0": 2 * np.ones((2, 2))})
    assert first != second and [path.stem for path in tmp_path.iterdir()] == [second]
    assert classifiers.store(tmp_path, "drb", arrays) == first
    assert [classifiers.store(tmp_path, kind, classifiers.arrays(kind)) for kind in ("rb", "drb")] == list(classifiers.versions().values())
