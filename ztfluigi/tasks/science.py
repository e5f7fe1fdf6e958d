"""Epochal science products (paper 3.5): calibrated quadrant, catalogues, science image."""

from __future__ import annotations

import luigi
import numpy as np

from targets import paths, rawfiles
from targets.codecs import catalog as catalog_codec
from targets.codecs import daophot
from targets.codecs import image as image_codec
from targets.current import registry
from targets.sealed import Stage
from ztfluigi.algorithms.catalogue import mark_sources, measure_quadrant
from ztfluigi.algorithms.instrumental import reduce_quadrant
from ztfluigi.algorithms.noise import pixel_sigma
from ztfluigi.model import header_cards
from ztfluigi.model.errors import BadInput
from ztfluigi.model.header import Header
from ztfluigi.model.ids import FILTERS, SkyCell, exposure_id, night_id, night_of, processing_id, raw_id, rcid
from ztfluigi.model.images import Calibrated
from ztfluigi.model.maskbits import SOURCE, Mask
from ztfluigi.model.wcs import TpvWcs
from ztfluigi.tasks import headers
from ztfluigi.tasks.base import Built, Inherited, Product
from ztfluigi.tasks.calibration import CalibrationChoice, prior_mask
from ztfluigi.tasks.raw import SplitCcd
from ztfluigi.tasks.settings import camera, root, sections


ADOPTED = "adopted"
"""Version of a science image that came from the public archive."""


class OfQuadrant:
    """What the names of the files say about one quadrant of one exposure."""

    @property
    def adopted(self) -> bool:
        """True for a public archive file registered by `ztf adopt`, which has no raw file here."""
        row = registry().current("ScienceImage", f"{self.exposure}/{self.ccdid}/{self.qid}")
        return row is not None and row.version == ADOPTED

    @property
    def name(self) -> paths.RawName:
        if self.adopted:
            row = registry().current("ScienceImage", f"{self.exposure}/{self.ccdid}/{self.qid}")
            return paths.RawName(self.exposure, row.field, row.filter, self.ccdid, "o")
        return rawfiles.find(root(), self.exposure, self.ccdid)

    @property
    def cell(self) -> SkyCell:
        """The field, filter and quadrant it looks at."""
        return SkyCell(self.name.field, self.name.filter, self.ccdid, self.qid)

    def place(self) -> dict:
        return {"night": night_of(self.exposure), "exposure": self.exposure, "ccdid": self.ccdid, "qid": self.qid,
                "field": self.name.field, "filter": self.name.filter, "fid": FILTERS[self.name.filter], "rcid": rcid(self.ccdid, self.qid)}

    def numbers_of_time(self, obsjd: float) -> dict:
        """Database ids of the quadrant."""
        return {"jd": obsjd, "nid": night_id(obsjd), "expid": exposure_id(obsjd), "rid": raw_id(obsjd, self.ccdid, self.qid),
                "pid": processing_id(obsjd, self.ccdid, self.qid)}


class CalibratedImage(OfQuadrant, Product):
    """A quadrant with detector corrections, artefact masks and astrometry; an operations product, removable."""

    exposure = luigi.Parameter()
    ccdid = luigi.IntParameter()
    qid = luigi.IntParameter()
    version = "1.3.0"
    sections = ("detector", "background", "artifacts", "detection", "astrometry")
    kernels = True

    def choices(self) -> list[CalibrationChoice]:
        return [CalibrationChoice(night_of(self.exposure), code, self.ccdid, self.qid) for code in ("bi", self.name.filter)]

    def requires(self):
        return [SplitCcd(self.exposure, self.ccdid), *self.choices()]

    def requires_more(self):
        return [task for choice in self.choices() for task in choice.chosen_tasks()]

    def ingredients(self):
        return [*self.requires(), *self.requires_more()]

    def gates(self):
        return self.requires()

    def files(self):
        return {"image": paths.operations(self.name, self.qid, "inpsciimg.fits"), "residuals": paths.operations(self.name, self.qid, "astromqa.fits")}

    def build(self, stage: Stage) -> Built:
        pixels, header = image_codec.read_image(self.requires()[0].path(f"q{self.qid}"))
        (bias, bias_mask), (flat, flat_mask) = (choice.master() for choice in self.choices())
        observed = headers.observed(header, camera(), self.ccdid, self.qid)
        gaia, _ = catalog_codec.read_gaia(root() / paths.gaia(self.name.field, self.ccdid, self.qid))
        reduced = reduce_quadrant(pixels, bias=bias, flat=flat, mask=prior_mask(self.ccdid, self.qid) | bias_mask | flat_mask,
                                  gain=observed.gain, read_noise=observed.read_noise, nonlinearity=observed.nonlinearity,
                                  saturation_dn=camera().saturation_dn, gaia=gaia, prior=observed.prior, jd=observed.jd_mid,
                                  low_flat=self.choices()[1].low_flat(), ghosts=camera().ghosts,
                                  zero_point=camera().filter(self.name.filter).zero_point, config=sections(self.sections))
        image_codec.write_calibrated(stage["image"], reduced.calibrated, header)
        catalog_codec.write_table(stage["residuals"], reduced.residuals)
        return Built(numbers=reduced.calibrated.metrics, place=self.numbers_of_time(observed.obsjd))


