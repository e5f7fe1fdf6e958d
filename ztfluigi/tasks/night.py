"""Everything an exposure or a night can give."""

from __future__ import annotations

import luigi

from targets import rawfiles
from targets.current import registry
from targets.sealed import Stage
from ztfluigi.model.errors import BadInput
from ztfluigi.model.ids import SkyCell, night_code, night_nid, rcid
from ztfluigi.services import broker, candidates
from ztfluigi.tasks import process, progress
from ztfluigi.tasks.alert_archive import archives
from ztfluigi.tasks.alerts import AlertPackets
from ztfluigi.tasks.base import Built, Choice, Product
from ztfluigi.tasks.calibration import BiasImage, FlatImage
from ztfluigi.tasks.delivery import AlertDelivery
from ztfluigi.tasks.difference import DifferenceImage
from ztfluigi.tasks.injection import Injection, tested
from ztfluigi.tasks.raw import SplitCcd
from ztfluigi.tasks.reference import ReferenceCatalog, ReferenceInputs, usable_reference
from ztfluigi.tasks.science import ScienceImage, SourceCatalog, OfQuadrant
from ztfluigi.tasks.settings import camera, configuration, root


class Quadrant(OfQuadrant, Choice):
    """The real-time chain of one quadrant, as far as it can go, and the one row that says what became of it.

    Whether it ends at the science image or goes on to alerts is decided once: by whether a usable reference existed then.
    """

    exposure = luigi.Parameter()
    ccdid = luigi.IntParameter()
    qid = luigi.IntParameter()
    frozen = ("sealed", "unusable", "nothing-to-do", "quarantined")

    def choose(self) -> list:
        return ["alerts" if usable_reference(self.cell) else "science"]

    def requires(self):
        kinds = [ScienceImage, SourceCatalog]
        if self.chosen() == ["alerts"]:
            kinds += [DifferenceImage, AlertPackets]
        return [kind(self.exposure, self.ccdid, self.qid) for kind in kinds]

    def complete(self) -> bool:
        """Its own row and every product of the chain: a product deleted half-way is missed, and only it is rebuilt."""
        return super().complete() and all(task.complete() for task in self.requires())

    def build(self, stage: Stage) -> Built:
        chosen = self.chosen()
        numbers = {"chosen": chosen}
        ended = next((row for row in (task.row() for task in self.requires()) if row.state != "sealed" and row.kind != "AlertPackets"), None)
        if ended is not None:
            return Built(numbers=numbers, state=ended.state, reason=ended.reason, infobits=ended.infobits or 0)
        if chosen == ["science"]:
            epochs, needed = self.reference_inputs().choose(), configuration("reference_inputs").min_inputs
            return Built(numbers=numbers, state="nothing-to-do",
                         reason=f"no usable reference for {self.cell}: {len(epochs)} good epochs, {needed} are needed")
        return Built(numbers=numbers)

    def reference_inputs(self) -> ReferenceInputs:
        cell = self.cell
        return ReferenceInputs(cell.field, cell.filter, cell.ccdid, cell.qid)


class ExposureProducts(luigi.WrapperTask):
    """All that one exposure can give: the chain of every quadrant for a sky exposure, split frames for a calibration."""

    exposure = luigi.Parameter()

    def requires(self):
        names = rawfiles.of_exposure(root(), self.exposure)
        if not names:
            process.refuse(BadInput(f"exposure {self.exposure} has no raw file under {root()}"))
        return [task for name in names for task in self.of_ccd(name)]

    @staticmethod
    def of_ccd(name) -> list[Product]:
        """The tasks one CCD's raw file asks for."""
        if name.type == "o":
            return [Quadrant(name.exposure, name.ccdid, qid) for ccdid, qid in camera().quadrants if ccdid == name.ccdid]
        return [SplitCcd(name.exposure, name.ccdid)]


