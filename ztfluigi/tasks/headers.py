"""Between results and header cards: what each product's header and registry row say, in ZTF's keywords."""

from __future__ import annotations

import dataclasses
import datetime
import json
import zoneinfo
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from astropy.time import Time

from targets.paths import gaia
from ztfluigi.algorithms.coadd import INPUT_COLUMNS
from ztfluigi.model import header_cards, infobits
from ztfluigi.model.camera import Camera
from ztfluigi.model.columns import FIXED_APERTURES_PIX
from ztfluigi.model.header import Header
from ztfluigi.model.ids import (FILTER_NAMES, FILTERS, PIPELINE_SCIENCE, PROCESSING_VERSION, calibration_id, candidate_id, exposure_id,
                                night_id, processing_id, raw_id, rcid, reference_id)
from ztfluigi.model.wcs import TpvWcs
from ztfluigi.services import classifiers


@dataclass(frozen=True)
class Observed:
    """What a raw header says about one quadrant's exposure, as the algorithms take it."""

    gain: float
    read_noise: float
    nonlinearity: tuple[float, float]
    prior: TpvWcs
    obsjd: float
    jd_mid: float


def observed(header: Header, camera: Camera, ccdid: int, qid: int) -> Observed:
    """Gain and read noise of the raw header; its nominal WCS with the camera's distortion; the middle of the shutter's opening."""
    opened, closed = (Time(header[key], scale="utc").jd for key in ("SHUTOPEN", "SHUTCLSD"))
    obsjd = float(header["OBSJD"])
    prior = dataclasses.replace(TpvWcs.from_cards(header), pv1=camera.distortion[0], pv2=camera.distortion[1])
    return Observed(float(header["GAIN"]), float(header["READNOI"]), camera.on(obsjd).amplifier(ccdid, qid).nonlinearity, prior,
                    obsjd, 0.5 * (opened + closed))


def database_values(obsjd: float, field: int, fid: int, ccdid: int, qid: int) -> dict:
    """Identifier cards of a science quadrant (naming.md 4)."""
    return {"CCDID": ccdid, "QID": qid, "RCID": rcid(ccdid, qid), "EXPID": exposure_id(obsjd), "DBPID": processing_id(obsjd, ccdid, qid),
            "PROCVSN": PROCESSING_VERSION, "DBFIELD": field, "DBNID": night_id(obsjd), "DBEXPID": exposure_id(obsjd),
            "DBRID": raw_id(obsjd, ccdid, qid), "DBRCID": rcid(ccdid, qid), "DBFID": fid, "DBPIPEID": PIPELINE_SCIENCE}


def catalogue_values(result) -> dict:
    """Photometric cards of a catalogue (science.md 1): zero point, colour term, aperture corrections, seeing, limit."""
    values: dict[str, object] = {}
    if result.zero_point is not None:
        zp = result.zero_point
        values |= {"NMATCHES": zp.nmatches, "MAGZP": zp.magzp, "MAGZPUNC": zp.magzpunc, "MAGZPRMS": zp.magzprms, "CLRCOEFF": zp.clrcoeff,
                   "CLRCOUNC": zp.clrcounc, "ZPCLRCOV": zp.zpclrcov, "PCOLOR": zp.pcolor, "ZPMED": zp.zpmed, "ZPAVG": zp.zpavg,
                   "ZPRMSALL": zp.zprmsall, "CLRMED": zp.clrmed, "CLRAVG": zp.clravg, "CLRRMS": zp.clrrms}
    values["FIXAPERS"] = ",".join(f"{d:g}" for d in FIXED_APERTURES_PIX)
    for n, (correction, uncertainty) in enumerate(zip(result.apcor, result.apcorun, strict=True), start=1):
        values |= {f"APCOR{n}": float(correction), f"APCORUN{n}": float(uncertainty)}
    values |= {"SEEING": result.metrics["fwhm_pix"], "INFOBITS": result.infobits, "STATUS": result.status}
    if np.isfinite(result.metrics.get("maglim", np.nan)):
        values["MAGLIM"] = result.metrics["maglim"]
    return {key: item for key, item in values.items() if not (isinstance(item, float) and not np.isfinite(item))}


