"""One random generator per step: adding a step does not change another's numbers."""

from __future__ import annotations

import zlib

import numpy as np


def generator(seed: int, *path: int | str) -> np.random.Generator:
    """The generator of the step named by `path`; the same seed and path give the same numbers on every machine."""
    return np.random.default_rng([int(seed),
                                  *(zlib.crc32(part.encode()) if isinstance(part, str) else int(part) & 0xFFFFFFFF for part in path)])
