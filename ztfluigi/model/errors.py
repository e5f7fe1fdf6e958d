"""The three kinds of failure, and bad input.

`NoWork`     nothing to do: recorded, complete.
`Unusable`   data that no retry can mend: recorded as bad with bits and numbers, complete, not retried.
`Transient`  passing trouble (node, lock, disk, network): raised, retried.
`BadInput`   a file, setting or request from outside that is wrong; the message is one sentence for its owner.
"""

from __future__ import annotations


class ZtfError(Exception):
    """Base of every error the survey raises on purpose; carries the numbers behind the sentence.

    Parameters
    ----------
    reason : one clear sentence.
    numbers : scalars that justify it, stored with the product.
    """

    def __init__(self, reason: str, **numbers):
        super().__init__(reason)
        self.reason = reason
        self.numbers = numbers


class NoWork(ZtfError):
    """There is nothing to do, for a reason that is recorded."""


class Unusable(ZtfError):
    """The data cannot give this product. `infobits` are the quality bits that say why."""

    def __init__(self, reason: str, *, infobits: int = 0, **numbers):
        super().__init__(reason, **numbers)
        self.infobits = infobits


class Transient(ZtfError):
    """Passing trouble; the same request later succeeds."""


class BadInput(ZtfError):
    """Something handed to us is wrong: the sentence names it, what was wrong and what was expected."""


class ConfigError(BadInput):
    """A setting in `luigi.cfg` or the environment is unknown, mistyped or out of range."""


class TooFewCalibrators(Unusable):
    """Not enough calibrators for a fit."""

    def __init__(self, what: str, *, found: int, needed: int, infobits: int = 0, **numbers):
        super().__init__(f"{what}: found {found} calibrators, need {needed}", infobits=infobits, found=found, needed=needed, **numbers)


class NoSolution(Unusable):
    """A fit or a match that must converge did not."""
