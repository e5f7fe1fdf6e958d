"""Bias and flat masters (paper 3.4), and the frozen choices around them."""

from __future__ import annotations

from pathlib import Path

import luigi
import numpy as np

from targets import paths, rawfiles
from targets.codecs import fits
from targets.codecs import image as image_codec
from targets.current import registry
from targets.sealed import Stage
from ztfluigi.algorithms import masters, quality
from ztfluigi.model import infobits
from ztfluigi.model.errors import NoWork, Unusable
from ztfluigi.model.ids import FILTERS, calibration_id, night_jd, night_nid, rcid
from ztfluigi.tasks import headers
from ztfluigi.tasks.base import Built, Choice, Product
from ztfluigi.tasks.raw import SplitCcd
from ztfluigi.tasks.settings import camera, configuration, root


class CalibrationFrames(Choice):
    """Which raw frames of a night make a CCD's bias (filter `bi`) or flat; frozen once there are enough."""

    night = luigi.Parameter()
    filter = luigi.Parameter()
    ccdid = luigi.IntParameter()
    sections = ("masters",)

    def choose(self) -> list:
        letter = "b" if self.filter == "bi" else "f"
        return [name.exposure for name in rawfiles.of_night(root(), self.night)
                if (name.type, name.filter, name.ccdid) == (letter, self.filter, self.ccdid)]

    def build(self, stage: Stage) -> Built:
        chosen, needed = self.choose(), configuration("masters").minimum_frames
        if len(chosen) < needed:
            raise NoWork(f"night {self.night} has {len(chosen)} {self.filter} calibration frames of ccd {self.ccdid:02d}, {needed} are needed",
                         chosen=chosen)
        return Built(numbers={"chosen": chosen})


class _Master(Product):
    """A stacked calibration image of one night and quadrant."""

    night = luigi.Parameter()
    ccdid = luigi.IntParameter()
    qid = luigi.IntParameter()
    version = "1.1.0"
    sections = ("masters", "stack")
    caltype: str
    #: Which table of thresholds judges it.
    judged: str

    def frames(self) -> CalibrationFrames:
        return CalibrationFrames(self.night, self.filter, self.ccdid)

    def splits(self) -> list[SplitCcd]:
        return [SplitCcd(exposure, self.ccdid) for exposure in self.frames().chosen()]

    def requires(self):
        return [self.frames()]

    def requires_more(self):
        return self.splits() if self.frames().row().state == "sealed" else []

    def ingredients(self):
        return [*luigi.task.flatten(self.requires()), *self.splits()]

    def gates(self):
        return luigi.task.flatten(self.requires())

    def files(self):
        stem = lambda extension: paths.calibration(self.night, self.caltype, self.filter, self.ccdid, self.qid, extension)  # noqa: E731
        return {"image": stem(".fits"), "uncertainty": stem("unc.fits"), "statistics": stem("stat.fits"), "mask": stem("cmask.fits")}

    def good_frames(self) -> list:
        """Paths of the split frames that came out well; a quarantined frame is left out."""
        return [task.path(f"q{self.qid}") for task in self.splits() if task.row().state == "sealed"]

    def seal_master(self, stage: Stage, master: masters.Master, frames: list, numbers: dict) -> Built:
        """Write the five images and the mask, compare with the previous accepted master, and give the verdict; `numbers` are added to it."""
        nid, fid = night_nid(self.night), FILTERS.get(self.filter, 0)
        cid = calibration_id(nid, rcid(self.ccdid, self.qid), fid, self.caltype)
        metrics = {**master.metrics, **numbers, "nframes": len(frames), "cid": cid}
        before = previous(self.kind, self.night, self.filter, self.ccdid, self.qid)
        if before is not None:
            old, _ = image_codec.read_image(root() / before.files[0]["path"])
            metrics |= {**masters.compare(master.image, old), "compared_with": str(before.night)}
        bits, status = quality.judge_master(self.judged, metrics)
        cards = {"CID": cid, "NFRAMES": len(frames), "NIGHT": self.night, "FILTER": self.filter, "CCDID": self.ccdid, "QID": self.qid,
                 "PROVID": self.provid(), "INFOBITS": bits, "STATUS": status,
                 **{key: (number, text) for key, number, text in infobits.bit_cards(self.judged)}}
        image_codec.write_master(stage, master, cards)
        return Built(numbers=metrics, infobits=bits, usable=bool(status), reason=headers.sentence(self.judged, bits, status),
                     place={"nid": nid})


class BiasImage(_Master):
    """Master bias of a night (product 8)."""

    caltype = "bias"
    judged = "bias"
    filter = "bi"

    def place(self):
        return {**super().place(), "filter": "bi"}

    def build(self, stage: Stage) -> Built:
        frames = self.good_frames()
        read_rows = image_codec.row_reader(frames)
        master = masters.make_bias(read_rows, len(frames), camera().shape, stack_config=configuration("stack"), config=configuration("masters"))
        header = fits.read_header(frames[0])
        expected = float(header["READNOI"]) / float(header["GAIN"])
        return self.seal_master(stage, master, frames, {"read_noise_ratio": master.metrics["read_noise_dn"] / expected})


