"""Train both real-bogus classifiers on simulated skies, put their weights into `ztfluigi/data` and their figures into the model card.

Split by sky: of every five skies of a density, three train, one calibrates, one (that nothing was fitted to) gives the figures.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from multiprocessing import get_context
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_name] = "1"  # before numpy is imported

import numpy as np  # noqa: E402

from benchmarks.train import card, network, samples, trees  # noqa: E402
from ztfluigi.algorithms import real_bogus  # noqa: E402
from ztfluigi.services import classifiers  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
DENSITIES = ("high-lat", "plane")
SKIES, NETWORK_EPOCHS = 10, 10
UNFILTERED, PLANTED = 0.3, 0.5
"""Weight of a bogus event that the light filter stops (it is not scored, but looks like those that are); weight of all planted artefacts
together over that of all other bogus events."""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.train", description=__doc__)
    parser.add_argument("--skies", type=int, default=SKIES, help="skies of each density, five at least")
    parser.add_argument("--seed", type=int, default=1, help="seed of the skies and of the fits")
    parser.add_argument("--processes", type=int, default=1, help="skies made side by side")
    parser.add_argument("--data", type=Path, default=ROOT / "ztfluigi" / "data", help="folder for the weights")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs", help="folder of the model card")
    given = parser.parse_args(arguments)
    made = collect(given.skies, given.seed, given.processes)
    fit(made, given.seed, given.data, given.docs)
    return 0


def collect(skies: int, seed: int, processes: int) -> samples.Samples:
    """Events of `skies` skies of each density, no two with the same number."""
    wanted = [(density, 100_000 * seed + 1000 * n + k) for k in range(skies) for n, density in enumerate(DENSITIES)]
    if processes == 1:
        return samples.join([_sky(one) for one in wanted])
    with get_context("spawn").Pool(processes) as pool:
        return samples.join(pool.map(_sky, wanted, chunksize=1))


def _sky(one: tuple[str, int]) -> samples.Samples:
    started = time.process_time()
    found = samples.of_sky(*one)
    print(f"{one[0]} sky {one[1]}: {np.count_nonzero(found.label)} real, {np.count_nonzero(found.label == 0)} bogus events, "
          f"{time.process_time() - started:.0f} CPU-seconds", file=sys.stderr, flush=True)
    return found


def fit(made: samples.Samples, seed: int, data: Path, docs: Path) -> None:
    """Fit, calibrate, store, and write the card."""
    table, inputs = made.features, made.inputs
    real, part = made.label != samples.BOGUS, made.sky % 5
    train, calibrate, test = part < 3, (part == 3) & made.passed, (part == 4) & made.passed
    weight = np.where(made.passed | real, 1.0, UNFILTERED)
    share = np.sum(weight[train & ~real & ~made.planted]) / np.sum(weight[train & made.planted])
    weight = balanced(real[train], np.where(made.planted, weight * PLANTED * share, weight)[train])
    arrays = {"rb": trees.grow(table[train], real[train], weight, seed)}
    weights, biases = network.fit(inputs[train], real[train], weight, epochs=NETWORK_EPOCHS, seed=seed)
    arrays["drb"] = {**{f"weight{n}": w for n, w in enumerate(weights)}, **{f"bias{n}": b for n, b in enumerate(biases)}}
    identity = real_bogus.Calibration(np.zeros(1), np.zeros(1))
    raw = {"rb": real_bogus.Trees(**arrays["rb"], calibration=identity).raw(table),
           "drb": real_bogus.Network(weights, biases, identity).raw(inputs)}
    scores, versions = {}, {}
    for kind, odds in raw.items():
        fitted = calibration(odds[calibrate], real[calibrate])
        arrays[kind] |= {"raw": fitted.raw, "log_odds": fitted.log_odds}
        versions[kind] = classifiers.store(data, kind, arrays[kind])
        scores[kind] = fitted(odds[test])
    card.write(docs, versions, scores, made.take(test), {"train": made.label[train], "calibrate": made.label[calibrate],
                                                         "test": made.label[test]})


def balanced(real: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Weights under which real and bogus events count alike, of mean 1."""
    weight = np.where(real, weight / weight[real].sum(), weight / weight[~real].sum())
    return weight / weight.mean()


def calibration(raw: np.ndarray, real: np.ndarray, *, rounds: int = 100) -> real_bogus.Calibration:
    """Logistic regression of the class on the raw log odds (Platt 1999), real and bogus events counting alike.

    Targets are those of Platt, one of each class added, so that a perfect separation does not make certainties.
    """
    weight = balanced(real, np.ones(len(raw)))
    n_real, n_bogus = np.count_nonzero(real), np.count_nonzero(~real)
    target = np.where(real, (n_real + 1.0) / (n_real + 2.0), 1.0 / (n_bogus + 2.0))
    slope, shift = 1.0, 0.0
    design = np.column_stack([raw, np.ones(len(raw))])
    for _ in range(rounds):
        p = 1.0 / (1.0 + np.exp(-np.clip(slope * raw + shift, -50, 50)))
        gradient = design.T @ (weight * (p - target))
        curvature = (design * (weight * np.maximum(p * (1 - p), 1e-6))[:, None]).T @ design
        step = np.linalg.solve(curvature + 1e-6 * np.eye(2), gradient)
        slope, shift = slope - np.clip(step[0], -1, 1), shift - np.clip(step[1], -1, 1)
    slope = max(slope, 1e-3)
    ends = np.array([-30.0, 30.0])
    return real_bogus.Calibration(ends, slope * ends + shift)


if __name__ == "__main__":
    sys.exit(main())
