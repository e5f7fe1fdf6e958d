"""Alert packets of one quadrant (paper 4.1, product 9)."""

from __future__ import annotations

from dataclasses import dataclass

import luigi
import numpy as np

from targets import paths, rawfiles
from targets.codecs import alert as alert_codec
from targets.codecs import image as image_codec
from targets.registry import PACKET
from targets.sealed import Stage
from ztfluigi.algorithms import packets
from ztfluigi.model.alert_schema import CUTOUTS
from ztfluigi.model.errors import BadInput
from ztfluigi.services import candidates, database
from ztfluigi.tasks import alert_context, alert_history
from ztfluigi.tasks.alert_context import Candidates
from ztfluigi.tasks.base import Built, Product
from ztfluigi.tasks.difference import DifferenceImage
from ztfluigi.tasks.known_orbits import KnownOrbits
from ztfluigi.tasks.reference import usable_reference
from ztfluigi.tasks.science import OfQuadrant
from ztfluigi.tasks.settings import configuration, root


@dataclass
class Packed:
    """Rows of the ledger, one a candidate, and what is to be set in the candidates' own rows."""

    ledger: list[dict]
    columns: list[dict]


class AlertPackets(OfQuadrant, Product):
    """One Avro packet for every event that passed the filter, in the archive's tarball.

    It waits for the differences of the same field and quadrant taken earlier in the night, so that a packet's history is whole
    whatever order the workers took.
    """

    exposure = luigi.Parameter()
    ccdid = luigi.IntParameter()
    qid = luigi.IntParameter()
    version = "1.2.0"
    sections = ("alerts", "known_orbits")

    def difference(self) -> DifferenceImage:
        return DifferenceImage(self.exposure, self.ccdid, self.qid)

    def earlier(self) -> list[DifferenceImage]:
        """Differences of this place from earlier tonight, where there is a reference to difference with."""
        tasks = [DifferenceImage(name.exposure, self.ccdid, self.qid) for name in rawfiles.of_night(root(), self.place()["night"])
                 if name.type == "o" and name.exposure < self.exposure and (name.field, name.ccdid) == (self.name.field, self.ccdid)]
        return [task for task in tasks if usable_reference(task.cell)]

    def known_orbits(self) -> list[KnownOrbits]:
        return [KnownOrbits.of_exposure(self.exposure)] if configuration("known_orbits").use else []

    def requires(self):
        return [*self.ingredients(), *self.earlier()]

    def ingredients(self):
        return [self.difference(), *self.known_orbits()]

    def gates(self):
        return [self.difference()]  # without known orbits packets go out all the same, and say so

    def files(self):
        return {"packets": paths.science(self.name, self.qid, "alerts.tar.gz")}

    def build(self, stage: Stage) -> Built:
        pid, jd = self.difference().row().pid, self.difference().row().jd
        rows = [row for row in candidates.events(pid) if row["fate"] == PACKET]
        if not rows:
            return Built(state="nothing-to-do", reason="no event of this quadrant passed the filter", place=self.numbers_of_time(jd),
                         also=lambda cursor: self.record(cursor, pid, Packed([], [])))
        made = self.pack(stage, rows, Candidates(self.exposure, self.cell, pid, jd, rows[0]["exptime"] or 0.0,
                                                 *(np.array([row[name] for row in rows]) for name in ("candid", "ra", "dec"))))
        refused = sum(entry["state"] == "failed" for entry in made.ledger)
        return Built(numbers={"n_packets": len(rows) - refused, "n_refused": refused}, place=self.numbers_of_time(jd),
                     also=lambda cursor: self.record(cursor, pid, made))

    def pack(self, stage: Stage, rows: list[dict], seen: Candidates) -> Packed:
        """Write the tarball; what the ledger and the candidates' rows are to say."""
        config, stamps, names = configuration("alerts"), self.cutouts(rows), self.names(rows)
        context, note = alert_context.gather(seen)
        history = alert_history.past(seen, rows[0]["programid"], config)
        columns = [{"candid": row["candid"], "objectid": names[row["candid"]]} | extra for row, extra in zip(rows, context, strict=True)]
        packed, ledger = [], []
        for row, extra, past, limits, forced, stamp in zip(rows, columns, history.detections, history.limits, history.forced, stamps, strict=True):
            entry = {"candid": row["candid"], "objectid": extra["objectid"], "programid": row["programid"], "state": "sealed", "reason": note or None}
            try:
                record = packets.build_packet(row | extra, past, limits, stamp, {}, forced=forced, version=config.schema,
                                              publisher=config.publisher)
                packed.append((row["candid"], alert_codec.write_packet(record)))
                ledger.append(entry | {"file": str(self.files()["packets"])})
            except BadInput as error:  # one bad record is refused by itself
                ledger.append(entry | {"state": "failed", "reason": error.reason})
        alert_codec.pack_alerts(stage["packets"], packed)
        return Packed(ledger, columns)

    def names(self, rows: list[dict]) -> dict[int, str]:
        """objectId of every candidate; it stays with its candidate, whatever becomes of this attempt."""
        with database.transaction() as cursor:
            return candidates.assign_object_ids(cursor, [(r["candid"], r["ra"], r["dec"], r["jd"], r["field"], r["rcid"]) for r in rows])

    def cutouts(self, rows: list[dict]) -> list[dict[str, bytes]]:
        """Encoded stamps of every candidate; that of a negative one shows reference minus science."""
        stamps, _ = image_codec.read_pixels(self.difference().path("cutouts"))
        signs = [(1, 1, 1 if row["isdiffpos"] == "t" else -1) for row in rows]
        return [{word: alert_codec.encode_cutout(sign * stamp) for word, sign, stamp in zip(CUTOUTS.values(), three, group, strict=True)}
                for three, group in zip(signs, stamps, strict=True)]

    def record(self, cursor, pid: int, made: Packed) -> None:
        """The packets' rows in the ledger, and what they say of their candidates."""
        candidates.replace_alerts(cursor, pid, self.provid(), self.place()["night"], made.ledger)
        candidates.update_events(cursor, pid, made.columns)