def footprint(wcs: TpvWcs, shape: tuple[int, int]) -> dict:
    """Centre and corners of an image [deg], in the registry's columns (lower left, lower right, upper right, upper left)."""
    ny, nx = shape
    ra, dec = wcs.sky(np.array([(nx - 1) / 2, 0, nx - 1, nx - 1, 0]), np.array([(ny - 1) / 2, 0, 0, ny - 1, ny - 1]))
    place = {"ra": float(ra[0]), "dec": float(dec[0])}
    for n in range(1, 5):
        place |= {f"ra{n}": float(ra[n]), f"dec{n}": float(dec[n])}
    return place


def created() -> str:
    """File creation time as ZTF writes it: Pacific time, ISO without zone."""
    return datetime.datetime.now(zoneinfo.ZoneInfo("America/Los_Angeles")).strftime("%Y-%m-%dT%H:%M:%S")


def sentence(product: str, bits: int, status: int) -> str:
    """Why a product is not usable, in the words of its INFOBITS; empty when it is."""
    return "" if status else "; ".join(infobits.explain(product, bits))


def science_cards(task, header: Header, wcs: TpvWcs, saturate: float, verdict) -> list:
    """All cards of sciimg.fits and mskimg.fits: raw cards, solution, calibration, quality, ids."""
    numbers, channel, fid = verdict.numbers, rcid(task.ccdid, task.qid), FILTERS[task.name.filter]
    metrics = json.loads(header.get("METRICS", "{}"))
    catalogue = gaia(task.name.field, task.ccdid, task.qid)
    masters = {f"CID{key}": cid for key, cid in task.calibration_ids().items()}
    values = {**wcs.cards(), **{key: metrics.get(key) for key in ("ASTRRMS1", "ASTRRMS2", "ASTROMN", "ASTCHI2")},
              "SCAMPFIL": catalogue.name, "SCAMPPTH": f"/ztf/{catalogue.parent}", "SATURATE": saturate,
              **{key: item for key, item in numbers.items() if key.isupper()},
              **database_values(float(header["OBSJD"]), task.name.field, fid, task.ccdid, task.qid),
              "CIDPMASK": calibration_id(0, channel, 0, "pmask"), **masters, "INFOBITS": verdict.infobits,
              "STATUS": int(verdict.state == "sealed"), "CREATED": created(), "PROVID": task.provid()}
    return header_cards.science_cards(header, {key: item for key, item in values.items() if item is not None}, bits=infobits.bit_cards("science"))


def epoch_table(rows: Sequence, scale_arcsec: float) -> np.ndarray:
    """Quality numbers of science images (registry rows), in the columns that the choice of reference epochs reads."""
    table = np.full(len(rows), np.nan, [(name, "f8") for name in INPUT_COLUMNS])
    for i, row in enumerate(rows):
        n = {key: np.nan if item is None else item for key, item in row.numbers.items() if not isinstance(item, (list, dict, str))}
        table[i] = (n.get("SEEING", np.nan) * scale_arcsec, n.get("MAGLIM", np.nan), n.get("MAGZP", np.nan), n.get("MAGZPRMS", np.nan),
                    n.get("CLRCOEFF", np.nan), 3600.0 * max(n.get("ASTRRMS1", np.nan), n.get("ASTRRMS2", np.nan)),
                    n.get("background_dn", np.nan), 1.0)
    return table


