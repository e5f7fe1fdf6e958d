"""Tests with synthetic sources: put into a science image, differenced in memory, looked for (paper 3.6)."""

from __future__ import annotations

import hashlib

import luigi
import numpy as np

from targets import paths
from targets.codecs import catalog as catalog_codec
from targets.sealed import Stage
from ztfluigi.algorithms import events, injection
from ztfluigi.model.config.injection import InjectionConfig
from ztfluigi.model.errors import BadInput
from ztfluigi.services import candidates, classifiers
from ztfluigi.tasks.base import Built, Product
from ztfluigi.tasks.difference import DifferenceImage, load_pair
from ztfluigi.tasks.science import OfQuadrant
from ztfluigi.tasks.scoring import scored
from ztfluigi.tasks.settings import configuration


class Injection(OfQuadrant, Product):
    """Completeness, flux and position errors of synthetic sources in one quadrant; nothing of them reaches candidates or alerts."""

    exposure = luigi.Parameter()
    ccdid = luigi.IntParameter()
    qid = luigi.IntParameter()
    version = "1.1.0"
    sections = ("difference", "events", "event_filter", "injection")
    kernels = True

    def requires(self):
        return DifferenceImage(self.exposure, self.ccdid, self.qid)

    def critical(self):
        return super().critical() | classifiers.versions()

    def files(self):
        return {"sources": paths.operations(self.name, self.qid, "injection.fits")}

    def build(self, stage: Stage) -> Built:
        sources, numbers = inject(self.requires(), seed=draw(self.exposure, self.ccdid, self.qid), config=configuration("injection"))
        catalog_codec.write_table(stage["sources"], sources, [("PROVID", self.provid(), "product id")], columns=injection.SOURCE, extname="INJECTION")
        return Built(numbers=numbers, place=self.numbers_of_time(self.requires().row().jd))


def inject(task: DifferenceImage, *, seed: int, config: InjectionConfig) -> tuple[np.ndarray, dict]:
    """(rows SOURCE, numbers) of synthetic sources in the science image of a difference whose products are sealed."""
    if config.min_snr >= config.max_snr:
        raise BadInput(f"[injection] min_snr = {config.min_snr:g} is not below max_snr = {config.max_snr:g}")
    pair = load_pair(*task.requires())
    faintest = float(task.row().numbers["diffmaglim"]) + 2.5 * np.log10(5.0)
    known = np.array([(row["xpos"] - 1.0, row["ypos"] - 1.0) for row in candidates.events(task.row().pid)]).reshape(-1, 2)
    placed = injection.place(pair.science, pair.psf, pair.magzp, faintest, pair.refcat, pair.reference.magzp, seed=seed, events=known,
                             config=config)
    image = injection.add(pair.science, pair.psf, placed, seed=seed)
    difference, found = pair.difference(image)
    passed = events.light_filter(found, config=configuration("event_filter")) == ""
    _, scores = scored(found, passed, (image.data, difference.reference, difference.data))
    sources = injection.recover(placed, pair.psf, difference, found, passed, scores["rb"], scores["drb"])
    return sources, injection.summarise(sources, pair.science.wcs.pixel_scale_arcsec)


def draw(exposure: str, ccdid: int, qid: int) -> int:
    """A number from 0 to 2^32 - 1 that is always the same for a quadrant."""
    return int.from_bytes(hashlib.sha256(f"{exposure}/{ccdid}/{qid}".encode()).digest()[:4], "big")


def tested(exposure: str, ccdid: int, qid: int) -> bool:
    """Whether the quadrant is of the share that Night tests."""
    return draw(exposure, ccdid, qid) < configuration("injection").share * 2**32
