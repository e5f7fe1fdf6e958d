"""Events of an image made again keep their numbers; a number never passes to another event."""

from __future__ import annotations

import numpy as np
import pytest

from ztfluigi.algorithms.identity import SAME_PIX, kept_numbers
from ztfluigi.model.errors import Unusable


def extraction(rng, n):
    """Events far from each other: tblid by sign in reading order, sign, x, y."""
    x, y = (20.0 * values for values in np.divmod(rng.permutation(400)[:n], 20))
    sign = rng.choice([1, -1], n)
    tblid = np.zeros(n, int)
    for s in (1, -1):
        tblid[sign == s] = np.arange(np.count_nonzero(sign == s))
    return tblid, sign, x, y


def test_a_rerun_with_events_lost_found_and_moved_keeps_every_number():
    rng = np.random.default_rng(3)
    known: dict[tuple, int] = {}  # place and sign -> number, over all runs
    old = tuple(np.zeros(0) for _ in range(4))
    for run in range(6):
        tblid, sign, x, y = extraction(rng, 150 + 20 * (run % 3))
        angle, shift = rng.uniform(0, 2 * np.pi, len(x)), rng.uniform(0, 0.4, len(x))
        made = kept_numbers(tblid, sign, x + shift * np.cos(angle), y + shift * np.sin(angle), *old)
        for s in (1, -1):
            assert len(set(made[sign == s])) == np.count_nonzero(sign == s)
        for number, *place in zip(made.tolist(), sign.tolist(), x.tolist(), y.tolist(), strict=True):
            assert known.setdefault(tuple(place), number) == number
        assert len({(place[0], number) for place, number in known.items()}) == len(known)
        places = np.array(list(known))
        old = np.array(list(known.values())), places[:, 0], places[:, 1], places[:, 2]
    assert kept_numbers(tblid, sign, x, y, *(np.zeros(0),) * 4).tolist() == tblid.tolist()


def test_signs_distance_and_unknown_places():
    one = np.array([0]), np.array([1]), np.array([50.0]), np.array([50.0])
    assert kept_numbers(*one, [7], [1], [50.0 + 0.9 * SAME_PIX], [50.0]).tolist() == [7]
    assert kept_numbers(*one, [7], [-1], [50.0], [50.0]).tolist() == [0]
    assert kept_numbers(*one, [0], [1], [50.0 + 1.1 * SAME_PIX], [50.0]).tolist() == [1]
    assert kept_numbers(*one, [0, 3], [1, 1], [np.nan] * 2, [np.nan] * 2).tolist() == [4]
    with pytest.raises(Unusable, match="expected fewer than 5000"):
        kept_numbers(np.arange(5001), np.ones(5001), np.arange(5001), np.zeros(5001), *(np.zeros(0),) * 4)
