"""Small raw files and tables for the codec tests."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from targets.codecs import raw
from ztfluigi.model.camera import load_camera
from ztfluigi.model.header import Header

NAME = "ztf_20200924431759_000655_zr_c01_o.fits.fz"
CAMERA = replace(load_camera("ztf-mini"), shape=(40, 64), overscan_columns=30)


def primary() -> dict:
    return {"ORIGIN": ("Zwicky Transient Facility", "Data origin"), "IMGTYPE": "object", "EXPTIME": 30.0,
            "FILENAME": NAME.removesuffix(".fz"), "FIELDID": 655, "OBJRAD": 55.0608, "OBJDECD": 33.35, "PROGRMPI": "Kulkarni",
            "HUMIDITY": 31.0, "MOONRA": 276.208, "MOONDEC": -24.561, "MOONALT": -42.5318, "MOONILLF": 0.540086, "MOONESB": 0.0, "PROGRMID": 1,
            "FILTERID": 2, "FILTER": "ZTF_r",
            "OBSJD": (2459116.9317708, "Julian day"), "OBSMJD": 59116.4317708, "TELRAD": 55.0608, "TELDECD": 33.35, "AZIMUTH": 85.88,
            "ELVATION": 79.13, "AIRMASS": 1.018, "SHUTOPEN": "2020-09-24T10:21:45.646", "SHUTCLSD": "2020-09-24T10:22:15.610", "NFRAMES": 8}


def quadrant(qid: int) -> dict:
    return {"CCD_ID": 1, "AMP_ID": qid - 1, "GAIN": 6.2, "READNOI": 9.6, "CRPIX1": 32.5, "CRPIX2": 20.5, "CRVAL1": 55.06, "CRVAL2": 33.35,
            "CD1_1": -2.8e-4, "CD2_2": -2.8e-4}


def make_raw(folder, name: str = NAME, *, kind: str = "u2", primary_changes=(), quadrant_changes=(), shape=CAMERA.shape, overscan=30):
    """A raw file of random pixels; returns (path, images, overscans)."""
    rng = np.random.default_rng(5)
    images = [(rng.normal(300, 8, shape) + 100 * q).astype(kind) for q in range(4)]
    overscans = [rng.normal(120, 2, (shape[0], overscan)).astype(kind) for _ in range(4)]
    head = Header(primary()).merged(dict(primary_changes))
    quadrants = [Header(quadrant(qid)).merged(dict(quadrant_changes)) for qid in raw.QUADRANTS]
    raw.write_raw(folder / name, head, images, overscans, quadrants)
    return folder / name, images, overscans