def reference_values(task, epochs: Sequence[Header]) -> dict:
    """Cards of a reference that come from its epochs; colour coefficient as the weighted mean of the inputs'."""
    jds = [float(header["OBSJD"]) for header in epochs]
    pairs = [(float(header["CLRCOEFF"]), float(header.get("CLRCOUNC") or 0.01)) for header in epochs if header.get("CLRCOEFF") is not None]
    values = {"FIELDID": task.field, "CCDID": task.ccdid, "QID": task.qid, "RCID": rcid(task.ccdid, task.qid), "FILTERID": FILTERS[task.filter],
              "FILTER": FILTER_NAMES[task.filter], "NFRAMES": len(epochs), "JDSTART": min(jds), "JDEND": max(jds),
              "DBRFID": reference_id(task.field, FILTERS[task.filter], rcid(task.ccdid, task.qid)), "PROCVSN": PROCESSING_VERSION,
              "CREATED": created(), "PROVID": task.provid(), "PCOLOR": epochs[0].get("PCOLOR"),
              "EXPTIME": float(np.median([float(header["EXPTIME"]) for header in epochs]))}
    if pairs:
        coefficient, uncertainty = np.array(pairs).T
        weight = 1.0 / np.maximum(uncertainty, 1e-6) ** 2
        values |= {"CLRCOEFF": float(np.sum(weight * coefficient) / weight.sum()), "CLRCOUNC": float(weight.sum() ** -0.5)}
    return values


#: Columns of the history that come from the science image's header.
_OF_IMAGE = {"magzpsci": "MAGZP", "magzpsciunc": "MAGZPUNC", "magzpscirms": "MAGZPRMS", "clrcoeff": "CLRCOEFF", "clrcounc": "CLRCOUNC"}


def image_numbers(header: Header) -> dict:
    """What every entry of a packet's history says of its science image."""
    return {**{name: header.get(key) for name, key in _OF_IMAGE.items()}, "programid": int(header["PROGRMID"]), "programpi": header["PROGRMPI"]}


def forced_numbers(header: Header, catalogue) -> dict:
    """What an entry of forced photometry says of its science image besides (`fp_hists` fields); catalogue: row of its source catalogue."""
    astrometric = [header.get(key) for key in ("ASTRRMS1", "ASTRRMS2")]
    return {"exptime": header.get("EXPTIME"), "sciinpseeing": header.get("SEEING"), "scibckgnd": catalogue.numbers.get("background_dn"),
            "scisigpix": catalogue.numbers.get("noise_dn"),
            **{f"adpctdif{n}": None if rms is None else 3600.0 * float(rms) for n, rms in enumerate(astrometric, start=1)}}


def candidate_rows(task, ids: dict, events: np.ndarray, fates: np.ndarray, header: Header, reference: Header,
                   scores: dict[str, np.ndarray]) -> list[dict]:
    """Rows of the candidates table: the event's features, its scores (by column), ids and fate, and what the headers say of its images."""
    image = image_numbers(header) | {
        "jd": ids["jd"], "fid": FILTERS[task.name.filter], "field": task.name.field, "exptime": header.get("EXPTIME"),
        "pdiffimfilename": task.files()["image"].name.removesuffix(".fz"), "nmatches": header.get("NMATCHES"),
        "zpclrcov": header.get("ZPCLRCOV"), "zpmed": header.get("ZPMED"), "clrmed": header.get("CLRMED"), "clrrms": header.get("CLRRMS"),
        "rfid": reference["DBRFID"], "jdstartref": reference["JDSTART"], "jdendref": reference["JDEND"], "nframesref": reference["NFRAMES"],
        **classifiers.versions(), "tooflag": int(header.get("TOOFLAG") or 0)}
    names = [name for name in events.dtype.names if name not in ("flux", "sigflux", "hitsnr")]
    rows = []
    for n, (event, fate) in enumerate(zip(events, fates, strict=True)):
        row = {name: event[name].item() for name in names} | {name: float(values[n]) for name, values in scores.items()}
        row["candid"] = candidate_id(ids["pid"], row["tblid"], row["isdiffpos"] == "t")
        rows.append(image | row | {"fate": str(fate)})
    return rows
