"""Which event of a difference image made again is which event of the one before."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from ztfluigi.model.errors import Unusable
from ztfluigi.model.ids import TBLID_END

SAME_PIX = 1.5
"""Events of one sign that are nearer than this, in two extractions of one image, are the same event."""


def kept_numbers(tblid, sign, x, y, old_tblid, old_sign, old_x, old_y) -> np.ndarray:
    """Numbers (tblid) for the events of an image whose events were numbered before: int64 (n,), unique in each sign.

    An event keeps the number of the old event of its sign nearest to it within SAME_PIX, each old one once, nearest pairs first; another
    takes its own `tblid` if no old event had it, else the next number that nobody had. So a number, and the candid made of it, never
    passes to another event.

    tblid, sign (+1, -1), x, y [pix] : (n,) of the new extraction; old_... : (m,) of every event numbered before, NaN where a place is
    unknown (its number stays taken). Raises Unusable when numbers run out: such an image is not a difference.
    """
    tblid, sign, old_tblid, old_sign = (np.asarray(values) for values in (tblid, sign, old_tblid, old_sign))
    numbers = tblid.astype(np.int64)
    for s in (1, -1):
        new, old = np.flatnonzero(sign == s), np.flatnonzero(old_sign == s)
        if len(new) == 0 or len(old) == 0:
            continue
        match = _pairs(np.column_stack([x, y])[new], np.column_stack([old_x, old_y])[old])
        taken = {int(number) for number in old_tblid[old]}
        after = max(taken | {int(number) for number in tblid[new]}) + 1
        for k, event in enumerate(new):
            if k in match:
                numbers[event] = old_tblid[old[match[k]]]
            elif int(tblid[event]) in taken:
                numbers[event], after = after, after + 1
    if len(numbers) and numbers.max() >= TBLID_END:
        raise Unusable(f"{len(numbers)} events on one difference image, expected fewer than {TBLID_END} of a sign", n_events=len(numbers))
    return numbers


def _pairs(places: np.ndarray, old_places: np.ndarray) -> dict[int, int]:
    """Row of `places` -> row of `old_places`, nearest pairs first, each row once."""
    known = np.flatnonzero(np.isfinite(old_places).all(axis=1))
    if len(known) == 0:
        return {}
    distance, near = cKDTree(old_places[known]).query(places, k=min(4, len(known)), distance_upper_bound=SAME_PIX)
    distance, near = distance.reshape(len(places), -1), near.reshape(len(places), -1)
    match: dict[int, int] = {}
    used: set[int] = set()
    for flat in np.argsort(distance, axis=None, kind="stable"):
        row, column = divmod(int(flat), distance.shape[1])
        if not np.isfinite(distance[row, column]):
            break
        old = int(known[near[row, column]])
        if row not in match and old not in used:
            match[row] = old
            used.add(old)
    return match
