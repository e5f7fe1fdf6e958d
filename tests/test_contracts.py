"""The walls between the rooms hold, and documents say what the code says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]


def test_rooms_import_downwards_only():
    command = Path(sys.executable).parent / "lint-imports"
    done = subprocess.run([command, "--no-cache"], cwd=CHECKOUT, text=True, capture_output=True)
    assert done.returncode == 0, done.stdout


def test_readme_names_every_product_task():
    import luigi

    import ztfluigi.tasks

    readme = (CHECKOUT / "README.md").read_text()
    for name in ztfluigi.tasks.__all__:
        assert issubclass(getattr(ztfluigi.tasks, name), luigi.Task)
        if name != "AdoptedImage":
            assert f"`{name}`" in readme, f"README's product table does not name {name}"


def test_shipped_settings_hold_no_unknown_section():
    from ztfluigi.tasks.settings import SECTIONS

    found = set(re.findall(r"^\[(\w+)\]", (CHECKOUT / "luigi.cfg").read_text(), re.M))
    assert found <= set(SECTIONS) | {"ztf", "core", "worker", "scheduler", "retcode"}
