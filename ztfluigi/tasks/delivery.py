"""Alert packets to the broker (paper 4.1): at least once, with the ledger.

Rows of the ledger are claimed, their packets sent, and the places where the broker put them noted in one transaction. When either side
dies in between, the rows stay pending and the packets are sent again with the same key, so that nothing is lost, and whoever remembers
keys sees nothing twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import luigi

from targets.codecs import alert as alert_codec
from targets.sealed import Stage
from ztfluigi.model.errors import BadInput, Transient
from ztfluigi.services import broker, database, ledger
from ztfluigi.tasks.alerts import AlertPackets
from ztfluigi.tasks.base import Built, Product, ProductTarget
from ztfluigi.tasks.science import OfQuadrant
from ztfluigi.tasks.settings import root


class DeliveryTarget(ProductTarget):
    """The ledger rows of a quadrant's packets: there when the packets are, and a broker has taken every one."""

    def exists(self) -> bool:
        packets = self.task.packets()
        return packets.output().exists() and not ledger.pending(str(packets.files()["packets"]))


class AlertDelivery(OfQuadrant, Product):
    """The packets of one quadrant, handed to the broker."""

    exposure = luigi.Parameter()
    ccdid = luigi.IntParameter()
    qid = luigi.IntParameter()

    def packets(self) -> AlertPackets:
        return AlertPackets(self.exposure, self.ccdid, self.qid)

    def requires(self):
        return [self.packets()]

    def output(self) -> ProductTarget:
        return DeliveryTarget(self)

    def complete(self) -> bool:
        done = super().complete()
        if not done:
            broker.load()  # once in the parent, for all its tasks
        return done

    def build(self, stage: Stage) -> Built:
        with broker.Publisher() as publisher:
            return Built(numbers=deliver(publisher, str(self.packets().files()["packets"])).numbers())


@dataclass
class Delivered:
    """How many packets the broker took, and how many can never be published."""

    sent: int = 0
    refused: int = 0

    def numbers(self) -> dict:
        return {"n_delivered": self.sent, "n_refused": self.refused}


def deliver(publisher: broker.Publisher, file: str) -> Delivered:
    """Send the pending packets of one archive file; Transient when the broker did not take all that it could."""
    with database.transaction() as cursor:
        rows = ledger.claim(cursor, file)
        result, trouble = _send(cursor, publisher, file, rows)
    if trouble:
        raise Transient(trouble, **result.numbers())
    return result


def replay(publisher: broker.Publisher, night: str, topic: str | None = None) -> Iterator[Delivered]:
    """Send every packet of a night again, from the archive; the ledger notes the new places unless they are in another topic."""
    for file, rows in ledger.sealed(night).items():
        with database.transaction() as cursor:
            result, trouble = _send(cursor, publisher, file, rows, topic)
        if trouble:
            raise Transient(trouble, **result.numbers())
        yield result


def _send(cursor, publisher: broker.Publisher, file: str, rows: Mapping[int, dict], topic: str | None = None) -> tuple[Delivered, str]:
    """Send the packets of some ledger rows and note what became of each."""
    if not rows:
        return Delivered(), ""
    refused, sending = {}, []

    def messages() -> Iterator[tuple[str, bytes, bytes]]:
        for candid, packet in alert_codec.unpack_alerts(root() / file):
            if candid in rows:
                try:
                    alert_codec.check_packet(packet, candid)
                except BadInput as error:
                    refused[candid] = error.reason
                else:
                    sending.append(candid)
                    yield topic or broker.topic_of(rows[candid]["night"], rows[candid]["programid"]), str(candid).encode(), packet

    sent = publisher.send(list(messages()))  # all read before the first is sent: the two would contend for the interpreter
    answers = dict(zip(sending, sent.answers, strict=True))
    placed = {candid: (one.topic, one.partition, one.offset) for candid, one in answers.items() if isinstance(one, broker.Placed)}
    refused |= {candid: one for candid, one in answers.items() if isinstance(one, str)}
    refused |= dict.fromkeys(rows.keys() - refused.keys() - answers.keys(), f"it is not in {file}: rebuild its AlertPackets")
    if topic is None:
        ledger.mark_delivered(cursor, placed)
    ledger.mark_refused(cursor, refused)
    return Delivered(len(placed), len(refused)), sent.trouble
