"""The steps of the tasks in the order and through the files of the tasks, without registry and scheduler."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from benchmarks.meter import Meter
from benchmarks.sky import Epoch
from targets import paths
from targets.codecs import alert as alert_codec
from targets.codecs import catalog as catalog_codec
from targets.codecs import daophot, fits
from targets.codecs import image as image_codec
from targets.codecs import raw as raw_codec
from targets.sealed import sha256
from ztfluigi.algorithms import coadd, events, limits, packets, quality
from ztfluigi.algorithms.catalogue import mark_sources, measure_quadrant
from ztfluigi.algorithms.instrumental import reduce_quadrant
from ztfluigi.algorithms.overscan import subtract_overscan
from ztfluigi.algorithms.subtract import subtract
from ztfluigi.model import header_cards, infobits
from ztfluigi.model.alert_schema import CUTOUTS
from ztfluigi.model.camera import load_camera
from ztfluigi.model.ids import FILTERS, SkyCell, exposure_id, night_id, object_name, processing_id, raw_id, rcid
from ztfluigi.model.maskbits import UNUSABLE
from ztfluigi.model.wcs import TpvWcs
from ztfluigi.tasks import headers
from ztfluigi.tasks.reference import as_quadrant
from ztfluigi.tasks.science import load_science
from ztfluigi.tasks.scoring import scored
from ztfluigi.tasks.settings import SECTIONS

CONFIG = {name: section() for name, section in SECTIONS.items()}
"""Every section as documented, whatever luigi.cfg says."""
CAMERA = load_camera("ztf")


@dataclass
class Science:
    """Files of a science quadrant by role, and what was counted."""

    files: dict[str, Path]
    n_detections: int
    n_psf: int
    n_sex: int


@dataclass
class Reference:
    """Files of a reference by role, and its catalogue's file."""

    files: dict[str, Path]
    catalogue: Path
    psf: Path


def ingest(root: Path, epoch: Epoch, meter: Meter) -> None:
    """Verification and digest of the raw file of a whole CCD."""
    with meter.stage("ingest"):
        path = root / epoch.name.incoming
        raw_codec.verify_raw(path, CAMERA)
        sha256(path)


def science_quadrant(root: Path, epoch: Epoch, meter: Meter) -> Science:
    """SplitCcd (one quadrant of it), CalibratedImage, SourceCatalog and ScienceImage."""
    role = {name: root / f"{epoch.name.stem}_{name}" for name in
            ("split", "calibrated", "residuals", "psfcat", "sexcat", "dao", "psfcent", "psf", "image", "mask")}
    _split(root, epoch, role, meter)
    n_detections = _calibrate(root, epoch, role, meter)
    verdict = _measure(root, epoch, role, meter)
    _write_science(epoch, role, verdict, meter)
    return Science(role, n_detections, verdict.numbers["n_psf_sources"], verdict.numbers["n_sex_sources"])


def _split(root: Path, epoch: Epoch, role: dict, meter: Meter) -> None:
    with meter.stage("split"):
        pixels, overscan, cards = raw_codec.read_quadrant(root / epoch.name.incoming, epoch.qid)
        result = subtract_overscan(pixels, overscan, config=CONFIG["overscan"])
        image_codec.write_split(role["split"], result.data, cards, result.metrics)


def _calibrate(root: Path, epoch: Epoch, role: dict, meter: Meter) -> int:
    with meter.stage("calibrate"):
        pixels, header = image_codec.read_image(role["split"])
        bias, flat = (image_codec.read_image(root / f"{name}.fits")[0] for name in ("bias", "flat"))
        mask = image_codec.read_mask(root / "badpixels.fits")[0]
        observed = headers.observed(header, CAMERA, epoch.name.ccdid, epoch.qid)
        gaia, _ = catalog_codec.read_gaia(root / paths.gaia(epoch.name.field, epoch.name.ccdid, epoch.qid))
        reduced = reduce_quadrant(pixels, bias=bias, flat=flat, mask=mask, gain=observed.gain, read_noise=observed.read_noise,
                                  nonlinearity=observed.nonlinearity, saturation_dn=CAMERA.saturation_dn, gaia=gaia, prior=observed.prior,
                                  jd=observed.jd_mid, ghosts=CAMERA.ghosts, zero_point=CAMERA.filter(epoch.name.filter).zero_point,
                                  config=CONFIG)
    with meter.stage("calibrated_file"):
        image_codec.write_calibrated(role["calibrated"], reduced.calibrated, header)
        catalog_codec.write_table(role["residuals"], reduced.residuals)
    return len(reduced.detections)


