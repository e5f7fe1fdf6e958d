"""Which raw CCD files there are, and where each one is now: incoming, archived or quarantined."""

from __future__ import annotations

import json
import os
import shutil
from functools import lru_cache
from pathlib import Path

from targets.paths import RawName
from targets.sealed import flush, sha256
from ztfluigi.model.errors import BadInput
from ztfluigi.model.ids import night_code, night_of


@lru_cache(maxsize=4096)
def _names(folder: str, mtime_ns: int) -> tuple[RawName, ...]:
    return tuple(sorted(filter(None, map(RawName.parse, os.listdir(folder)))))


def _listing(folder: Path) -> tuple[RawName, ...]:
    try:
        return _names(str(folder), folder.stat().st_mtime_ns)
    except FileNotFoundError:
        return ()


def of_night(root: Path, night: str) -> list[RawName]:
    """Every raw CCD file of a night, wherever it is, in order of exposure and CCD."""
    code = night_code(night)
    found = {*_listing(root / "incoming" / code), *_listing(root / "quarantine" / code)}
    day = root / "archive/raw" / code[:4] / code[4:]
    if day.is_dir():
        for folder in day.iterdir():
            found.update(_listing(folder))
    return sorted(found)


def of_exposure(root: Path, exposure: str) -> list[RawName]:
    """Every raw CCD file of one exposure."""
    code = exposure[:8]
    found: set[RawName] = set()
    for folder in (root / "incoming" / code, root / "archive/raw" / exposure[:4] / exposure[4:8] / exposure[8:], root / "quarantine" / code):
        found.update(name for name in _listing(folder) if name.exposure == exposure)
    return sorted(found)


def strays(root: Path, night: str | None = None) -> list[Path]:
    """Files in incoming, of one night or of all, that ingest leaves alone: not named as a raw CCD file, or still being copied."""
    folders = [root / "incoming" / night_code(night)] if night else sorted((root / "incoming").glob("*"))
    return [path for folder in folders if folder.is_dir() for path in sorted(folder.iterdir()) if RawName.parse(path.name) is None]


def find(root: Path, exposure: str, ccdid: int) -> RawName:
    """The raw file of one CCD of an exposure; BadInput when there is none."""
    for name in of_exposure(root, exposure):
        if name.ccdid == ccdid:
            return name
    raise BadInput(f"no raw file of exposure {exposure}, ccd {ccdid:02d}, under incoming/{exposure[:8]}, archive/raw or quarantine "
                   f"of {root}; night {night_of(exposure)} has {len(of_night(root, night_of(exposure)))} raw files")


def locate(root: Path, name: RawName) -> Path | None:
    """Where the file is now; a fresh delivery in incoming comes before an archived or quarantined copy."""
    for place in (name.incoming, name.archived, name.quarantined):
        if (root / place).exists():
            return root / place
    return None


def archive(root: Path, name: RawName) -> Path:
    """Move a good file to the long-term archive. A second delivery with the same bytes is dropped; other bytes are refused with BadInput."""
    source, final = locate(root, name), root / name.archived
    if source == final:
        return final
    if final.exists() and sha256(final) != sha256(source):
        raise BadInput(f"{name.filename}: a file of this name with other content is already archived")
    _move(source, final)
    return final


def quarantine(root: Path, name: RawName, reason: str) -> Path:
    """Set a bad file aside, with a `.reason.json` beside it that says why."""
    source, final = locate(root, name), root / name.quarantined
    final.parent.mkdir(parents=True, exist_ok=True)
    note = final.with_name(final.name + ".reason.json")
    aside = note.with_name(f".tmp-{os.getpid()}-{note.name}")
    aside.write_text(json.dumps({"file": name.filename, "reason": reason}, indent=1) + "\n")
    flush(aside)
    aside.replace(note)
    if source != final:
        _move(source, final)
    return final


def _move(source: Path, final: Path) -> None:
    final.parent.mkdir(parents=True, exist_ok=True)
    try:
        source.replace(final)
    except OSError:  # another file system: copy aside, rename, then remove the source
        aside = final.with_name(f".tmp-{os.getpid()}-{final.name}")
        shutil.copyfile(source, aside)
        flush(aside)
        aside.replace(final)
        source.unlink()
    flush(final.parent)
