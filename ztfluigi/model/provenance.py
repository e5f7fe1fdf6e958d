"""Product ids: a hash over what a product is made of, and nothing else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping


def product_id(kind: str, version: str, critical: Mapping[str, object], inputs: Iterable[str]) -> str:
    """The `provid` of a product: 24 hexadecimal digits.

    Parameters
    ----------
    kind : product name, with its identity (`ScienceImage:20180601250000/c01q1`).
    version : MAJOR.MINOR[.PATCH] of the algorithm; a patch release does not change the id.
    critical : critical configuration values by name.
    inputs : provids of the inputs; their order does not matter.
    """
    text = json.dumps([kind, ".".join(version.split(".")[:2]), dict(sorted(critical.items())), sorted(inputs)],
                      separators=(",", ":"), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:24]
