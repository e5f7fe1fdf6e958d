"""Sealing files: written aside, read back, flushed, renamed. A file under its final name is whole."""

from __future__ import annotations

import hashlib
import os
import shutil
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

import fitsio

from ztfluigi.model.errors import Transient


class Stage:
    """Temporary names beside the final ones of a product's files.

    files : final paths relative to `root`, by role. `stage[role]` is the path to write to; `publish` makes all of them final.
    """

    def __init__(self, root: Path, files: Mapping[str, PurePosixPath]):
        self.root = Path(root)
        self.files = dict(files)

    def __getitem__(self, role: str) -> Path:
        final = self.root / self.files[role]
        final.parent.mkdir(parents=True, exist_ok=True)
        return final.with_name(f".tmp-{os.getpid()}-{final.name}")

    def sweep(self) -> None:
        """Remove what an earlier, killed attempt left beside the final names."""
        for path in self.files.values():
            final = self.root / path
            for stale in final.parent.glob(f".tmp-*-{final.name}"):
                stale.unlink(missing_ok=True)

    def publish(self) -> list[dict]:
        """Verify, flush and rename every file that was written; return their registry entries (role, path, size, sha256)."""
        written = {role: self[role] for role in self.files if self[role].exists()}
        entries = [{"role": role, "path": str(self.files[role]), **verify(path)} for role, path in written.items()]
        for role, path in written.items():
            flush(path)
            path.replace(self.root / self.files[role])
        for folder in {(self.root / self.files[role]).parent for role in written}:
            flush(folder)
        return entries


def verify(path: Path) -> dict:
    """Read a written file back; its size and SHA-256. Raises `Transient` when what is on disk is not what was written."""
    try:
        if path.name.endswith((".fits", ".fits.fz")):
            with fitsio.FITS(str(path)) as hdus:
                for hdu in hdus:
                    hdu.get_info()
        elif path.name.endswith(".tar.gz"):
            with tarfile.open(path) as archive:
                archive.getnames()
    except (OSError, tarfile.TarError) as error:
        raise Transient(f"{path.name} could not be read back after writing: {error}") from error
    digest = sha256(path)
    return {"size": path.stat().st_size, "sha256": digest}


def keep(root: Path, entries: Sequence[Mapping], name: str) -> Path:
    """Keep the files of a registry row in a folder `name` beside the first: they outlive what replaces them. Returns that folder.

    Linked, not copied, where the file system can: a product is replaced by renaming, never written over.
    """
    folder = (root / entries[0]["path"]).parent / name
    folder.mkdir(parents=True, exist_ok=True)
    for entry in entries:
        source, kept = root / entry["path"], folder / PurePosixPath(entry["path"]).name
        if source.exists() and not kept.exists():
            try:
                kept.hardlink_to(source)
            except OSError:
                shutil.copy2(source, kept)
    return folder


def sha256(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def flush(path: Path) -> None:
    """fsync a file or folder, so that the registry never knows a file that a power cut took away."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
