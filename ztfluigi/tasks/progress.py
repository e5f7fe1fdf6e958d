"""A progress bar while the `luigi` command runs, and a plain summary when it ends.

Luigi runs tasks in forked processes, so they count what they finished in shared memory and the parent draws.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import sys
import threading
import time
from pathlib import Path

import luigi
from tqdm import tqdm

_done = multiprocessing.Value("i", 0)
_failed = multiprocessing.Value("i", 0)
_discovered: set[str] = set()
_complete: set[str] = set()
_nights: set[str] = set()
_started = time.monotonic()
_stage = ""


def watch() -> None:
    """Start counting and drawing, when this process is the `luigi` command."""
    if Path(sys.argv[0]).name != "luigi" or multiprocessing.parent_process() is not None:
        return
    luigi.Task.event_handler(luigi.Event.DEPENDENCY_DISCOVERED)(_on_discovered)
    luigi.Task.event_handler(luigi.Event.DEPENDENCY_PRESENT)(lambda task: _complete.add(task.task_id))
    luigi.Task.event_handler(luigi.Event.SUCCESS)(lambda task: _count(_done))
    luigi.Task.event_handler(luigi.Event.FAILURE)(lambda task, error: _count(_failed))
    owner = os.getpid()
    threading.Thread(target=_draw, daemon=True).start()
    atexit.register(lambda: os.getpid() == owner and _summary())


def root_night(night: str) -> None:
    """Remember which night was asked for, for the summary."""
    _nights.add(night)


def stage(words: str = "") -> None:
    """Say beside the bar what keeps the products waiting; nothing when nothing does."""
    global _stage
    _stage = words


def _on_discovered(task, dependency) -> None:
    _discovered.add(task.task_id)
    _discovered.add(dependency.task_id)


def _count(counter) -> None:
    with counter.get_lock():
        counter.value += 1


def _draw() -> None:
    with tqdm(total=0, unit="product", dynamic_ncols=True, desc="products", mininterval=1.0, file=sys.stderr) as bar:
        while True:
            time.sleep(0.5)
            bar.total = max(len(_discovered - _complete), _done.value, 1)
            bar.n = _done.value
            bar.set_description_str(_stage or "products", refresh=False)
            if _failed.value:
                bar.set_postfix(failed=_failed.value, refresh=False)
            bar.refresh()


def _summary() -> None:
    from targets.current import registry
    from ztfluigi.tasks.settings import root

    seconds = time.monotonic() - _started
    lines = ["", f"{_done.value} tasks run, {_failed.value} failed attempts, in {seconds:.0f} s; data root {root()}"]
    for night in sorted(_nights):
        lines.append(f"night {night}")
        for level, fates in registry().counts(night).items():
            lines.append(f"  {level:10s} " + (", ".join(f"{count} {fate}" for fate, count in fates.items()) or "none"))
        lines.append(f"  why a product is as it is: ztf why KIND KEY; these counts again: ztf status --night {night}")
    print("\n".join(lines), file=sys.stderr)