class AdoptedImage(OfQuadrant, Product):
    """A public archive image in the form of a calibrated quadrant: pixel noise from its own gain and read noise, source bits cleared."""

    exposure = luigi.Parameter()
    ccdid = luigi.IntParameter()
    qid = luigi.IntParameter()

    def requires(self):
        return ScienceImage(self.exposure, self.ccdid, self.qid)

    def files(self):
        return {"image": paths.operations(self.name, self.qid, "inpsciimg.fits")}

    def build(self, stage: Stage) -> Built:
        quadrant, header = load_science(self.requires())
        quadrant.mask &= np.uint16(~SOURCE & 0xFFFF)
        image_codec.write_calibrated(stage["image"], quadrant, header)
        return Built(place=self.numbers_of_time(float(header["OBSJD"])))


class SourceCatalog(OfQuadrant, Product):
    """PSF-fit and aperture catalogues and the PSF (products 3, 4), with the photometric calibration."""

    exposure = luigi.Parameter()
    ccdid = luigi.IntParameter()
    qid = luigi.IntParameter()
    version = "1.3.0"
    sections = ("background", "psf", "psf_photometry", "apertures", "zero_point")
    kernels = True

    def requires(self):
        return (AdoptedImage if self.adopted else CalibratedImage)(self.exposure, self.ccdid, self.qid)

    def files(self):
        science = {role: paths.science(self.name, self.qid, suffix) for role, suffix in (
            ("psfcat", "psfcat.fits"), ("sexcat", "sexcat.fits"), ("dao", "sciimgdao.psf"), ("psfcent", "sciimgdaopsfcent.fits"))}
        return {**science, "psf": paths.operations(self.name, self.qid, "psfmodel.fits")}

    def build(self, stage: Stage) -> Built:
        image, header = image_codec.read_calibrated(self.requires().path("image"))
        calibrators = root() / paths.ps1(self.name.field, self.ccdid, self.qid)
        ps1 = catalog_codec.read_ps1(calibrators)[0] if calibrators.exists() else None
        result = measure_quadrant(image, ps1=ps1, filter_code=self.name.filter, zero_point=header.get("MAGZP"),
                                  colour_coefficient=camera().filter(self.name.filter).colour_coefficient, config=sections(self.sections))
        values = {**headers.catalogue_values(result), "SATURATE": image.saturate, "PROVID": self.provid()}
        cards = header_cards.catalog_cards({**header, **values})
        catalog_codec.write_psfcat(stage["psfcat"], result.psfcat, cards)
        catalog_codec.write_sexcat(stage["sexcat"], result.sexcat, cards)
        daophot.write_daophot(stage["dao"], result.psf)
        ny, nx = image.data.shape
        image_codec.write_stamp(stage["psfcent"], result.psf.render((nx - 1) / 2, (ny - 1) / 2))
        daophot.write_psf_model(stage["psf"], result.psf)
        return Built(numbers={**result.metrics, **values}, infobits=result.infobits, usable=bool(result.status),
                     reason=headers.sentence("science", result.infobits, result.status))


class ScienceImage(OfQuadrant, Product):
    """The calibrated image and its mask with every header keyword (product 2); its header carries what the catalogue found."""

    exposure = luigi.Parameter()
    ccdid = luigi.IntParameter()
    qid = luigi.IntParameter()

    def requires(self):
        return [] if self.adopted else [task(self.exposure, self.ccdid, self.qid) for task in (CalibratedImage, SourceCatalog)]

    def gates(self):
        return self.requires()[:1]

    def settled_provid(self):
        return (self.row().provid, True) if self.adopted else super().settled_provid()

    def files(self):
        return {"image": paths.science(self.name, self.qid, "sciimg.fits"), "mask": paths.science(self.name, self.qid, "mskimg.fits")}

    def build(self, stage: Stage) -> Built:
        if self.adopted:
            raise BadInput(f"{self.path('image').name} was adopted and is gone from the archive; adopt it again")
        calibrated, catalog = self.requires()
        verdict = catalog.row()
        if not verdict.files:
            raise Inherited(verdict)
        image, header = image_codec.read_calibrated(calibrated.path("image"))
        psfcat, sexcat = catalog_codec.read_psfcat(catalog.path("psfcat"))[0], catalog_codec.read_sexcat(catalog.path("sexcat"))[0]
        cards = headers.science_cards(self, header, image.wcs, image.saturate, verdict)
        image_codec.write_science(stage["image"], image.data, cards)
        image_codec.write_mask(stage["mask"], mark_sources(image.mask, psfcat, sexcat), cards)
        return Built(numbers=verdict.numbers, infobits=verdict.infobits, usable=verdict.state == "sealed", reason=verdict.reason,
                     place={**self.numbers_of_time(float(header["OBSJD"])), **headers.footprint(image.wcs, image.data.shape)})

    def calibration_ids(self) -> dict[str, int]:
        """Database ids of the masters that served."""
        tasks = [task for choice in self.requires()[0].choices() for task in choice.chosen_tasks()]
        return {name: task.row().numbers["cid"] for name, task in zip(("BIAS", "HIFLT", "LOFLT"), tasks, strict=False)
                if task.row().state == "sealed"}


def load_science(task: ScienceImage) -> tuple[Calibrated, Header]:
    """A sealed science image as a calibrated quadrant: noise from its counts, mask with source bits."""
    data, header = image_codec.read_image(task.path("image"))
    mask, _ = image_codec.read_mask(task.path("mask"))
    gain, read_noise = float(header["GAIN"]), float(header["READNOI"])
    bad = ~np.isfinite(data)
    mask[bad] |= np.uint16(Mask.NAN)
    data[bad] = np.median(data[~bad]) if not bad.all() else 0.0
    return Calibrated(data, pixel_sigma(data, gain, read_noise), mask, gain, read_noise, float(header["SATURATE"]),
                      TpvWcs.from_cards(header)), header
