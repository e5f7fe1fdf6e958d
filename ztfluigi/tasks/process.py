"""State of one operating-system process: what it has checked, which product ids it remembers, what the progress bar counts."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import warnings

from luigi.parameter import UnconsumedParameterWarning

from ztfluigi.model.errors import BadInput, Transient

#: Product ids that can no longer change in this process, by luigi task id. Forked task processes inherit them.
PROVIDS: dict[str, str] = {}

# luigi warns of settings of its own sections that it reads elsewhere
warnings.simplefilter("ignore", UnconsumedParameterWarning)

_PR_SET_PDEATHSIG = 1
_ready = False


def ensure_ready() -> None:
    """Check settings and database once, before the first task exists; leave with one clear sentence when something is wrong."""
    global _ready
    if _ready:
        return
    from ztfluigi.tasks import progress, settings

    try:
        settings.check()
    except (BadInput, Transient) as error:
        sys.exit(f"ztf: {error.reason}")
    progress.watch()
    _ready = True


def enter_task() -> None:
    """A forked task dies with its worker: an orphan that lives on would write the same product as its successor."""
    parent = multiprocessing.parent_process()
    if parent is not None and sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent.pid:
            os._exit(1)
