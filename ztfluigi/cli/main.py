"""`ztf`: everything that is not a product."""

from __future__ import annotations

import argparse
import importlib
import sys

from ztfluigi import __version__
from ztfluigi.model.errors import ZtfError

#: Sub-commands in the order of `ztf --help`; each module has `add_parser(subparsers)` and `run(args)`.
COMMANDS = ("simulate", "adopt", "inject", "reference", "status", "why", "db", "doctor", "alerts", "kafka", "demo")


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit status. A known error prints one sentence and gives 1."""
    parser = argparse.ArgumentParser(prog="ztf", description="The survey's own command. Products are asked for with `luigi`.")
    parser.add_argument("--version", action="version", version=f"ztfluigi {__version__}")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    modules = {name: importlib.import_module(f"ztfluigi.cli.{name}") for name in COMMANDS}
    for name in COMMANDS:
        modules[name].add_parser(subparsers)
    args = parser.parse_args(argv)
    try:
        return modules[args.command].run(args) or 0
    except ZtfError as error:
        print(f"ztf {args.command}: {error.reason}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
