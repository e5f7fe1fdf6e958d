"""Raw files: ingest (paper 3.2) and split (paper 3.3)."""

from __future__ import annotations

from pathlib import Path

import luigi

from targets import paths, rawfiles
from targets.codecs import image as image_codec
from targets.codecs import raw as raw_codec
from targets.current import registry
from targets.registry import ExposureRow, RawFile
from targets.sealed import Stage, sha256
from ztfluigi.algorithms.overscan import subtract_overscan
from ztfluigi.model.errors import BadInput
from ztfluigi.model.ids import FILTERS, exposure_id, night_id, night_of
from ztfluigi.tasks.base import Built, Choice, Product
from ztfluigi.tasks.settings import camera, configuration, root


class _OfCcd:
    """What the name of a CCD's raw file says, looked up, never passed."""

    @property
    def name(self) -> paths.RawName:
        return rawfiles.find(root(), self.exposure, self.ccdid)

    def place(self) -> dict:
        return {"night": night_of(self.exposure), "exposure": self.exposure, "ccdid": self.ccdid, "field": self.name.field,
                "filter": self.name.filter}


class RawCcd(_OfCcd, luigi.ExternalTask):
    """One raw CCD file as the camera delivered it."""

    exposure = luigi.Parameter()
    ccdid = luigi.IntParameter()

    def output(self):
        return luigi.LocalTarget(str(rawfiles.locate(root(), self.name)))


class IngestCcd(_OfCcd, Choice):
    """A raw file checked and archived, or quarantined with the reason. Its id follows the bytes of the file."""

    exposure = luigi.Parameter()
    ccdid = luigi.IntParameter()
    frozen = ("sealed", "quarantined")

    def requires(self):
        return RawCcd(self.exposure, self.ccdid)

    def ingredients(self):
        return ()

    def complete(self) -> bool:
        """A new delivery in incoming is looked at, whatever was recorded before."""
        return not (root() / self.name.incoming).exists() and super().complete()

    def choose(self) -> list:
        return [self.name.filename, sha256(rawfiles.locate(root(), self.name))]

    def build(self, stage: Stage) -> Built:
        chosen = self.choose()
        try:
            summary = raw_codec.verify_raw(rawfiles.locate(root(), self.name), camera())
            archived = rawfiles.archive(root(), self.name)
        except BadInput as problem:
            aside = rawfiles.quarantine(root(), self.name, problem.reason)
            return Built(numbers={"chosen": chosen}, state="quarantined", reason=problem.reason,
                         also=self.file_row(aside, chosen[1], "quarantined", problem.reason))
        return Built(numbers={"chosen": chosen, **summary.numbers}, also=self.rows(summary, archived, chosen[1]),
                     place={"nid": night_id(summary.obsjd), "expid": exposure_id(summary.obsjd), "jd": summary.obsjd})

    def rows(self, summary: raw_codec.RawFile, archived: Path, digest: str):
        """Writer of the file's own row and, with the first file of an exposure, of the exposure's."""
        name, header = self.name, summary.header
        exposure = ExposureRow(name.exposure, night_of(name.exposure), name.type, night_id(summary.obsjd), exposure_id(summary.obsjd),
                               summary.obsjd, name.field, name.filter, FILTERS.get(name.filter), summary.exptime, header.get("TELRAD"),
                               header.get("TELDECD"), summary.programid, header.get("PROGRMPI"), dict(header))
        write_file = self.file_row(archived, digest, "sealed")

        def write(cursor) -> None:
            write_file(cursor)
            registry().put_exposure(exposure, cursor)

        return write

    def file_row(self, path: Path, digest: str, state: str, reason: str | None = None):
        """Writer of the raw file's own row, for the sealing transaction."""
        name = self.name
        row = RawFile(name.filename, night_of(name.exposure), state, name.exposure, name.ccdid, name.type, reason,
                      path=str(path.relative_to(root())), size=path.stat().st_size, sha256=digest)
        return lambda cursor: registry().put_raw_file(row, cursor)


class SplitCcd(_OfCcd, Product):
    """The four quadrants of a raw file, floating bias removed."""

    exposure = luigi.Parameter()
    ccdid = luigi.IntParameter()
    version = "1.1.0"
    sections = ("overscan",)

    def requires(self):
        return IngestCcd(self.exposure, self.ccdid)

    def files(self):
        return {f"q{qid}": paths.operations(self.name, qid, "") for ccdid, qid in camera().quadrants if ccdid == self.ccdid}

    def build(self, stage: Stage) -> Built:
        raw_path = root() / self.name.archived
        numbers = {}
        for role in self.files():
            pixels, overscan, cards = raw_codec.read_quadrant(raw_path, int(role[1:]))
            result = subtract_overscan(pixels, overscan, config=configuration("overscan"))
            image_codec.write_split(stage[role], result.data, cards, result.metrics)
            numbers |= {f"{role}_{name}": value for name, value in result.metrics.items()}
        return Built(numbers=numbers)
