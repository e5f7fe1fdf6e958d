"""Train both real-bogus classifiers on simulated skies, put their weights into `ztfluigi/data` and their figures into the model card.

Each classifier is the mean of four, each trained without a quarter of the skies; calibration and figures come from the scores that every
sky has from the one that never saw it.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_name] = "1"  # before numpy is imported

import numpy as np  # noqa: E402

from benchmarks.train import card, network, samples, trees  # noqa: E402
from ztfluigi.algorithms import real_bogus  # noqa: E402
from ztfluigi.services import classifiers  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
SKIES, FOLDS, NETWORK_EPOCHS = 14, 4, 6
UNFILTERED = {"rb": 0.3, "drb": 0.1}
"""Weight of a bogus event that the light filter stops: it is not scored, but looks like those that are."""
NEAR_PIX, OUTSHONE_MAG, HIGHEST = 5.0, 2.0, 8.0
"""A real event this near to a reference source that outshines it by more than so many magnitudes counts twice for each further one, up to
this often: such places are few in the sky, and without that whatever happens on a bright star would be taken for its residual."""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.train", description=__doc__)
    parser.add_argument("--skies", type=int, default=SKIES, help="skies of each density, four at least")
    parser.add_argument("--seed", type=int, default=1, help="seed of the skies and of the fits")
    parser.add_argument("--processes", type=int, default=1, help="skies made side by side")
    parser.add_argument("--data", type=Path, default=ROOT / "ztfluigi" / "data", help="folder for the weights")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs", help="folder of the model card")
    given = parser.parse_args(arguments)
    made = samples.of_skies(given.skies, given.seed, given.processes)
    fit(made, given.seed, given.data, given.docs)
    return 0


def fit(made: samples.Samples, seed: int, data: Path, docs: Path) -> None:
    """Fit, calibrate, store, and write the card."""
    table, inputs = made.features, made.inputs
    real, part = made.label != samples.BOGUS, made.sky % FOLDS
    outshone = outshining(table)
    weight = {kind: np.where(real, outshone, np.where(made.passed, 1.0, less)) for kind, less in UNFILTERED.items()}
    raw = {kind: np.zeros(len(real)) for kind in ("rb", "drb")}
    grown, networks, scale = [], [], network.scale(table)
    side = real_bogus.beside(table, *scale).astype(np.float32)
    for fold in range(FOLDS):
        chosen, held = part != fold, part == fold
        fair = {kind: balanced(real[chosen], values[chosen]) for kind, values in weight.items()}
        grown.append(trees.grow(table[chosen], real[chosen], fair["rb"], seed))
        raw["rb"][held] = real_bogus.Trees(**grown[-1], calibration=network.IDENTITY).raw(table[held])
        networks.append(network.fit(inputs[chosen], side[chosen], real[chosen], fair["drb"], epochs=NETWORK_EPOCHS, seed=seed + fold))
        raw["drb"][held] = network.of(networks[-1:] * FOLDS, scale).raw(inputs[held], table[held])
        print(f"fold {fold} fitted, {time.process_time():.0f} CPU-seconds in all", file=sys.stderr, flush=True)
    arrays = {"rb": trees.join(grown), "drb": network.join(networks) | dict(zip(("centre", "spread"), scale, strict=True))}
    passed, scores, versions = made.passed, {}, {}
    for kind, odds in raw.items():
        fitted = calibration(odds[passed], real[passed])
        versions[kind] = classifiers.store(data, kind, arrays[kind] | {"raw": fitted.raw, "log_odds": fitted.log_odds})
        scores[kind] = np.zeros(len(real))
        for fold in range(FOLDS):
            others = passed & (part != fold)
            scores[kind][part == fold] = calibration(odds[others], real[others])(odds[part == fold])
    card.write(docs, versions, {kind: values[passed] for kind, values in scores.items()}, made.take(passed),
               {"all": made.label, "past the filter": made.label[passed]})


def outshining(table: np.ndarray) -> np.ndarray:
    """Weight of events (rows of `features`) for the reference source near them."""
    distance, contrast = (table[:, real_bogus.FEATURES.index(name)] for name in ("distnr", "contrast"))
    more = np.clip(2.0 ** (-OUTSHONE_MAG - np.nan_to_num(contrast)), 1.0, HIGHEST)
    return np.where(distance < NEAR_PIX, more, 1.0)


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
