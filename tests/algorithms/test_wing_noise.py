"""Wings of bright stars: misfit is noticed where it is, noise alone and single neighbours are not taken for it."""

import numpy as np

from ztfluigi.algorithms.wing_noise import wing_excess

SIZE, SIGMA = 81, 3.0


def excess_of(residual, x=40.3, y=39.8):
    out = np.zeros((SIZE, SIZE), np.float32)
    variance = np.full((SIZE, SIZE), SIGMA**2, np.float32)
    variance[:, :5] = np.inf
    wing_excess(residual.astype(np.float32), variance, 0.0, 0.5 * SIGMA**2, np.array([x]), np.array([y]), np.array([2.5]), np.array([16.0]), out)
    return out


def test_misfit_is_found_in_its_ring_only():
    rng = np.random.default_rng(1)
    radius = np.hypot(*(np.mgrid[:SIZE, :SIZE] - np.array([39.8, 40.3])[:, None, None]))
    misfit = 5.0 * SIGMA * ((radius > 7) & (radius < 10)) * rng.choice([-1, 1], (SIZE, SIZE))
    found = excess_of(rng.normal(0, SIGMA, (SIZE, SIZE)) + misfit)
    assert np.median(found[(radius > 7.5) & (radius < 9.5)]) > 10 * SIGMA**2
    assert not found[radius > 12].any() and not found[radius < 2.5].any()


def test_noise_and_a_neighbour_are_no_misfit():
    rng = np.random.default_rng(2)
    for _ in range(20):
        residual = rng.normal(0, SIGMA, (SIZE, SIZE))
        residual[45:49, 48:52] += 50 * SIGMA
        assert not excess_of(residual).any()
