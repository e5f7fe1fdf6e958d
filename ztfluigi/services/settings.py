"""Where this survey lives and how it is set: `[ztf]` of `luigi.cfg` and its environment variables (interfaces.md 1)."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Mapping
from configparser import Error as ParserError
from dataclasses import dataclass
from pathlib import Path

import luigi.configuration

from ztfluigi.model.config import knob, parse
from ztfluigi.model.errors import BadInput, ConfigError

LUIGI_SECTIONS = frozenset(("core", "worker", "scheduler", "resources", "retcode", "logging", "execution_summary", "email",
                            "batch_notifier", "task_history", "smtp", "sendgrid", "parallel_scheduling", "sns", "prometheus"))
"""Sections of `luigi.cfg` that belong to luigi itself."""


@dataclass(frozen=True)
class Settings:
    """Section `[ztf]`. An environment variable `ZTF_<NAME>` that is set and not empty wins over the file."""

    root: Path | None = knob(None, "data root: the folder that holds the whole survey", critical=False)
    camera: str = knob("ztf", "camera description: a name that ships with ztfluigi, or the path of a .toml file", critical=False)
    database: str | None = knob(None, "PostgreSQL URI; unset means the embedded server in <root>/db", critical=False)
    kafka: str | None = knob(None, "Kafka bootstrap servers; unset means alerts go to files only", critical=False)
    run: str = knob("main", "name of one coherent set of products", critical=False)


def settings() -> Settings:
    """The settings in force, with `root` resolved, created when absent, and writable.

    Raises `ConfigError` (unknown or missing setting) and `BadInput` (the root cannot be used), each with one sentence.
    """
    values = section_values("ztf")
    sources = []
    for name in Settings.__dataclass_fields__:
        text = os.environ.get(f"ZTF_{name.upper()}")
        if text:
            values[name] = text
            sources.append(f"ZTF_{name.upper()}")
    folder = "" if values.get("root", "").startswith(("/", "~")) else os.getcwd()
    return _resolve(tuple(sorted(values.items())), " and ".join(["luigi.cfg", *sources]), folder)


@functools.lru_cache(maxsize=32)
def _resolve(items: tuple[tuple[str, str], ...], source: str, folder: str) -> Settings:
    parsed = parse(Settings, "ztf", dict(items), source)
    if parsed.root is None:
        raise ConfigError("there is no data root: set `root` in section [ztf] of luigi.cfg, or the environment variable ZTF_ROOT")
    if not re.fullmatch(r"[\w.-]+", parsed.run):
        raise ConfigError(f"{source}: [ztf] run = {parsed.run!r} must be a name of letters, digits, '_', '.' and '-'")
    root = (Path(folder) / parsed.root.expanduser()).resolve()
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"the data root {root} cannot be created: {error.strerror or error}") from error
    if not os.access(root, os.R_OK | os.W_OK | os.X_OK):
        raise BadInput(f"the data root {root} is not writable for this user: give another [ztf] root or ZTF_ROOT")
    return Settings(**{**parsed.__dict__, "root": root})


def section_values(name: str) -> dict[str, str]:
    """The strings of one section of the luigi configuration; empty when the section is absent."""
    parser = luigi.configuration.get_config()
    if not parser.has_section(name):
        return {}
    shared = parser.defaults()
    try:
        return {key: value for key, value in parser.items(name) if key not in shared}
    except ParserError as error:
        raise ConfigError(f"luigi.cfg: section [{name}] cannot be read: {error}") from error


def section(cls, name: str):
    """Section `name` as an instance of its dataclass; `ConfigError` with one sentence when a setting is wrong."""
    return parse(cls, name, section_values(name))


def check_sections(known: Mapping[str, type]) -> None:
    """Refuse at start what would be ignored later: unknown keys, wrong values, and unknown sections of `luigi.cfg`.

    Parameters
    ----------
    known : section name to dataclass, of every science section. Sections of luigi itself and of its task families
        (a capital first letter) are left alone.
    """
    known = {"ztf": Settings, **known}
    for name in luigi.configuration.get_config().sections():
        if name in known:
            section(known[name], name)
        elif name not in LUIGI_SECTIONS and not name[:1].isupper():
            raise ConfigError(f"luigi.cfg: section [{name}] is unknown; the survey's sections are {', '.join(sorted(known))}")