def _measure(root: Path, epoch: Epoch, role: dict, meter: Meter) -> SimpleNamespace:
    with meter.stage("calibrated_file"):
        image, header = image_codec.read_calibrated(role["calibrated"])
    with meter.stage("qa"):
        ps1 = catalog_codec.read_ps1(root / paths.ps1(epoch.name.field, epoch.name.ccdid, epoch.qid))[0]
        result = measure_quadrant(image, ps1=ps1, filter_code=epoch.name.filter, config=CONFIG)
    with meter.stage("science"):
        values = {**headers.catalogue_values(result), "SATURATE": image.saturate}
        cards = header_cards.catalog_cards({**header, **values})
        catalog_codec.write_psfcat(role["psfcat"], result.psfcat, cards)
        catalog_codec.write_sexcat(role["sexcat"], result.sexcat, cards)
        daophot.write_daophot(role["dao"], result.psf)
        ny, nx = image.data.shape
        image_codec.write_stamp(role["psfcent"], result.psf.render((nx - 1) / 2, (ny - 1) / 2))
        daophot.write_psf_model(role["psf"], result.psf)
    return SimpleNamespace(numbers={**result.metrics, **values}, infobits=result.infobits, state="sealed" if result.status else "unusable")


def _write_science(epoch: Epoch, role: dict, verdict: SimpleNamespace, meter: Meter) -> None:
    with meter.stage("science"):
        image, header = image_codec.read_calibrated(role["calibrated"])
        psfcat, sexcat = catalog_codec.read_psfcat(role["psfcat"])[0], catalog_codec.read_sexcat(role["sexcat"])[0]
        task = SimpleNamespace(name=epoch.name, ccdid=epoch.name.ccdid, qid=epoch.qid, calibration_ids=dict, provid=lambda: "benchmark")
        cards = headers.science_cards(task, header, image.wcs, image.saturate, verdict)
        image_codec.write_science(role["image"], image.data, cards)
        image_codec.write_mask(role["mask"], mark_sources(image.mask, psfcat, sexcat), cards)


def _load(science: Science):
    return load_science(SimpleNamespace(path=science.files.get))


def reference(root: Path, epochs: list[Epoch], science: list[Science], meter: Meter) -> Reference:
    """ReferenceImage and ReferenceCatalog."""
    made = Reference({role: root / role for role in ("refimg", "refcov", "refunc")}, root / "refpsfcat", root / "refpsfmodel")
    name, qid = epochs[0].name, epochs[0].qid
    cell = SkyCell(name.field, name.filter, name.ccdid, qid)
    with meter.stage("reference"):
        cards = [fits.read_header(item.files["image"]) for item in science]
        wcs, shape = coadd.footprint([TpvWcs.from_cards(header) for header in cards], [CAMERA.shape] * len(cards))
        with tempfile.TemporaryFile(dir=root) as scratch:
            planes = np.memmap(scratch, np.float32, "w+", shape=(len(science), *shape))
            result = coadd.coadd(lambda i: _load(science[i])[0], [float(header["MAGZP"]) for header in cards], wcs=wcs, shape=shape,
                                 filter_code=cell.filter, scratch=planes, config=CONFIG["reference"])
        bits, status = quality.judge_reference(result.metrics)
        task = SimpleNamespace(field=cell.field, filter=cell.filter, ccdid=cell.ccdid, qid=cell.qid, provid=lambda: "benchmark")
        values = {**headers.reference_values(task, cards), "MAGZP": result.magzp, "SATURATE": result.saturate, "INFOBITS": bits,
                  "STATUS": status}
        image_codec.write_reference(made.files, result, header_cards.reference_cards(values, bits=infobits.bit_cards("reference")))
        del result, planes
    with meter.stage("reference_catalog"):
        coadded, header = image_codec.read_reference(made.files)
        found = measure_quadrant(as_quadrant(coadded), zero_point=coadded.magzp, config=CONFIG)
        catalog_codec.write_psfcat(made.catalogue, found.psfcat, header_cards.catalog_cards({**header, **headers.catalogue_values(found)}))
        daophot.write_psf_model(made.psf, found.psf)
        meter.sources["reference_catalog"] = len(found.psfcat)
    return made


