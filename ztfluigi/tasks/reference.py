"""Reference images and their catalogues (paper 3.7)."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import tempfile

import luigi
import numpy as np

from targets import paths
from targets.codecs import catalog as catalog_codec
from targets.codecs import daophot, fits
from targets.codecs import image as image_codec
from targets.current import registry
from targets.sealed import Stage
from ztfluigi.algorithms import coadd, quality
from ztfluigi.algorithms.catalogue import measure_quadrant
from ztfluigi.model import header_cards, infobits
from ztfluigi.model.errors import BadInput, NoWork
from ztfluigi.model.ids import FILTERS, SkyCell
from ztfluigi.model.images import Calibrated, Coadd
from ztfluigi.model.wcs import TpvWcs
from ztfluigi.tasks import headers
from ztfluigi.tasks.base import GOOD, Built, Choice, Product, whole
from ztfluigi.tasks.science import ScienceImage, load_science
from ztfluigi.tasks.settings import camera, configuration, root, sections


class OfReference:
    """A product of the survey's reference, or of a reference of one's own that cannot hold what is later than a night or in some exposures.

    `before` (YYYY-MM-DD: only epochs of earlier nights) and `exclude` (exposures, separated by commas) are identity. Without them the key,
    the path and the registry columns are those of the survey; with them they are apart, and the survey never picks them up.
    """

    @property
    def key(self) -> str:
        words = [str(getattr(self, name)) for name, _ in self.get_params() if name not in ("before", "exclude")]
        words += [f"before={self.before}"] if self.before else []
        return "/".join(words + ([f"exclude={','.join(self.excluded)}"] if self.excluded else []))

    @property
    def excluded(self) -> list[str]:
        """The excluded exposures, sorted."""
        found = sorted({word.strip() for word in self.exclude.split(",") if word.strip()})
        if bad := [word for word in found if not (word.isdigit() and len(word) == 14)]:
            raise BadInput(f"exclude: {bad[0]!r} is not an exposure, expected 14 digits, several separated by commas")
        return found

    @property
    def variant(self) -> str:
        """Name of the folder of what is of one's own; empty for the survey."""
        words = [f"before{self.last_night}"] if self.before else []
        words += [f"without{hashlib.sha256(','.join(self.excluded).encode()).hexdigest()[:12]}"] if self.excluded else []
        return "_".join(words)

    @property
    def last_night(self) -> str:
        """`before` as YYYYMMDD."""
        try:
            return datetime.date.fromisoformat(self.before).strftime("%Y%m%d")
        except ValueError as error:
            raise BadInput(f"before: {self.before!r} is not a night, expected YYYY-MM-DD") from error

    def place(self) -> dict:
        return {} if self.variant else super().place()


class _OfCell(OfReference):
    """One field, filter and quadrant."""

    @property
    def cell(self) -> SkyCell:
        return SkyCell(self.field, self.filter, self.ccdid, self.qid)

    def path_of(self, tail: str):
        """Path of one of its files."""
        return paths.reference(self.cell, tail, self.variant)

    def admits(self, exposure: str) -> bool:
        """Whether an exposure may be in it."""
        return exposure not in self.excluded and (not self.before or exposure[:8] < self.last_night)


class _Locked:
    """A product that is kept as it is once sealed (vbest 2), whatever becomes of settings and versions, while its files are whole.

    `ztf reference unlock` (the mark vbest 1) unlocks it: then the next request makes it again if it is stale.
    """

    def locked(self) -> bool:
        row = registry().current(self.kind, self.key)
        return row is not None and row.vbest == 2 and whole(row)

    def settled_provid(self) -> tuple[str, bool]:
        return (registry().current(self.kind, self.key).provid, True) if self.locked() else super().settled_provid()

    def _seal(self, clock) -> None:
        before = registry().current(self.kind, self.key)
        if before is not None and before.vbest == 2:  # its files are lost
            registry().mark(self.kind, self.key, vbest=1)
        super()._seal(clock)
        if self.row().state == GOOD:
            registry().mark(self.kind, self.key, vbest=2)


class ReferenceInputs(_OfCell, Choice):
    """The 15 to 40 epochs of a reference, best seeing first; frozen when there are enough."""

    field = luigi.IntParameter()
    filter = luigi.Parameter()
    ccdid = luigi.IntParameter()
    qid = luigi.IntParameter()
    before = luigi.Parameter(default="")
    exclude = luigi.Parameter(default="")
    sections = ("reference_inputs",)

    def choose(self) -> list:
        epochs = registry().select("ScienceImage", field=self.field, filter=self.filter, ccdid=self.ccdid, qid=self.qid)
        epochs = [row for row in epochs if self.admits(row.exposure)]
        table = headers.epoch_table(epochs, camera().pixel_scale_arcsec)
        config = dataclasses.replace(configuration("reference_inputs"), min_inputs=0)  # too few is a verdict of build()
        return [epochs[i].exposure for i in coadd.select_inputs(table, filter_code=self.filter, config=config)]

    def build(self, stage: Stage) -> Built:
        chosen, needed = self.choose(), configuration("reference_inputs").min_inputs
        if len(chosen) < needed:
            raise NoWork(f"no reference for {self.cell}: {len(chosen)} good epochs, {needed} are needed", chosen=chosen)
        return Built(numbers={"chosen": chosen})


