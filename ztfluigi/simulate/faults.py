"""Damaged raw files, as ingest must catch them: each wrong in one way only."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

from targets.codecs import fits
from ztfluigi.model.header import Card

SHUTTER_SHIFT_S = 30.0
MISSING_KEYWORD = "AIRMASS"
SENTENCES = {"truncated": "the file ends early", "checksum": "some data bytes were changed after the checksums were made",
             "keyword": f"the primary header has no {MISSING_KEYWORD}", "shutter": f"SHUTOPEN is {SHUTTER_SHIFT_S:g} s after OBSJD"}


def spoil_cards(fault: str, cards: Sequence[Card]) -> list[Card]:
    """The primary header with the fault `keyword` or `shutter`; unchanged for the others. Checksums are made afterwards, and right."""
    if fault == "keyword":
        return [card for card in cards if card[0] != MISSING_KEYWORD]
    if fault == "shutter":
        return [(key, _later(value) if key in ("SHUTOPEN", "SHUTCLSD") else value, comment) for key, value, comment in cards]
    return list(cards)


def spoil_file(fault: str, path: Path) -> None:
    """Damage a written file for the faults `truncated` and `checksum`."""
    if fault == "truncated":
        with open(path, "r+b") as stream:
            stream.truncate(path.stat().st_size * 6 // 10)
    elif fault == "checksum":
        hdu = fits.scan(path)[3]
        with open(path, "r+b") as stream:
            stream.seek(hdu.data_start + hdu.data_size // 2)
            bytes_then = stream.read(8)
            stream.seek(-8, 1)
            stream.write(bytes(255 - byte for byte in bytes_then))


def _later(text: str) -> str:
    return (datetime.fromisoformat(text) + timedelta(seconds=SHUTTER_SHIFT_S)).isoformat(timespec="milliseconds")
