"""One full-size quadrant from its raw file to its alert packets, through files as in the survey, stage by stage."""

from __future__ import annotations

import tempfile
from multiprocessing import get_context
from pathlib import Path

from benchmarks import chain, sky
from benchmarks.meter import Meter, emit
from ztfluigi.algorithms import apertures, artifacts, astrometry, background, catalogue, detection, extraction, psf, psf_photometry
from ztfluigi.algorithms.warm import load_kernels

EPOCHS = 5
"""Science images in the reference: the fewest of which its judge says nothing fatal."""

KERNEL = "psf_fit_kernel"
"""Sweeps of the PSF fit over all stars and the measurement of their errors, a part of the stage psf_photometry."""
PHASE1 = ("split", "calibrate", "background", "detect", "mask", "astrometry", "calibrated_file", "psf", "psf_photometry", KERNEL, "apertures",
          "zero_point", "qa", "science")
PHASE2 = ("difference_read", "subtract", "events", "difference_write", "packets")

WATCHED = ((background, "estimate", "background"), (detection, "detect", "detect"), (detection, "image_fwhm", "detect"),
           (extraction, "segment", "detect"), (extraction, "starts", "detect"),
           *((artifacts, name, "mask") for name in ("mask_saturation", "mask_cosmic_rays", "mask_tracks", "mask_ghosts")),
           (astrometry, "solve", "astrometry"), (psf, "build_psf", "psf"), (psf_photometry, "fit_catalogue", "psf_photometry"),
           (psf_photometry.Fitter, "sweep", KERNEL), (psf_photometry.Fitter, "measure", KERNEL),
           (apertures, "measure", "apertures"), (apertures, "aperture_corrections", "apertures"),
           (catalogue, "fit_zero_point", "zero_point"))
"""Functions that the steps call, and the stages they are."""


def run(density: str, seed: int = 1) -> None:
    """Print a line per stage. Simulation, in another process, and the reference's epochs are made before and are not measured."""
    load_kernels(chain.CONFIG)
    with tempfile.TemporaryDirectory(prefix="ztfluigi-speed-") as folder:
        root = Path(folder)
        with get_context("spawn").Pool(1) as pool:
            plan = pool.apply(sky.write_sky, (root, density, EPOCHS, seed))
        # The epochs of the reference run first, unmeasured: everything is warm for the last one.
        science = [chain.science_quadrant(root, epoch, Meter()) for epoch in plan[:-1]]
        meter = Meter()
        reference = chain.reference(root, plan[:-1], science, meter)
        with meter.watch(*WATCHED):
            chain.ingest(root, plan[-1], meter)
            result = chain.science_quadrant(root, plan[-1], meter)
            meter.sources |= dict.fromkeys(("detect", "mask", "astrometry"), result.n_detections)
            meter.sources |= dict.fromkeys(("psf", "psf_photometry", KERNEL, "zero_point", "qa", "science", "phase1", "phase12"), result.n_psf)
            meter.sources |= dict.fromkeys(("apertures",), result.n_sex)
        chain.difference(root, plan[-1], reference, result, meter)
    for name in ("ingest", *PHASE1):
        emit(_row(meter, name))
    emit(meter.row("phase1", list(PHASE1)))
    for name in PHASE2:
        emit(meter.row(name))
    emit(meter.row("phase12", [*PHASE1, *PHASE2]))
    emit(meter.row("reference", per=EPOCHS) | {"epochs": EPOCHS})
    emit(meter.row("reference_catalog"))


def _row(meter: Meter, name: str) -> dict:
    """The line of a stage; that of the PSF photometry holds its kernel, whose own line has the stars it fits in a second."""
    if name == "psf_photometry":
        return meter.row(name, [name, KERNEL])
    row = meter.row(name)
    return row | {"stars_per_s": round(row["sources"] / row["cpu_s"])} if name == KERNEL else row
