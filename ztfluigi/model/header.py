"""FITS headers as plain data: ordered cards that are also a mapping. No files here."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping

import numpy as np

Card = tuple[str, object, str]
"""(keyword, value, comment); value is bool, int, float, str or None (undefined)."""

_COMMENTARY = ("COMMENT", "HISTORY", "")


class Header(Mapping):
    """Ordered FITS cards; `header["OBSJD"]` gives a value, `header.cards` every (keyword, value, comment).

    Iteration and length are those of the distinct keywords; COMMENT, HISTORY and blank cards appear only in `cards`.
    """

    def __init__(self, cards: Iterable[Card] | Mapping = ()):
        if isinstance(cards, Header):
            cards = cards.cards
        elif isinstance(cards, Mapping):
            cards = [(key, *value) if isinstance(value, tuple) else (key, value, "") for key, value in cards.items()]
        self.cards: list[Card] = [(key, plain(value), comment) for key, value, comment in cards]
        self._index = {}
        for place, (key, _, _) in enumerate(self.cards):
            if key not in _COMMENTARY:
                self._index.setdefault(key, place)

    def __getitem__(self, key: str):
        return self.cards[self._index[key]][1]

    def __iter__(self) -> Iterator[str]:
        return iter(self._index)

    def __len__(self) -> int:
        return len(self._index)

    def __repr__(self) -> str:
        return f"Header({len(self.cards)} cards)"

    def comment(self, key: str) -> str:
        """Comment of a card."""
        return self.cards[self._index[key]][2]

    def without(self, keys: Iterable[str]) -> Header:
        """The header less some keywords."""
        gone = set(keys)
        return Header([card for card in self.cards if card[0] not in gone])

    def merged(self, values: Iterable[Card] | Mapping) -> Header:
        """New values in the places of the keywords already here (comments kept unless given), other cards after them."""
        new = Header(values)
        cards = []
        for key, value, comment in self.cards:
            if key in new:
                value, comment = new[key], new.comment(key) or comment
            cards.append((key, value, comment))
        return Header(cards + [card for card in new.cards if card[0] not in self._index])


def plain(value):
    """A numpy scalar as the Python value that prints the same; NaN and infinity, which FITS cannot hold, as None."""
    if isinstance(value, np.floating) and not isinstance(value, float):
        value = float(str(value))  # a float32 prints with its own few digits
    elif isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
