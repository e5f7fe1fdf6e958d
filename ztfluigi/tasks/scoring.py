"""Real-bogus scores of a quadrant's events, by the classifiers that ship with the package."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from ztfluigi.algorithms import cutouts
from ztfluigi.algorithms.real_bogus import Classifier
from ztfluigi.services import classifiers


@lru_cache(maxsize=1)
def classifier() -> Classifier:
    """Both classifiers, made once a process."""
    return Classifier.from_arrays(classifiers.arrays("rb"), classifiers.arrays("drb"))


def scored(found: np.ndarray, chosen: np.ndarray, images) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """(stamps (k, 3, 63, 63) of the k chosen events, `rb` and `drb` of all events, NaN for the others).

    images : science, reference, difference.
    """
    table = found[chosen]
    stamps = np.stack([cutouts.cut(image, table["xpos"] - 1, table["ypos"] - 1) for image in images], axis=1)
    scores = {name: np.full(len(found), np.nan) for name in ("rb", "drb")}
    if len(table):
        scores["rb"][chosen], scores["drb"][chosen] = classifier().score(table, stamps)
    return stamps, scores
