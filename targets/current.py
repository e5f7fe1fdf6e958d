"""The registry in use: the operations database, unless a test puts another in its place."""

from __future__ import annotations

from targets.registry import PostgresRegistry, Registry

_in_use: Registry | None = None


def registry() -> Registry:
    """The registry every task and command asks."""
    return _in_use if _in_use is not None else PostgresRegistry()


def use(other: Registry | None) -> None:
    """Put another registry in place of the database's (None: the database's again)."""
    global _in_use
    _in_use = other
