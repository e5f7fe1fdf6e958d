"""The QA figure of a science quadrant, drawn on request."""

from __future__ import annotations

import luigi

from targets import paths
from targets.codecs import catalog as catalog_codec
from targets.codecs import daophot
from targets.codecs import image as image_codec
from targets.sealed import Stage
from ztfluigi.algorithms import background
from ztfluigi.algorithms.photometric_calibration import ZeroPoint, fit_zero_point
from ztfluigi.model import infobits
from ztfluigi.model.errors import Unusable
from ztfluigi.tasks.base import Built, Product
from ztfluigi.tasks.raw import SplitCcd
from ztfluigi.tasks.science import CalibratedImage, OfQuadrant, SourceCatalog
from ztfluigi.tasks.settings import camera, configuration, root

#: Numbers shown in words: metric, name, format.
SHOWN = (("background_dn", "sky", "{:.1f} DN"), ("noise_dn", "noise", "{:.2f} DN"), ("fwhm_pix", "seeing", "{:.2f} pix"),
         ("n_detections", "detections", "{:d}"), ("ASTROMN", "astrometric matches", "{:d}"), ("pointing_offset_arcsec", "pointing error", '{:.1f}"'),
         ("rotation_deg", "rotation", "{:.4f} deg"), ("ASTCHI2", "astrometric chi-square", "{:.2f}"), ("n_psf_stars", "PSF stars", "{:d}"),
         ("n_psf_sources", "PSF-fit sources", "{:d}"), ("magzp", "zero point", "{:.4f} mag"), ("nmatches", "calibrators", "{:d}"),
         ("maglim", "limit (5 sigma)", "{:.2f} mag"), ("maglim_theory", "limit in theory", "{:.2f} mag"), ("n_cosmic", "cosmic-ray pixels", "{:d}"),
         ("n_tracks", "tracks", "{:d}"))


class QuadrantFigure(OfQuadrant, Product):
    """What a person looks at to trust or doubt a science quadrant; made of whatever the quadrant's chain has reached."""

    exposure = luigi.Parameter()
    ccdid = luigi.IntParameter()
    qid = luigi.IntParameter()

    def requires(self):
        return [SplitCcd(self.exposure, self.ccdid), *(task(self.exposure, self.ccdid, self.qid) for task in (CalibratedImage, SourceCatalog))]

    def gates(self):
        return self.requires()[:1]

    def files(self):
        return {"figure": paths.quadrant_figure(self.name, self.qid)}

    def build(self, stage: Stage) -> Built:
        # matplotlib costs a third of a second, which no other task should pay
        from targets.codecs.quadrant_figure import QuadrantPlot, write_quadrant_figure

        split, calibrated, catalog = self.requires()
        row, scale = catalog.row(), camera().pixel_scale_arcsec
        numbers = {**calibrated.row().numbers, **row.numbers}
        texts = [(name, form.format(numbers[key])) for key, name, form in SHOWN if isinstance(numbers.get(key), (int, float))]
        verdict = infobits.explain("science", row.infobits or 0) + ([] if row.state == "sealed" or not row.reason else [row.reason])
        plot = QuadrantPlot(f"{self.name.stem}_q{self.qid}", row.state == "sealed", verdict, texts, scale,
                            image_codec.read_image(split.path(f"q{self.qid}"))[0])
        if calibrated.row().files:
            image, _ = image_codec.read_calibrated(calibrated.path("image"))
            plot.data, plot.mask = image.data, image.mask
            plot.level = background.estimate(image.data, image.mask, config=configuration("background")).level
            plot.astrometry = catalog_codec.read_table(calibrated.path("residuals"))[0]
        if row.files:
            plot.psf, plot.zero_point = daophot.read_psf_model(catalog.path("psf")), self.zero_point(catalog, plot.data.shape)
        write_quadrant_figure(stage["figure"], plot)
        return Built()

    def zero_point(self, catalog: SourceCatalog, shape: tuple[int, int]) -> ZeroPoint | None:
        """The catalogue's photometric fit, made again with its residuals; None where it was not possible."""
        psfcat = catalog_codec.read_psfcat(catalog.path("psfcat"))[0]
        ps1 = catalog_codec.read_ps1(root() / paths.ps1(self.name.field, self.ccdid, self.qid))[0]
        try:
            return fit_zero_point(psfcat, ps1, filter_code=self.name.filter, shape=shape, config=configuration("zero_point"))
        except Unusable:
            return None
