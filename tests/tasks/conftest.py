"""The product machinery on its own: a registry in memory, a data root of one test."""

from __future__ import annotations

import luigi
import pytest

from targets import current
from targets.registry_memory import InMemoryRegistry
from ztfluigi.tasks import process, settings


@pytest.fixture
def registry(tmp_path, monkeypatch):
    """An empty registry in memory; `ZTF_ROOT` is a fresh folder."""
    monkeypatch.setenv("ZTF_ROOT", str(tmp_path))
    monkeypatch.setattr(process, "_ready", True)
    monkeypatch.setattr(process, "PROVIDS", {})
    # tasks run in this process, where the registry is, and a failed one is not retried
    for name, value in (("force_multiprocessing", "false"), ("keep_alive", "false")):
        monkeypatch.setitem(luigi.configuration.get_config()._sections.setdefault("worker", {}), name, value)
    memory = InMemoryRegistry(run="main")
    current.use(memory)
    settings.forget()
    yield memory
    current.use(None)
    settings.forget()
    luigi.task_register.Register.clear_instance_cache()
