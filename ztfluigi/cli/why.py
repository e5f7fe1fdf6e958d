"""`ztf why KIND KEY`: what a product is made of, and why it is missing, stale or bad."""

from __future__ import annotations

import luigi

from targets.current import registry
from targets.registry import ProductRow
from ztfluigi.model.errors import BadInput
from ztfluigi.tasks.base import Product, whole


def add_parser(subparsers) -> None:
    parser = subparsers.add_parser("why", help="print a product's tree; for a missing, stale or bad product, the reason")
    parser.add_argument("kind", help="product, for example DifferenceImage")
    parser.add_argument("identity", nargs="+", help="its parameters: NAME=VALUE ..., or the values in order separated by /")
    parser.add_argument("--depth", type=int, default=3, help="levels of inputs to show (default 3)")


def run(args) -> int:
    task = find_task(args.kind, args.identity)
    for line in explain(task, args.depth):
        print(line)
    return 0


def find_task(kind: str, identity: list[str]) -> Product:
    """The task a person names."""
    import ztfluigi.tasks  # noqa: F401  registers every product

    try:
        cls = luigi.task_register.Register.get_task_cls(kind)
    except luigi.task_register.TaskClassException as error:
        known = sorted(name for name in luigi.task_register.Register.task_names() if name[0].isupper())
        raise BadInput(f"there is no product {kind!r}; products are {', '.join(known)}") from error
    names = [name for name, _ in cls.get_params()]
    needed = [name for name, parameter in cls.get_params() if not parameter.has_task_value(kind, name)]
    words = identity[0].split("/") if len(identity) == 1 else identity
    values = dict(zip(names, [word for word in words if "=" not in word], strict=False)) if len(identity) == 1 else {}
    values |= dict(word.lstrip("-").split("=", 1) for word in words if "=" in word)
    if not set(needed) <= set(values) <= set(names):
        raise BadInput(f"{kind} is identified by {', '.join(names)}; write for example: ztf why {kind} " + " ".join(f"{n}=..." for n in needed))
    return cls.from_str_params(values)


def explain(task, depth: int, indent: int = 0, seen: set | None = None) -> list[str]:
    """Lines of the tree below a task."""
    seen = set() if seen is None else seen
    pad = "  " * indent
    if not isinstance(task, Product):
        line = f"{pad}{task}: {'complete' if task.complete() else 'not complete'}"
        return [line] + _inputs(task, luigi.task.flatten(task.requires()), depth, indent, seen)
    row = task.output().row()
    lines = [f"{pad}{task.kind} {task.key}  {verdict(task, row)}"]
    if task.task_id in seen:
        return lines
    seen.add(task.task_id)
    inputs = list(task.ingredients()) or luigi.task.flatten(task.requires())
    return lines + _inputs(task, [one for one in inputs if isinstance(one, luigi.Task)], depth, indent, seen)


def _inputs(task, inputs: list, depth: int, indent: int, seen: set) -> list[str]:
    if depth <= 0:
        return []
    lines, shown = [], inputs[:6]
    for one in shown:
        lines += explain(one, depth - 1, indent + 1, seen)
    if len(inputs) > len(shown):
        lines.append("  " * (indent + 1) + f"... and {len(inputs) - len(shown)} more {inputs[-1].get_task_family()}")
    return lines


def verdict(task: Product, row: ProductRow | None) -> str:
    """One phrase: the state of a product and the reason for it."""
    if row is None:
        return "missing: never built"
    if row.state == "failed":
        return f"failed after {row.attempts} attempts: {row.reason}"
    expected = task.provid()
    if row.provid != expected:
        return f"stale: {stale_reason(task, row)}  [has {row.provid}, wants {expected}]"
    if not whole(row):
        return f"missing: registered, but its files are not on disk (id {row.provid})"
    reason = f": {row.reason}" if row.reason else ""
    return f"{row.state}{reason}  [{row.provid}]"


def stale_reason(task: Product, row: ProductRow) -> str:
    """What changed since a row was sealed."""
    now, then = task.critical(), row.config or {}
    changed = [f"{key} was {then.get(key)!r}, is {value!r}" for key, value in now.items() if _plain(then.get(key)) != _plain(value)]
    if changed:
        return "; ".join(changed)
    if row.version.split(".")[:2] != task.version.split(".")[:2]:
        return f"algorithm version was {row.version}, is {task.version}"
    before = {provid for _, provid in registry().inputs_of(row.provid)}
    fresh = [f"{one.kind} {one.key}" for one in task.ingredients() if one.provid() not in before]
    return "its inputs changed" + (f": {', '.join(fresh[:3])}" if fresh else "")


def _plain(value):
    return list(value) if isinstance(value, tuple) else value