class ReferenceImage(_Locked, _OfCell, Product):
    """The co-add of the chosen epochs, with depth and uncertainty (product 6); locked once sealed."""

    field = luigi.IntParameter()
    filter = luigi.Parameter()
    ccdid = luigi.IntParameter()
    qid = luigi.IntParameter()
    before = luigi.Parameter(default="")
    exclude = luigi.Parameter(default="")
    version = "1.1.0"
    sections = ("reference",)
    kernels = True

    def inputs(self) -> ReferenceInputs:
        return ReferenceInputs(self.field, self.filter, self.ccdid, self.qid, self.before, self.exclude)

    def epochs(self) -> list[ScienceImage]:
        return [ScienceImage(exposure, self.ccdid, self.qid) for exposure in self.inputs().chosen()]

    def requires(self):
        return [self.inputs()]

    def requires_more(self):
        return self.epochs() if self.inputs().row().state == "sealed" else []

    def ingredients(self):
        return [self.inputs(), *self.epochs()]

    def gates(self):
        return self.requires()

    def files(self):
        return {role: self.path_of(f"{role}.fits") for role in ("refimg", "refcov", "refunc")}

    def build(self, stage: Stage) -> Built:
        epochs = [task for task in self.epochs() if task.row().state == "sealed"]
        cards = [fits.read_header(task.path("image")) for task in epochs]
        wcs, shape = coadd.footprint([TpvWcs.from_cards(header) for header in cards], [camera().shape] * len(cards))
        with tempfile.TemporaryFile(dir=root() / "ops") as scratch:
            planes = np.memmap(scratch, np.float32, "w+", shape=(len(epochs), *shape))
            result = coadd.coadd(lambda i: load_science(epochs[i])[0], [float(header["MAGZP"]) for header in cards], wcs=wcs, shape=shape,
                                 filter_code=self.filter, scratch=planes, config=configuration("reference"))
        bits, status = quality.judge_reference(result.metrics)
        values = {**headers.reference_values(self, cards), "MAGZP": result.magzp, "SATURATE": result.saturate, "INFOBITS": bits, "STATUS": status}
        image_codec.write_reference(stage, result, header_cards.reference_cards(values, bits=infobits.bit_cards("reference")))
        return Built(numbers={**result.metrics, "JDSTART": values["JDSTART"], "JDEND": values["JDEND"]}, infobits=bits, usable=bool(status),
                     reason=headers.sentence("reference", bits, status),
                     place={} if self.variant else {**headers.footprint(wcs, shape), "fid": FILTERS[self.filter]})


class ReferenceCatalog(_Locked, _OfCell, Product):
    """PSF-fit and aperture catalogues of a reference (product 7)."""

    field = luigi.IntParameter()
    filter = luigi.Parameter()
    ccdid = luigi.IntParameter()
    qid = luigi.IntParameter()
    before = luigi.Parameter(default="")
    exclude = luigi.Parameter(default="")
    version = "1.2.0"
    sections = ("background", "psf", "psf_photometry", "apertures")
    kernels = True

    def requires(self):
        return ReferenceImage(self.field, self.filter, self.ccdid, self.qid, self.before, self.exclude)

    def files(self):
        catalogues = {role: self.path_of(f"{role}.fits") for role in ("refpsfcat", "refsexcat")}
        return {**catalogues, "psf": self.path_of("refpsfmodel.fits")}

    def build(self, stage: Stage) -> Built:
        image = self.requires()
        reference, header = image_codec.read_reference({role: image.path(role) for role in image.files()})
        result = measure_quadrant(as_quadrant(reference), zero_point=reference.magzp, config=sections(self.sections))
        values = {**headers.catalogue_values(result), "PROVID": self.provid()}
        cards = header_cards.catalog_cards({**header, **values})
        catalog_codec.write_psfcat(stage["refpsfcat"], result.psfcat, cards)
        catalog_codec.write_sexcat(stage["refsexcat"], result.sexcat, cards)
        daophot.write_psf_model(stage["psf"], result.psf)
        return Built(numbers={**result.metrics, **values})


def as_quadrant(reference: Coadd) -> Calibrated:
    """A reference in the form the catalogue step takes; uncovered pixels hold zero and a mask bit.

    The noise is that of sums of many correlated pixels, which PSF fits and apertures are.
    """
    covered = np.isfinite(reference.data)
    sigma = np.where(np.isfinite(reference.sigma), reference.sigma, np.float32(np.nanmedian(reference.sigma[covered])))
    sigma *= np.float32(reference.noise_correlation)
    return Calibrated(np.where(covered, reference.data, np.float32(0)), sigma, reference.mask, reference.gain, 0.0, reference.saturate,
                      reference.wcs)


def usable_reference(cell: SkyCell):
    """Registry row of the usable reference catalogue of a cell, or None."""
    rows = registry().select("ReferenceCatalog", field=cell.field, filter=cell.filter, ccdid=cell.ccdid, qid=cell.qid)
    return rows[0] if rows else None
