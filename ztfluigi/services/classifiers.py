"""The real-bogus classifiers that ship with the package: weights as plain arrays in `ztfluigi/data`, one file a classifier.

A classifier's version is the name of its file and holds a digest of the weights: other weights are another version.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from functools import lru_cache
from importlib import resources
from pathlib import Path

import numpy as np

from ztfluigi.model.errors import ConfigError

def versions() -> dict[str, str]:
    """`rbversion` and `drbversion`, by name; ConfigError when there is not exactly one file of each."""
    return {"rbversion": _file("rb").name.removesuffix(".npz"), "drbversion": _file("drb").name.removesuffix(".npz")}


def store(folder: Path, kind: str, arrays: Mapping[str, np.ndarray]) -> str:
    """Write the arrays of a classifier (`rb` or `drb`) in place of earlier ones; returns its version."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(name.encode() + np.ascontiguousarray(arrays[name]).tobytes())
    version = f"{kind}_{digest.hexdigest()[:8]}"
    for old in folder.glob(f"{kind}_*.npz"):
        old.unlink()
    np.savez_compressed(folder / f"{version}.npz", **arrays)
    return version


@lru_cache(maxsize=2)
def _file(kind: str):
    found = [path for path in resources.files("ztfluigi.data").iterdir() if path.name.startswith(f"{kind}_") and path.name.endswith(".npz")]
    if len(found) != 1:
        raise ConfigError(f"ztfluigi/data holds {len(found)} files {kind}_*.npz, expected exactly one classifier")
    return found[0]


@lru_cache(maxsize=2)
def arrays(kind: str) -> dict[str, np.ndarray]:
    """What `store` wrote, read once a process."""
    with np.load(io.BytesIO(_file(kind).read_bytes())) as stored:
        return {name: stored[name] for name in stored.files}
