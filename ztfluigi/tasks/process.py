"""State of one operating-system process: what it has checked, which product ids it remembers, what the progress bar counts."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import warnings
from typing import NoReturn

from luigi.parameter import UnconsumedParameterWarning

from ztfluigi.model.errors import BadInput, Transient, ZtfError

#: Product ids that can no longer change in this process, by luigi task id. Forked task processes inherit them.
PROVIDS: dict[str, str] = {}

# luigi warns of settings of its own sections that it reads elsewhere
warnings.simplefilter("ignore", UnconsumedParameterWarning)

_PR_SET_PDEATHSIG = 1
_ready = False
_loaded = False


def ensure_ready() -> None:
    """Check settings and database once, before the first task exists; leave with one clear sentence when something is wrong."""
    global _ready
    if _ready:
        return
    from ztfluigi.tasks import progress, settings

    try:
        settings.check()
    except (BadInput, Transient) as error:
        refuse(error)
    progress.watch()
    _ready = True


def load_kernels() -> None:
    """Load the compiled kernels once in the parent; forked task processes inherit them instead of loading them one by one."""
    global _loaded
    if _loaded or multiprocessing.parent_process() is not None:
        return
    _loaded = True
    from ztfluigi.algorithms import warm
    from ztfluigi.tasks import progress, settings

    progress.stage("loading kernels (compiled once, a minute)")
    warm.load_kernels(settings.sections(settings.SECTIONS))
    progress.stage()


def refuse(error: ZtfError) -> NoReturn:
    """End the program with the sentence of an error its user can mend."""
    sys.exit(f"ztf: {error.reason}")


def enter_task() -> None:
    """A forked task dies with its worker: an orphan that lives on would write the same product as its successor."""
    parent = multiprocessing.parent_process()
    if parent is not None and sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent.pid:
            os._exit(1)
