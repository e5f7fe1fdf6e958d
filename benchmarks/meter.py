"""CPU time and peak memory by stage, each second and each byte charged to one stage."""

from __future__ import annotations

import json
import math
import resource
import time
from contextlib import ExitStack, contextmanager
from functools import wraps
from pathlib import Path
from unittest.mock import patch


class Meter:
    """Exclusive CPU seconds of nested stages, and the largest resident memory of the process while each ran.

    Memory is that of the whole process, libraries included, from the kernel's high-water mark, which is reset when stages change. Where
    the kernel refuses that, it is the highest so far (`peak_is_reset` is then False).
    """

    def __init__(self):
        self.cpu_s: dict[str, float] = {}
        self.peak_mib: dict[str, float] = {}
        self.sources: dict[str, int] = {}
        self.peak_is_reset = True
        self._open: list[str] = []
        self._since = 0.0

    @contextmanager
    def stage(self, name: str):
        """Charge what happens inside to `name`, less what stages within it take."""
        self._settle()
        self._open.append(name)
        try:
            yield
        finally:
            self._settle()
            self._open.pop()

    def watch(self, *functions: tuple[object, str, str]):
        """Context in which calls of `module.attribute` are stages: (module, attribute, stage)."""
        stack = ExitStack()
        for module, attribute, name in functions:
            stack.enter_context(patch.object(module, attribute, self._timed(getattr(module, attribute), name)))
        return stack

    def _timed(self, function, name: str):
        @wraps(function)
        def timed(*args, **options):
            with self.stage(name):
                return function(*args, **options)
        return timed

    def _settle(self) -> None:
        if self._open:
            name = self._open[-1]
            self.cpu_s[name] = self.cpu_s.get(name, 0.0) + time.process_time() - self._since
            self.peak_mib[name] = max(self.peak_mib.get(name, 0.0), self._peak())
        self._reset()
        self._since = time.process_time()

    def _peak(self) -> float:
        if self.peak_is_reset:
            line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
            return int(line.split()[1]) / 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    def _reset(self) -> None:
        try:
            Path("/proc/self/clear_refs").write_text("5")
        except OSError:
            self.peak_is_reset = False

    def row(self, name: str, stages: list[str] | None = None, per: int = 1) -> dict:
        """The line of a stage, or of the sum of several."""
        stages = [name] if stages is None else stages
        return {"stage": name, "cpu_s": round(sum(self.cpu_s[s] for s in stages) / per, 3),
                "peak_mib": round(max(self.peak_mib[s] for s in stages), 1), "sources": self.sources.get(name)}


def emit(row: dict) -> None:
    """One JSON line."""
    print(json.dumps(row), flush=True)


def figure(name: str, value: float, unit: str, n: int, target: float | None, seed: int | None = None) -> None:
    """The line of one figure; a value that is not finite is null, a figure of real data has no seed."""
    value = float(value)
    emit({"figure": name, "value": round(value, 5) if math.isfinite(value) else None, "unit": unit, "n": int(n), "target": target,
          "seed": seed})