def difference(root: Path, epoch: Epoch, made: Reference, science: Science, meter: Meter) -> None:
    """DifferenceImage and AlertPackets, without the candidates' rows in the database and the histories that come from there."""
    name = epoch.name
    with meter.stage("difference_read"):
        quadrant, header = _load(science)
        coadded, ref_header = image_codec.read_reference(made.files, daophot.read_psf_model(made.psf))
        psfcat, refcat = (catalog_codec.read_psfcat(path)[0] for path in (science.files["psfcat"], made.catalogue))
    with meter.stage("subtract"):
        result = subtract(quadrant, daophot.read_psf_model(science.files["psf"]), float(header["MAGZP"]), coadded, psfcat_sci=psfcat,
                          psfcat_ref=refcat, config=CONFIG["difference"])
    with meter.stage("events"):
        found = events.extract(result, wcs=quadrant.wcs, psfcat_ref=refcat, reference_magzp=coadded.magzp, config=CONFIG["events"])
        metrics = result.metrics | {"n_events": len(found), "flux_ratio_relative":
                                    result.metrics["flux_ratio"] / 10.0 ** (0.4 * (result.magzp - coadded.magzp))}
        bits, status = quality.judge_difference(metrics, filter_code=name.filter)
        fates = events.light_filter(found, config=CONFIG["event_filter"])
        ids = {"jd": epoch.jd, "nid": night_id(epoch.jd), "expid": exposure_id(epoch.jd), "rid": raw_id(epoch.jd, name.ccdid, epoch.qid),
               "pid": processing_id(epoch.jd, name.ccdid, epoch.qid)}
        task = SimpleNamespace(name=name, files=lambda: {"image": Path("scimrefdiffimg.fits.fz")})
        stamps, scores = scored(found, fates == "", (quadrant.data, result.reference, result.data))
        rows = headers.candidate_rows(task, ids, found, fates, header, ref_header, scores)
        bad = (result.mask & np.uint16(UNUSABLE)) != 0
        limits.local_limits(result.data, bad, lambda x, y: np.sum(result.psf_at(x, y) ** 2, axis=(-2, -1)), result.magzp)
    with meter.stage("difference_write"):
        values = {"FLXRATIO": metrics["flux_ratio"], "DIFSIGPX": metrics["noise"], "DIFFLIM": metrics["diffmaglim"], "INFOBITS": bits,
                  "STATUS": status, "CREATED": headers.created()}
        cards = header_cards.difference_cards(header, values, bits=infobits.bit_cards("difference"))
        image_codec.write_difference(root / "difference.fits.fz", np.where(bad, np.float32(np.nan), result.data), cards, noise=metrics["noise"])
        image_codec.write_difference_psf(root / "diffimgpsf.fits", result.psf, result.psf_grid)
    meter.sources |= {"subtract": result.metrics["n_match"], "events": len(found), "packets": int(np.count_nonzero(fates == ""))}
    with meter.stage("packets"):
        chosen, kept = found[fates == ""], [row for row, fate in zip(rows, fates, strict=True) if fate == ""]
        if len(chosen):
            image_codec.write_image(root / "cutouts.fits", stamps)
            _packets(root, epoch, ids, chosen, kept, stamps)


def _packets(root: Path, epoch: Epoch, ids: dict, chosen: np.ndarray, rows: list[dict], stamps: np.ndarray) -> None:
    name, config = epoch.name, CONFIG["alerts"]
    ps1 = catalog_codec.read_ps1(root / paths.ps1(name.field, name.ccdid, epoch.qid))[0]
    gaia = catalog_codec.read_gaia(root / paths.gaia(name.field, name.ccdid, epoch.qid))[0]
    around = packets.nearest_ps1(chosen["ra"], chosen["dec"], ps1) | packets.nearest_gaia(chosen["ra"], chosen["dec"], gaia)
    shared = ids | {"rcid": rcid(name.ccdid, epoch.qid), "fid": FILTERS[name.filter], "ndethist": 0, "ncovhist": 0}
    records = []
    for n, (row, extra, three) in enumerate(zip(rows, packets.rows(around), stamps, strict=True)):
        sign = (1, 1, 1 if row["isdiffpos"] == "t" else -1)
        cut = {word: alert_codec.encode_cutout(s * stamp) for word, s, stamp in zip(CUTOUTS.values(), sign, three, strict=True)}
        records.append(packets.build_packet(row | extra | {"objectid": object_name(2018, n)}, [], [], cut, shared, version=config.schema,
                                            publisher=config.publisher))
    alert_codec.pack_alerts(root / "alerts.tar.gz", [(record["candid"], alert_codec.write_packet(record)) for record in records])
