"""Forced photometry for packets: at every candidate's place, on every past difference image that covered it (paper 4.1; fp_hists)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np

from targets import paths
from targets.codecs import catalog as catalog_codec
from targets.codecs import image as image_codec
from targets.codecs import stamps
from ztfluigi.algorithms import forced
from ztfluigi.algorithms.forced import HALF, Forced
from ztfluigi.algorithms.sky_index import SkyIndex
from ztfluigi.model.alert_schema import FORCED_FAILED
from ztfluigi.model.errors import BadInput
from ztfluigi.model.ids import SkyCell, ccd_and_quadrant, reference_id
from ztfluigi.services import coverage
from ztfluigi.tasks.settings import configuration, root

_NEAREST = ("distnr", "ranr", "decnr", "magnr", "sigmagnr", "chinr", "sharpnr")


@dataclass
class Photometry:
    """For each place, by time: `fp_hists` rows; and by pid the upper limit [mag] that the same fit gives there, None where masked."""

    rows: list[list[dict]]
    limits: list[dict[int, float | None]] = field(default_factory=list)


def photometry(ra: np.ndarray, dec: np.ndarray, jd_from: float, jd_to: float, programs: Sequence[int]) -> Photometry:
    """Forced photometry at n places [deg] on the difference images with jd_from <= jd < jd_to of some programmes, each opened once."""
    made = Photometry([[] for _ in ra], [{} for _ in ra])
    images, inside, _ = coverage.covering(ra, dec, jd_from, jd_to)
    for image, covered in zip(images, inside.T, strict=True):
        if image["programid"] not in programs:
            continue
        which = np.flatnonzero(covered)
        measured = _measure(image, ra[which], dec[which])
        nearest = _nearest(image, ra[which], dec[which])
        limits = measured.limit(image["magzpsci"]) if image["magzpsci"] is not None else None
        shared = image | {"rfid": reference_id(image["field"], image["fid"], image["rcid"])}
        for n, k in enumerate(which.tolist()):
            made.rows[k].append(shared | {name: values[n] for name, values in nearest.items()} | {
                "forcediffimflux": float(measured.flux[n]), "forcediffimfluxunc": float(measured.sigma[n]), "procstatus": measured.status[n]})
            if limits and measured.status[n] != forced.UNREADABLE:
                made.limits[k][image["pid"]] = limits[n]
    return made


def _measure(image: dict, ra: np.ndarray, dec: np.ndarray) -> Forced:
    files = {entry["role"]: root() / entry["path"] for entry in image["files"]}
    try:
        wcs, gain, shape = stamps.read_wcs(files["image"], hdu=1)
        x, y = wcs.pixel(ra, dec)
        grid = image_codec.read_difference_psf(files["psf"])
        tile = [np.clip((place / size * count).astype(int), 0, count - 1) for place, size, count in
                ((np.nan_to_num(y), shape[0], grid.shape[0]), (np.nan_to_num(x), shape[1], grid.shape[1]))]
        difference = stamps.read_stamps(files["image"], x, y, HALF, hdu=1)
        science = stamps.read_stamps(root() / paths.science(_name(image), ccd_and_quadrant(image["rcid"])[1], "sciimg.fits"), x, y, HALF)
        return forced.measure(difference, science, grid[tile[0], tile[1]], np.nan_to_num(np.column_stack([x - np.rint(x), y - np.rint(y)])),
                              gain=gain, radius=configuration("events").fit_radius_pix)
    except (BadInput, KeyError):  # a file that is gone or damaged: the entry says so
        return Forced.failed(len(ra), forced.UNREADABLE)


def _name(image: dict) -> paths.RawName:
    return paths.RawName(image["exposure"], image["field"], image["filter"], ccd_and_quadrant(image["rcid"])[0], "o")


def _nearest(image: dict, ra: np.ndarray, dec: np.ndarray) -> dict[str, list[float]]:
    """The nearest source of the image's own reference, distance in arcsec; FORCED_FAILED where there is none."""
    path = root() / paths.reference(SkyCell(image["field"], image["filter"], *ccd_and_quadrant(image["rcid"])), "refpsfcat.fits")
    missing = {name: [FORCED_FAILED] * len(ra) for name in _NEAREST}
    try:
        table, index, magzp = _reference(path, path.stat().st_mtime_ns)
    except (BadInput, OSError):
        return missing
    found, distance, _ = index.nearest(ra, dec, 1, 3600.0)
    if not len(table) or (found < 0).any():
        return missing
    near = table[found[:, 0]]
    return {"distnr": distance[:, 0].tolist(), "ranr": near["ra"].tolist(), "decnr": near["dec"].tolist(), "magnr": (near["mag"] + magzp).tolist(),
            "sigmagnr": near["sigmag"].tolist(), "chinr": near["chi"].tolist(), "sharpnr": near["sharp"].tolist()}


@lru_cache(maxsize=8)
def _reference(path: Path, stamp: int) -> tuple[np.ndarray, SkyIndex, float]:
    table, header = catalog_codec.read_psfcat(path)
    return table, SkyIndex(table["ra"], table["dec"]), float(header["MAGZP"])
