"""Difference images and the events on them (paper 3.6)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath

import luigi
import numpy as np
from numpy.lib.recfunctions import append_fields

from targets import paths
from targets.codecs import catalog as catalog_codec
from targets.codecs import daophot
from targets.codecs import image as image_codec
from targets.registry import PACKET
from targets.sealed import Stage
from ztfluigi.algorithms import events, identity, limits, quality
from ztfluigi.algorithms.subtract import Difference, subtract
from ztfluigi.model import header_cards, infobits
from ztfluigi.model.event_columns import EVENT
from ztfluigi.model.header import Header
from ztfluigi.model.ids import event_number
from ztfluigi.model.images import Calibrated, Coadd
from ztfluigi.model.maskbits import UNUSABLE
from ztfluigi.model.psf import PsfModel
from ztfluigi.model.wcs import TpvWcs
from ztfluigi.services import candidates, classifiers, coverage
from ztfluigi.tasks import headers
from ztfluigi.tasks.base import Built, Product
from ztfluigi.tasks.reference import OfReference, ReferenceCatalog, ReferenceImage
from ztfluigi.tasks.science import OfQuadrant, ScienceImage, SourceCatalog, load_science
from ztfluigi.tasks.scoring import scored
from ztfluigi.tasks.settings import configuration


class DifferenceImage(OfReference, OfQuadrant, Product):
    """Science minus reference, its PSF, and a row for every event of either sign (product 5), scored where it becomes a packet.

    Against a reference of one's own (`before`, `exclude`) the events stand in a file beside the image: none becomes a candidate or a packet.
    """

    exposure = luigi.Parameter()
    ccdid = luigi.IntParameter()
    qid = luigi.IntParameter()
    before = luigi.Parameter(default="")
    exclude = luigi.Parameter(default="")
    version = "1.5.1"
    sections = ("difference", "events", "event_filter")
    kernels = True

    def critical(self):
        return super().critical() | classifiers.versions()

    def requires(self):
        cell = self.cell
        return [ScienceImage(self.exposure, self.ccdid, self.qid), SourceCatalog(self.exposure, self.ccdid, self.qid),
                *(kind(cell.field, cell.filter, cell.ccdid, cell.qid, self.before, self.exclude) for kind in (ReferenceImage, ReferenceCatalog))]

    def files(self):
        suffixes = {"image": "scimrefdiffimg.fits.fz", "psf": "diffimgpsf.fits"} | ({"events": "diffevents.fits"} if self.variant else {})
        return {**{role: paths.science(self.name, self.qid, suffix, self.variant) for role, suffix in suffixes.items()},
                "cutouts": paths.operations(self.name, self.qid, "cutouts.fits", self.variant)}

    def build(self, stage: Stage) -> Built:
        pair = load_pair(*self.requires())
        science, header, reference, ref_header = pair.science, pair.header, pair.reference, pair.ref_header
        difference, found = pair.difference(science)
        ids = self.numbers_of_time(float(header["OBSJD"]))
        if not self.variant:
            found["tblid"] = self.kept_numbers(ids["pid"], found, science.wcs)
        metrics = difference.metrics | {"n_events": len(found), "flux_ratio_relative":
                                        difference.metrics["flux_ratio"] / 10.0 ** (0.4 * (difference.magzp - reference.magzp))}
        bits, status = quality.judge_difference(metrics, filter_code=self.name.filter)
        fates = events.light_filter(found, config=configuration("event_filter")) if status else np.full(len(found), "difference not usable")
        stamps, scores = scored(found, fates == "", (science.data, difference.reference, difference.data))
        fates = np.where(fates == "", PACKET, fates)
        rows = headers.candidate_rows(self, ids, found, fates, header, ref_header, scores)
        self.write(stage, difference, metrics, header, ref_header, bits, status)
        if self.variant:
            order = np.argsort([row["candid"] for row in rows])
            table = append_fields(found, ("fate", "rb", "drb"), (fates.astype("U64"), scores["rb"], scores["drb"]), usemask=False)[order]
            catalog_codec.write_table(stage["events"], table, [("PROVID", self.provid(), "product id")], columns=EVENT, extname="EVENTS")
        stamps = stamps[np.argsort([row["candid"] for row in rows if row["fate"] == PACKET])]
        image_codec.write_image(stage["cutouts"], stamps if len(stamps) else np.zeros((1, 1, 1, 1), np.float32))
        bad = (difference.mask & np.uint16(UNUSABLE)) != 0
        local = limits.local_limits(difference.data, bad, lambda x, y: np.sum(difference.psf_at(x, y) ** 2, axis=(-2, -1)), difference.magzp)
        numbers = {**metrics, **headers.image_numbers(header), **headers.forced_numbers(header, self.requires()[1].row()),
                   "n_candidates": len(stamps)}

        def rows_of_image(cursor) -> None:
            candidates.replace_events(cursor, ids["pid"], self.provid(), ids["nid"], self.cell.rcid, rows)
            coverage.replace_limits(cursor, ids["pid"], local)

        verdict = Built(numbers=numbers, infobits=bits, usable=bool(status), reason=headers.sentence("difference", bits, status))
        if not self.variant:
            verdict.place, verdict.also = {**ids, **headers.footprint(science.wcs, science.data.shape)}, rows_of_image
        return verdict

    def kept_numbers(self, pid: int, found: np.ndarray, wcs: TpvWcs) -> np.ndarray:
        """Event numbers under which this image's events are known already, should it be made again."""
        old = candidates.numbered(pid)
        number, positive = event_number(old["candid"])
        return identity.kept_numbers(found["tblid"], np.where(found["isdiffpos"] == "t", 1, -1), found["xpos"] - 1.0, found["ypos"] - 1.0,
                                     number, np.where(positive, 1, -1), *wcs.pixel(old["ra"], old["dec"]))

    def write(self, stage: Stage, difference, metrics: dict, header: Header, ref_header: Header, bits: int, status: int) -> None:
        """The difference image with its header, and its PSF."""
        reference = PurePosixPath(self.variant, paths.reference(self.cell, "refimg.fits").name)
        values = {"REFFILE": str(reference), "DBRFID": ref_header["DBRFID"], "NFRAMREF": ref_header["NFRAMES"],
                  "JDSTREF": ref_header["JDSTART"], "JDENDREF": ref_header["JDEND"], "REFMAGZP": ref_header["MAGZP"],
                  "FLXRATIO": metrics["flux_ratio"], "DIFSIGPX": metrics["noise"], "DIFFWHM": metrics["fwhm_difference"],
                  "DIFFLIM": metrics["diffmaglim"], "NEVENTS": metrics["n_events"], "INFOBITS": bits, "STATUS": status,
                  "CREATED": headers.created(), "PROVID": self.provid()}
        cards = header_cards.difference_cards(header, values, bits=infobits.bit_cards("difference"))
        # as in the archive of the survey, a pixel that is not to be used has no value
        pixels = np.where(difference.mask & np.uint16(UNUSABLE), np.float32(np.nan), difference.data)
        image_codec.write_difference(stage["image"], pixels, cards, noise=metrics["noise"])
        image_codec.write_difference_psf(stage["psf"], difference.psf, difference.psf_grid, {"PROVID": self.provid()})


