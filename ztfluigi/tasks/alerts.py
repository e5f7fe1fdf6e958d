"""Alert packets of one quadrant (paper 4.1, product 9)."""

from __future__ import annotations

import luigi
import numpy as np

from targets import paths, rawfiles
from targets.codecs import alert as alert_codec
from targets.codecs import catalog as catalog_codec
from targets.codecs import image as image_codec
from targets.registry import PACKET
from targets.sealed import Stage
from ztfluigi.algorithms import packets
from ztfluigi.model.alert_schema import CUTOUTS
from ztfluigi.model.errors import NoWork
from ztfluigi.model.ids import ccd_and_quadrant
from ztfluigi.services import candidates, database
from ztfluigi.tasks.base import Built, Product
from ztfluigi.tasks.difference import DifferenceImage
from ztfluigi.tasks.reference import usable_reference
from ztfluigi.tasks.science import OfQuadrant
from ztfluigi.tasks.settings import configuration, root


NO_CLASSIFIER = "none"
"""rbversion while there is no trained real-bogus classifier: `rb` and `drb` are null."""


class AlertPackets(OfQuadrant, Product):
    """One Avro packet for every event that passed the filter, in the archive's tarball.

    It waits for the differences of the same field and quadrant taken earlier in the night, so that a packet's history is whole
    whatever order the workers took.
    """

    exposure = luigi.Parameter()
    ccdid = luigi.IntParameter()
    qid = luigi.IntParameter()
    sections = ("alerts",)

    def difference(self) -> DifferenceImage:
        return DifferenceImage(self.exposure, self.ccdid, self.qid)

    def earlier(self) -> list[DifferenceImage]:
        """Differences of this place from earlier tonight, where there is a reference to difference with."""
        tasks = [DifferenceImage(name.exposure, self.ccdid, self.qid) for name in rawfiles.of_night(root(), self.place()["night"])
                 if name.type == "o" and name.exposure < self.exposure and (name.field, name.ccdid) == (self.name.field, self.ccdid)]
        return [task for task in tasks if usable_reference(task.cell)]

    def requires(self):
        return [self.difference(), *self.earlier()]

    def ingredients(self):
        return [self.difference()]

    def files(self):
        return {"packets": paths.science(self.name, self.qid, "alerts.tar.gz")}

    def build(self, stage: Stage) -> Built:
        pid, jd = self.difference().row().pid, self.difference().row().jd
        rows = [row for row in candidates.events(pid) if row["fate"] == PACKET]
        if not rows:
            raise NoWork("no event of this quadrant passed the filter")
        config, stamps = configuration("alerts"), self.cutouts(rows)
        values = self.context(rows, jd)
        past, limits = self.history(values, jd, config)
        records = [packets.build_packet(row, seen, unseen, stamp, {"rbversion": NO_CLASSIFIER, "drbversion": NO_CLASSIFIER}, version=config.schema, publisher=config.publisher)
                   for row, seen, unseen, stamp in zip(values, past, limits, stamps, strict=True)]
        alert_codec.pack_alerts(stage["packets"], [(record["candid"], alert_codec.write_packet(record)) for record in records])
        return Built(numbers={"n_packets": len(records)}, place=self.numbers_of_time(jd), also=lambda cursor: self.ledger(cursor, pid, values))

    def context(self, rows: list[dict], jd: float) -> list[dict]:
        """The candidates with what stands around them: objectId, nearest PS1 and Gaia sources, counts of past detections and coverages."""
        ra, dec = (np.array([row[axis] for row in rows]) for axis in ("ra", "dec"))
        with database.transaction() as cursor:  # names stay with their candidates, whatever becomes of this attempt
            names = candidates.assign_object_ids(cursor, [(r["candid"], r["ra"], r["dec"], r["jd"], r["field"], r["rcid"]) for r in rows])
        field, rcid = self.name.field, self.cell.rcid
        seen = candidates.detection_counts([row["candid"] for row in rows], ra, dec, jd, field=field, rcid=rcid)
        around = {"ncovhist": candidates.coverage_counts(ra, dec, jd)}
        around |= packets.nearest_ps1(ra, dec, catalog_codec.read_ps1(root() / paths.ps1(field, self.ccdid, self.qid))[0])
        around |= packets.nearest_gaia(ra, dec, catalog_codec.read_gaia(root() / paths.gaia(field, self.ccdid, self.qid))[0])
        return [row | extra | {"objectid": names[row["candid"]], "ndethist": n, "jdstarthist": first, "jdendhist": last}
                for row, extra, (n, first, last) in zip(rows, packets.rows(around), seen, strict=True)]

    def history(self, rows: list[dict], jd: float, config) -> tuple[list, list]:
        """Earlier detections and upper limits at every place."""
        ra, dec = (np.array([row[axis] for row in rows]) for axis in ("ra", "dec"))
        span = jd - config.history_days, jd
        past = candidates.history(ra, dec, *span, radius_arcsec=config.match_radius_arcsec)
        limits = candidates.covering_limits(ra, dec, *span, detections=past)
        return ([[row | {"pdiffimfilename": archived(row["pdiffimfilename"])} for row in seen] for seen in past],
                [[row | {"pdiffimfilename": archived_of(row), "rbversion": NO_CLASSIFIER} for row in unseen] for unseen in limits])

    def cutouts(self, rows: list[dict]) -> list[dict[str, bytes]]:
        """Encoded stamps of every candidate; that of a negative one shows reference minus science."""
        stamps, _ = image_codec.read_pixels(self.difference().path("cutouts"))
        signs = [(1, 1, 1 if row["isdiffpos"] == "t" else -1) for row in rows]
        return [{word: alert_codec.encode_cutout(sign * stamp) for word, sign, stamp in zip(CUTOUTS.values(), three, group, strict=True)}
                for three, group in zip(signs, stamps, strict=True)]

    def ledger(self, cursor, pid: int, rows: list[dict]) -> None:
        """The packets' rows in the ledger, and what they say of their candidates."""
        file = str(self.files()["packets"])
        candidates.replace_alerts(cursor, pid, self.provid(), self.place()["night"],
                                  [{"candid": row["candid"], "objectid": row["objectid"], "programid": row["programid"], "file": file} for row in rows])
        candidates.update_events(cursor, pid, [{name: row[name] for name in ("candid", "objectid", "ndethist", "ncovhist", "jdstarthist",
                                                                            "jdendhist")} for row in rows])


def archived(filename: str) -> str:
    """Archive path of a difference image, as history records give it."""
    name = paths.ScienceName.parse(filename)
    return f"/ztf/{paths.science(name.raw, name.qid, name.suffix)}.fz"


def archived_of(limit: dict) -> str:
    """The same of a non-detection's row."""
    ccdid, qid = ccd_and_quadrant(limit["rcid"])
    name = paths.RawName(limit["exposure"], limit["field"], limit["filter"], ccdid, "o")
    return f"/ztf/{paths.science(name, qid, 'scimrefdiffimg.fits.fz')}"
