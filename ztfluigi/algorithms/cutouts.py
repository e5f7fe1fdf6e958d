"""Square stamps about positions."""

from __future__ import annotations

import numpy as np

from ztfluigi.model.errors import BadInput


def cut(image: np.ndarray, x, y, size: int = 63) -> np.ndarray:
    """Stamps (n, size, size) float32 of `image` about zero-based positions, each rounded to a pixel that lands at the centre.

    size is odd (else BadInput). Pixels beyond the image, and positions that are not finite, give NaN; values are otherwise unchanged.
    """
    if size < 1 or size % 2 == 0:
        raise BadInput(f"cutout size {size} is not odd and positive")
    x, y = np.atleast_1d(np.asarray(x, float)), np.atleast_1d(np.asarray(y, float))
    half = size // 2
    stamps = np.full((len(x), size, size), np.nan, np.float32)
    for stamp, sx, sy in zip(stamps, x, y, strict=True):
        if not (np.isfinite(sx) and np.isfinite(sy)):
            continue
        top, left = round(sy) - half, round(sx) - half
        y0, y1, x0, x1 = max(0, top), min(image.shape[0], top + size), max(0, left), min(image.shape[1], left + size)
        if y0 < y1 and x0 < x1:
            stamp[y0 - top:y1 - top, x0 - left:x1 - left] = image[y0:y1, x0:x1]
    return stamps