@dataclass
class Pair:
    """What a difference is made of: science image and reference, their headers, PSFs and PSF catalogues."""

    science: Calibrated
    header: Header
    psf: PsfModel
    psfcat: np.ndarray
    reference: Coadd
    ref_header: Header
    refcat: np.ndarray

    @property
    def magzp(self) -> float:
        """Zero point of the science image."""
        return float(self.header["MAGZP"])

    def difference(self, science: Calibrated) -> tuple[Difference, np.ndarray]:
        """(difference, events) of the science image, or of a copy of it with sources added."""
        made = subtract(science, self.psf, self.magzp, self.reference, psfcat_sci=self.psfcat, psfcat_ref=self.refcat,
                        config=configuration("difference"))
        return made, events.extract(made, wcs=science.wcs, psfcat_ref=self.refcat, reference_magzp=self.reference.magzp,
                                    config=configuration("events"))


def load_pair(science: ScienceImage, catalog: SourceCatalog, reference: ReferenceImage, refcat: ReferenceCatalog) -> Pair:
    """The sealed products that a difference is made of."""
    image, header = load_science(science)
    coadded, ref_header = image_codec.read_reference({role: reference.path(role) for role in reference.files()},
                                                     daophot.read_psf_model(refcat.path("psf")))
    return Pair(image, header, daophot.read_psf_model(catalog.path("psf")), catalog_codec.read_psfcat(catalog.path("psfcat"))[0], coadded,
                ref_header, catalog_codec.read_psfcat(refcat.path("refpsfcat"))[0])
