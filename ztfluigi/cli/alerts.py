"""`ztf alerts`: packets to the broker, and from it."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from tqdm import tqdm

from targets.codecs import alert
from ztfluigi.model.errors import BadInput, Transient
from ztfluigi.model.ids import night_code
from ztfluigi.services import broker, ledger


def add_parser(subparsers) -> None:
    parser = subparsers.add_parser("alerts", help="alert packets: publish, consume, replay, mirror")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    publish = actions.add_parser("publish", help="send the packets of a night that no broker has taken yet")
    replay = actions.add_parser("replay", help="send every packet of a night again, from the archive")
    consume = actions.add_parser("consume", help="print alerts of a topic, or save them as files; an alert that comes twice is shown once")
    mirror = actions.add_parser("mirror", help="copy topics to another cluster")
    for one in (publish, replay):
        one.add_argument("--night", required=True, metavar="YYYY-MM-DD")
    replay.add_argument("--topic", help="send to this topic instead of the night's own; the ledger is then left as it is")
    for one in (consume, mirror):
        one.add_argument("--night", metavar="YYYY-MM-DD", help="topics of this night's programmes")
        one.add_argument("--programid", type=int, default=1, help="programme of the night's topic (default 1, public)")
        one.add_argument("--topic", action="append", default=[], help="a topic by name; may be repeated")
        one.add_argument("--follow", action="store_true", help="wait for more instead of ending when all has been read")
    consume.add_argument("--group", help="go on where this group of consumers stands (default: from the beginning)")
    consume.add_argument("--limit", type=int, help="end after so many messages")
    consume.add_argument("--save", type=Path, metavar="FOLDER", help="write each packet as FOLDER/<candid>.avro")
    mirror.add_argument("--to", required=True, metavar="HOST:PORT", help="bootstrap servers of the other cluster")
    mirror.add_argument("--group", default="ztf-mirror", help="name under which the copy remembers its place (default ztf-mirror)")


def run(args) -> int:
    try:
        night_code(args.night or "2018-01-01")
    except ValueError as error:
        raise BadInput(f"night {args.night!r} is not a date YYYY-MM-DD") from error
    return {"publish": publish, "replay": replay, "consume": consume, "mirror": mirror}[args.action](args)


def publish(args) -> int:
    """Deliver what is pending; a file that fails does not stop the others unless the broker is away."""
    from ztfluigi.tasks import delivery, settings

    settings.check()
    files, trouble, sent = ledger.pending_files(args.night), "", 0
    if files:
        with broker.Publisher() as publisher:
            for file in _bar(files, "quadrant"):
                try:
                    sent += delivery.deliver(publisher, file).sent
                except BadInput as error:
                    trouble = error.reason
    elif not any(ledger.counts(args.night).values()):
        raise BadInput(f"the ledger has no packets of night {args.night}: ask for the night with `luigi --module ztfluigi.tasks Night`")
    counts = ledger.counts(args.night)
    print(f"night {args.night}: {sent} packets sent now; " + ", ".join(f"{count} {word}" for word, count in counts.items()))
    if trouble:
        raise Transient(trouble)
    return 0 if not counts["pending"] else 1


def replay(args) -> int:
    """Send a night again."""
    from ztfluigi.tasks import delivery, settings

    settings.check()
    if not ledger.sealed(args.night):
        raise BadInput(f"the ledger has no packets of night {args.night}")
    with broker.Publisher() as publisher:
        sent = sum(one.sent for one in _bar(delivery.replay(publisher, args.night, args.topic), "quadrant"))
    print(f"night {args.night}: {sent} packets sent again")
    return 0


def consume(args) -> int:
    """Print or save alerts."""
    if args.limit is not None and args.limit < 1:
        raise BadInput(f"--limit {args.limit} must be at least 1")
    if args.save:
        args.save.mkdir(parents=True, exist_ok=True)
    seen: set[bytes] = set()
    read = 0
    for batch in broker.read(_topics(args), group=args.group, follow=args.follow, limit=args.limit):
        read += len(batch)
        for message in batch:
            if message.key is None or message.key not in seen:
                seen.add(message.key)
                print(_saved(message, args.save) if args.save else _line(message.value), flush=args.follow)
    print(f"{read} messages, {read - len(seen)} of them repeated" if read != len(seen) else f"{read} messages", file=sys.stderr)
    return 0


def mirror(args) -> int:
    """Copy topics to another cluster."""
    copied = broker.mirror(_topics(args), args.to, group=args.group, follow=args.follow)
    print(f"{copied} messages copied to {args.to}")
    return 0


def _topics(args) -> list[str]:
    topics = args.topic + ([broker.topic_of(args.night, args.programid)] if args.night else [])
    if not topics:
        raise BadInput("which alerts? give --night YYYY-MM-DD or --topic NAME")
    return topics


def _line(packet: bytes) -> str:
    """One line of a packet: candid, objectId, JD, RA, Dec, filter, magnitude and error, sign, real-bogus score, length of history."""
    (record,) = alert.read_packets(packet)
    one = record["candidate"]
    score = "-" if one.get("drb") is None else f"{one['drb']:.2f}"
    past = len(record["prv_candidates"] or ())
    return (f"{record['candid']} {record['objectId']:12s} {one['jd']:.5f} {one['ra']:10.6f} {one['dec']:+10.6f} {'?gri'[one['fid']]} "
            f"{one['magpsf']:6.3f} {one['sigmapsf']:.3f} {one['isdiffpos']} {score:>4s} {past:4d}")


def _saved(message: broker.Message, folder: Path) -> Path:
    """The file a packet was written to, whole or not at all."""
    (record,) = alert.read_packets(message.value)
    path = folder / f"{record['candid']}.avro"
    aside = path.with_suffix(".tmp")
    aside.write_bytes(message.value)
    return aside.replace(path)


def _bar(items: Iterable, unit: str) -> Iterator:
    return tqdm(items, unit=unit, disable=not sys.stderr.isatty())