class Exposure(luigi.WrapperTask):
    """The products of one exposure, and their delivery where a broker is named."""

    exposure = luigi.Parameter()

    def requires(self):
        return [ExposureProducts(self.exposure), *deliveries(rawfiles.of_exposure(root(), self.exposure))]


class NightProducts(Choice):
    """All that a night can give: calibrations, the chain of every exposure, then the references that have become possible.

    It ends in success when every product of the night is sealed or has a recorded reason why it cannot be.
    """

    night = luigi.Parameter()

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        progress.root_night(self.night)

    def ingredients(self):
        return ()

    def names(self) -> list:
        """Raw files of the night; BadInput when there are none."""
        names = rawfiles.of_night(root(), self.night)
        if not names:
            raise BadInput(f"night {self.night} has no raw files under {root() / 'incoming' / night_code(self.night)} or in the archive")
        return names

    def masters(self) -> list[Product]:
        """The bias and flat of every quadrant and filter that has calibration frames tonight."""
        kinds = sorted({(name.type, name.filter, name.ccdid) for name in self.names() if name.type in "bf"})
        return [BiasImage(self.night, ccdid, qid) if letter == "b" else FlatImage(self.night, code, ccdid, qid)
                for letter, code, ccdid in kinds for ccd, qid in camera().quadrants if ccd == ccdid]

    def requires(self):
        return [*self.masters(), *(ExposureProducts(exposure) for exposure in sorted({name.exposure for name in self.names()}))]

    def requires_more(self):
        """The night's tarballs of alerts; references of cells observed tonight that have none and now have enough good epochs (paper 3.7)."""
        cells = {SkyCell(name.field, name.filter, name.ccdid, qid) for name in self.names() if name.type == "o"
                 for ccdid, qid in camera().quadrants if ccdid == name.ccdid}
        wanted = [ReferenceInputs(cell.field, cell.filter, cell.ccdid, cell.qid) for cell in sorted(cells)]
        needed = configuration("reference_inputs").min_inputs
        return [*self.injections(), *archives(self.night),
                *(ReferenceCatalog(task.field, task.filter, task.ccdid, task.qid) for task in wanted if len(task.chosen()) >= needed)]

    def injections(self) -> list[Product]:
        """Tests with synthetic sources of a share of tonight's differences."""
        quadrants = [Quadrant(name.exposure, name.ccdid, qid) for name in self.names() if name.type == "o"
                     for ccdid, qid in camera().quadrants if ccdid == name.ccdid and tested(name.exposure, ccdid, qid)]
        return [Injection(task.exposure, task.ccdid, task.qid) for task in quadrants if task.chosen() == ["alerts"]]

    def choose(self) -> list:
        return sorted({name.filename for name in self.names()})

    def complete(self) -> bool:
        return super().complete() and all(task.complete() for task in [*self.requires(), *self.requires_more()])

    def build(self, stage: Stage) -> Built:
        # the candidates table is made ready for the night to come (paper 2.3)
        candidates.prepare([night_nid(self.night) + 1], [rcid(ccdid, qid) for ccdid, qid in camera().quadrants])
        return Built(numbers={"chosen": self.choose(), "counts": registry().counts(self.night)})


class Night(luigi.WrapperTask):
    """The products of a night, and their delivery where a broker is named. Nothing of the night waits for the broker."""

    night = luigi.Parameter()

    def requires(self):
        return [NightProducts(self.night), *deliveries(rawfiles.of_night(root(), self.night))]


def deliveries(names) -> list[AlertDelivery]:
    """The deliveries that raw files ask for: of every quadrant whose chain goes on to alerts; none without a broker."""
    if not broker.configured():
        return []
    quadrants = [Quadrant(name.exposure, name.ccdid, qid) for name in names if name.type == "o"
                 for ccdid, qid in camera().quadrants if ccdid == name.ccdid]
    return [AlertDelivery(one.exposure, one.ccdid, one.qid) for one in quadrants if one.chosen() == ["alerts"]]
