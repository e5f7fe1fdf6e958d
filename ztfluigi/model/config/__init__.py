"""Configuration: each `luigi.cfg` section is one frozen dataclass; type, range, unit, meaning and weight stand beside each knob.

A knob is `critical` when turning it changes the numbers of a product; only critical knobs enter the product id.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping

from ztfluigi.model.errors import ConfigError


def knob(default, doc: str, *, unit: str = "", critical: bool = True, low=None, high=None, choices=None):
    """Declare one setting of a section dataclass."""
    return dataclasses.field(default=default, metadata={"doc": doc, "unit": unit, "critical": critical, "low": low,
                                                        "high": high, "choices": choices})


def critical_values(config) -> dict[str, object]:
    """The critical knobs of a section instance, by name."""
    return {f.name: getattr(config, f.name) for f in dataclasses.fields(config) if f.metadata.get("critical", True)}


def parse(cls, section: str, values: Mapping[str, str], source: str = "luigi.cfg"):
    """Build a section dataclass from the strings of a configuration file.

    Raises `ConfigError` (unknown key, wrong type, out of range) with one sentence that names file, section and key.
    """
    fields = {f.name: f for f in dataclasses.fields(cls)}
    hints = typing.get_type_hints(cls)
    parsed = {}
    for key, text in values.items():
        if key not in fields:
            raise ConfigError(f"{source}: [{section}] has no setting {key!r}; known settings are {', '.join(fields)}")
        parsed[key] = _convert(text, hints[key], f"{source}: [{section}] {key}")
    for name, value in parsed.items():
        _check_range(value, fields[name].metadata, f"{source}: [{section}] {name}")
    return cls(**parsed)


def _convert(text: str, hint, where: str):
    kind = hint
    if isinstance(hint, types.UnionType):
        if text.strip().lower() in ("", "none"):
            return None
        kind = next(k for k in typing.get_args(hint) if k is not type(None))
    if typing.get_origin(kind) is tuple:
        item = typing.get_args(kind)[0]
        return tuple(_convert(part.strip(), item, where) for part in text.split(",") if part.strip())
    if kind is bool:
        lowered = text.strip().lower()
        if lowered not in ("true", "false", "yes", "no", "1", "0"):
            raise ConfigError(f"{where} = {text!r} is not true or false")
        return lowered in ("true", "yes", "1")
    try:
        return kind(text.strip())
    except ValueError as error:
        raise ConfigError(f"{where} = {text!r} is not a valid {kind.__name__}") from error


def _check_range(value, meta, where: str) -> None:
    low, high, choices = meta.get("low"), meta.get("high"), meta.get("choices")
    for item in value if isinstance(value, tuple) else (value,):
        if item is None:
            continue
        if (low is not None and item < low) or (high is not None and item > high):
            raise ConfigError(f"{where} = {item} is outside {low}..{high}")
        if choices is not None and item not in choices:
            raise ConfigError(f"{where} = {item!r} is not one of {', '.join(map(str, choices))}")
