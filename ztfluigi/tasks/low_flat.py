"""Low-frequency flat of a quadrant and filter (paper 3.4.2), from the photometric residuals of many exposures; made on request."""

from __future__ import annotations

import luigi
import numpy as np

from targets import paths
from targets.codecs import catalog as catalog_codec
from targets.codecs import image as image_codec
from targets.current import registry
from targets.registry import Between
from targets.sealed import Stage
from ztfluigi.algorithms import low_flat, quality
from ztfluigi.algorithms.photometric_calibration import fit_zero_point
from ztfluigi.model import infobits
from ztfluigi.model.errors import NoWork
from ztfluigi.model.ids import FILTERS, calibration_id, night_nid, night_of, rcid
from ztfluigi.tasks import headers
from ztfluigi.tasks.base import Built, Choice, Product
from ztfluigi.tasks.calibration import CalibrationChoice
from ztfluigi.tasks.science import SourceCatalog
from ztfluigi.tasks.settings import camera, configuration, root


class LowFlatInputs(Choice):
    """Which exposures up to a night make the low-frequency flat: the newest good ones; frozen when there are enough."""

    night = luigi.Parameter()
    filter = luigi.Parameter()
    ccdid = luigi.IntParameter()
    qid = luigi.IntParameter()
    sections = ("low_flat",)

    def choose(self) -> list:
        config = configuration("low_flat")
        rows = registry().select("SourceCatalog", filter=self.filter, ccdid=self.ccdid, qid=self.qid, night=Between(high=self.night))
        ours = registry().current_many("CalibratedImage", [row.key for row in rows])  # not what `ztf adopt` brought
        good = [row.exposure for row in rows if row.key in ours and (row.numbers.get("MAGZPRMS") or np.inf) <= config.max_magzprms]
        return sorted(good)[-config.maximum_frames:]

    def build(self, stage: Stage) -> Built:
        chosen, needed = self.choose(), configuration("low_flat").minimum_frames
        if len(chosen) < needed:
            raise NoWork(f"no low-frequency flat of {self.filter} ccd {self.ccdid:02d} q{self.qid} up to {self.night}: {len(chosen)} good "
                         f"exposures, {needed} are needed", chosen=chosen)
        return Built(numbers={"chosen": chosen})


class LowFrequencyFlat(Product):
    """What the lamps get wrong on large scales. Nights after its own use it, once their flat is chosen (`CalibrationChoice`)."""

    night = luigi.Parameter()
    filter = luigi.Parameter()
    ccdid = luigi.IntParameter()
    qid = luigi.IntParameter()
    sections = ("low_flat", "zero_point")

    def inputs(self) -> LowFlatInputs:
        return LowFlatInputs(self.night, self.filter, self.ccdid, self.qid)

    def catalogues(self) -> list[SourceCatalog]:
        return [SourceCatalog(exposure, self.ccdid, self.qid) for exposure in self.inputs().chosen()]

    def requires(self):
        return [self.inputs()]

    def requires_more(self):
        return self.catalogues() if self.inputs().row().state == "sealed" else []

    def ingredients(self):
        return [self.inputs(), *self.catalogues()]

    def gates(self):
        return self.requires()

    def files(self):
        return {"image": paths.low_flat(self.night, self.filter, self.ccdid, self.qid),
                "uncertainty": paths.low_flat(self.night, self.filter, self.ccdid, self.qid, "unc.fits")}

    def build(self, stage: Stage) -> Built:
        rows = [self.residuals(task) for task in self.catalogues() if task.row().state == "sealed"]
        exposure = np.repeat(np.arange(len(rows)), [len(table) for table in rows])
        stars = np.concatenate(rows) if rows else np.zeros(0, [(name, "f4") for name in ("x", "y", "residual", "uncertainty")])
        flat = low_flat.fit(stars["x"], stars["y"], stars["residual"], stars["uncertainty"], exposure, camera().shape,
                            config=configuration("low_flat"))
        bits, status = quality.judge_master("low_flat", flat.metrics)
        cid = calibration_id(night_nid(self.night), rcid(self.ccdid, self.qid), FILTERS[self.filter], "lofreqflat")
        cards = [("CID", cid, ""), ("NFRAMES", len(rows), ""), ("NIGHT", self.night, ""), ("FILTER", self.filter, ""), ("CCDID", self.ccdid, ""),
                 ("QID", self.qid, ""), ("PROVID", self.provid(), ""), ("INFOBITS", bits, ""), ("STATUS", status, ""),
                 *infobits.bit_cards("low_flat")]
        image_codec.write_image(stage["image"], flat.image, cards)
        image_codec.write_image(stage["uncertainty"], flat.uncertainty, cards)
        return Built(numbers={**flat.metrics, "cid": cid}, infobits=bits, usable=bool(status), place={"nid": night_nid(self.night)},
                     reason=headers.sentence("low_flat", bits, status))

    def residuals(self, task: SourceCatalog) -> np.ndarray:
        """RESIDUAL rows of the calibrators an exposure used, as they would be without the low-frequency flat it was divided by."""
        name = task.name
        ps1 = catalog_codec.read_ps1(root() / paths.ps1(name.field, self.ccdid, self.qid))[0]
        psfcat = catalog_codec.read_psfcat(task.path("psfcat"))[0]
        table = fit_zero_point(psfcat, ps1, filter_code=self.filter, shape=camera().shape, config=configuration("zero_point")).residuals
        table = table[table["used"]]
        divided = CalibrationChoice(night_of(task.exposure), self.filter, self.ccdid, self.qid).low_flat()
        if divided is not None:
            table["residual"] += 2.5 * np.log10(divided[np.rint(table["y"]).astype(int), np.rint(table["x"]).astype(int)])
        return table