class FlatImage(_Master):
    """High-frequency flat of a night and filter (product 8)."""

    night = luigi.Parameter()
    filter = luigi.Parameter()
    ccdid = luigi.IntParameter()
    qid = luigi.IntParameter()
    caltype = "hifreqflat"
    judged = "flat"

    def bias(self) -> CalibrationChoice:
        return CalibrationChoice(self.night, "bi", self.ccdid, self.qid)

    def requires(self):
        return [self.frames(), self.bias()]

    def ingredients(self):
        return [*super().ingredients(), *self.bias().chosen_tasks()]

    def requires_more(self):
        return [*super().requires_more(), *self.bias().chosen_tasks()]

    def build(self, stage: Stage) -> Built:
        frames, mix = self.mixed(self.good_frames())
        bias, mask = self.bias().master()
        amplifier = camera().on(night_jd(self.night)).amplifier(self.ccdid, self.qid)
        mask |= prior_mask(self.ccdid, self.qid)
        master = masters.make_flat(image_codec.row_reader(frames), len(frames), camera().shape, bias=bias, mask=mask,
                                   nonlinearity=amplifier.nonlinearity, stack_config=configuration("stack"), config=configuration("masters"))
        return self.seal_master(stage, master, frames, mix)

    def mixed(self, frames: list[Path]) -> tuple[list[Path], dict]:
        """The frames in which the lamps of the filter take equal part, and the numbers of the mix."""
        leds = [fits.read_header(path).get("ILUM_LED") for path in frames]
        kept, numbers = masters.led_mix(leds, camera().filter(self.filter).leds, configuration("masters").minimum_frames)
        return [frames[i] for i in kept], numbers


class CalibrationChoice(Choice):
    """Which night's master serves a night: its own, or the most recent usable one before it. Frozen, and the product says which.

    With a flat serves the most recent usable low-frequency flat of an earlier night, when there is one: then its night is chosen too.
    """

    night = luigi.Parameter()
    filter = luigi.Parameter()
    ccdid = luigi.IntParameter()
    qid = luigi.IntParameter()

    def master_task(self, night: str) -> _Master:
        if self.filter == "bi":
            return BiasImage(night, self.ccdid, self.qid)
        return FlatImage(night, self.filter, self.ccdid, self.qid)

    def requires(self):
        return self.master_task(self.night)

    def choose(self) -> list:
        row = registry().current(self.requires().kind, self.requires().key)
        if row is None or row.state != "sealed":
            row = previous(self.requires().kind, self.night, self.filter, self.ccdid, self.qid)
        low = None if self.filter == "bi" else previous("LowFrequencyFlat", self.night, self.filter, self.ccdid, self.qid)
        return [str(one.night) for one in (row, low) if one is not None] if row is not None else []

    def build(self, stage: Stage) -> Built:
        chosen, kind = self.choose(), self.requires().kind
        if not chosen:
            raise Unusable(f"no usable {kind} for {self.filter} ccd {self.ccdid:02d} q{self.qid} on or before {self.night}", chosen=chosen)
        own = chosen[0] == self.night
        return Built(numbers={"chosen": chosen}, reason="" if own else f"{kind} of {chosen[0]} serves: {self.requires().row().reason}")

    def chosen_tasks(self) -> list[Product]:
        """The master that serves, and the low-frequency flat if one does; empty while there is no master."""
        from ztfluigi.tasks.low_flat import LowFrequencyFlat  # it is made of what is calibrated with this choice

        chosen = self.chosen()
        return [*(self.master_task(night) for night in chosen[:1]),
                *(LowFrequencyFlat(night, self.filter, self.ccdid, self.qid) for night in chosen[1:])]

    def master(self) -> tuple[np.ndarray, np.ndarray]:
        """(image float32, mask uint16) of the master that serves."""
        task = self.chosen_tasks()[0]
        image, _ = image_codec.read_image(task.path("image"))
        mask, _ = image_codec.read_mask(task.path("mask"))
        return image, mask


    def low_flat(self) -> np.ndarray | None:
        """The low-frequency flat that serves, float32, or None; one that was made again and came out badly serves no more."""
        tasks = [task for task in self.chosen_tasks()[1:] if task.row().state == "sealed"]
        return image_codec.read_image(tasks[0].path("image"))[0] if tasks else None


def prior_mask(ccdid: int, qid: int) -> np.ndarray:
    """The owner's bad-pixel mask of a quadrant, uint16, empty when there is none."""
    path = root() / paths.pixel_mask(ccdid, qid)
    return image_codec.read_mask(path)[0] if path.exists() else np.zeros(camera().shape, np.uint16)


def previous(kind: str, night: str, filter_code: str, ccdid: int, qid: int):
    """The most recent usable master before a night, or None."""
    rows = [row for row in registry().select(kind, filter=filter_code, ccdid=ccdid, qid=qid) if str(row.night) < night]
    return max(rows, key=lambda row: str(row.night), default=None)
