"""`ztf reference`: which references stand, locked or not; unlock one, so that it is made anew, or lock it."""

from __future__ import annotations

from targets.current import registry
from targets.registry import ProductRow
from targets.sealed import keep
from ztfluigi.cli.why import stale_reason
from ztfluigi.model.errors import BadInput
from ztfluigi.services.settings import settings

KINDS = ("ReferenceImage", "ReferenceCatalog")


def add_parser(subparsers) -> None:
    parser = subparsers.add_parser("reference", help="list references; unlock one so that it is made anew from today's settings, or lock it")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    verbs.add_parser("list", help="every reference: locked or not, its epochs, how many differences were made with it")
    for verb, words in (("unlock", "let settings and versions make it anew; the old files are kept beside it"), ("lock", "keep it as it is")):
        one = verbs.add_parser(verb, help=words)
        one.add_argument("--field", type=int, required=True)
        one.add_argument("--filter", required=True)
        one.add_argument("--ccdid", type=int, required=True)
        one.add_argument("--qid", type=int, required=True)
        one.add_argument("--before", default="", metavar="YYYY-MM-DD", help="as the reference was asked for")
        one.add_argument("--exclude", default="", metavar="EXPOSURE,...", help="likewise")
        if verb == "unlock":
            one.add_argument("--choose-again", action="store_true", help="choose its epochs anew too, of all there are now")


def run(args) -> int:
    from ztfluigi.tasks import reference
    from ztfluigi.tasks import settings as tasks_settings

    tasks_settings.check()
    if args.verb == "list":
        print("\n".join(listing()))
        return 0
    tasks = [getattr(reference, kind)(args.field, args.filter, args.ccdid, args.qid, args.before, args.exclude) for kind in KINDS]
    print("\n".join(lock(tasks) if args.verb == "lock" else unlock(tasks, choose_again=args.choose_again)))
    return 0


def listing() -> list[str]:
    """A line for every usable reference."""
    lines = [f"{'reference':44s} {'':8s} {'epochs':>6s} {'differences':>11s}  id"]
    for row in registry().select("ReferenceImage"):
        epochs = sum(role == "ScienceImage" for role, _ in registry().inputs_of(row.provid))
        lines.append(f"{row.key:44s} {'locked' if row.vbest == 2 else 'unlocked':8s} {epochs:6d} {len(differences(row)):11d}  {row.provid}")
    return lines


def lock(tasks: list) -> list[str]:
    """Lock what is sealed of a reference; a line for each."""
    rows = _sealed(tasks)
    for row in rows:
        registry().mark(row.kind, row.key, vbest=2)
    return [f"{row.kind} {row.key} [{row.provid}] is locked" for row in rows]


def unlock(tasks: list, *, choose_again: bool) -> list[str]:
    """Unlock image and catalogue of a reference, their files kept under another name; lines that say what follows.

    Nothing is rebuilt here, and nothing removed. BadInput where no such reference is sealed, or the epochs of today would not do for one.
    """
    from ztfluigi.tasks.settings import configuration

    rows, inputs = _sealed(tasks), tasks[0].inputs()
    if choose_again:
        found, needed = len(inputs.choose()), configuration("reference_inputs").min_inputs
        if found < needed:
            raise BadInput(f"a new choice for {tasks[0].key} finds {found} good epochs, {needed} are needed: it stays as it is")
        registry().withdraw(inputs.kind, inputs.key)
    lines = []
    for task, row in zip(tasks, rows, strict=False):
        kept = keep(settings().root, row.files, f"kept-{rows[0].provid}")
        registry().mark(row.kind, row.key, vbest=1)
        stale = task.provid() != row.provid
        fate = f"the next request makes it anew: {stale_reason(task, row)}" if stale else "it is what would be made today, so nothing is rebuilt"
        lines.append(f"{row.kind} {row.key} [{row.provid}] is unlocked; {fate}")
    lines.append(f"its files stay in {kept}")
    made = differences(rows[0])
    nights = sorted({row.night for row in made if row.night})
    if made:
        lines.append(f"{len(made)} differences were made with it" + (f", of nights {', '.join(nights)}" if nights else "")
                     + "; once it is another, these and their packets are stale, and asking for their night again makes them anew")
    words = "".join(f" --{name} {getattr(tasks[0], name)}" for name in ("field", "filter", "ccdid", "qid", "before", "exclude")
                    if getattr(tasks[0], name) != "")
    return [*lines, f"make it: luigi --module ztfluigi.tasks ReferenceCatalog{words} --local-scheduler"]


def differences(row: ProductRow) -> list[ProductRow]:
    """Usable differences that were made with a reference image."""
    made = [registry().by_provid(provid) for provid in registry().dependents_of(row.provid)]
    return [one for one in made if one is not None and one.kind == "DifferenceImage" and one.state == "sealed" and one.vbest > 0]


def _sealed(tasks: list) -> list[ProductRow]:
    """Rows of a reference image and of its catalogue, where that is sealed too."""
    rows = [registry().current(task.kind, task.key) for task in tasks]
    if rows[0] is None or rows[0].state != "sealed":
        raise BadInput(f"ReferenceImage {tasks[0].key} is {rows[0].state if rows[0] else 'not built'}, expected a sealed one; `ztf reference list` "
                       "names those there are")
    return [row for row in rows if row is not None and row.state == "sealed"]
