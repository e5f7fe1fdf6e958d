"""Boosted trees, grown by scikit-learn and kept as plain arrays."""

from __future__ import annotations

import numpy as np

ITERATIONS, LEAVES, RATE, SMALLEST, RIDGE = 250, 12, 0.06, 15, 2.0


def grow(table: np.ndarray, real: np.ndarray, weight: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Arrays of `real_bogus.Trees` but version and calibration. table (n, features), real (n,) bool, weight (n,)."""
    from sklearn.ensemble import HistGradientBoostingClassifier  # needed for training only

    model = HistGradientBoostingClassifier(max_iter=ITERATIONS, max_leaf_nodes=LEAVES, learning_rate=RATE, min_samples_leaf=SMALLEST,
                                           l2_regularization=RIDGE, max_features=0.5, early_stopping=False, random_state=seed)
    model.fit(table, real, sample_weight=weight)
    parts, roots, first = [], [], 0
    for (tree,) in model._predictors:
        nodes = tree.nodes
        leaf = nodes["is_leaf"].astype(bool)
        roots.append(first)
        parts.append({"feature": np.where(leaf, -1, nodes["feature_idx"]).astype(np.int16),
                      "threshold": np.where(leaf, 0.0, nodes["num_threshold"]), "nan_left": nodes["missing_go_to_left"].astype(bool),
                      "left": np.where(leaf, 0, nodes["left"] + first).astype(np.int32),
                      "right": np.where(leaf, 0, nodes["right"] + first).astype(np.int32), "value": np.where(leaf, nodes["value"], 0.0)})
        first += len(nodes)
    return {"roots": np.array(roots, np.int32), **{name: np.concatenate([part[name] for part in parts]) for name in parts[0]},
            "base": float(np.ravel(model._baseline_prediction)[0])}


def join(parts: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Trees whose log odds are the mean of those of several."""
    first = np.cumsum([0, *(len(part["feature"]) for part in parts[:-1])])
    moved = [{**part, **{name: (part[name] + n).astype(np.int32) for name in ("roots", "left", "right")}, "value": part["value"] / len(parts)}
             for part, n in zip(parts, first, strict=True)]
    return {**{name: np.concatenate([part[name] for part in moved]) for name in moved[0] if name != "base"},
            "base": float(np.mean([part["base"] for part in parts]))}
