"""Sources as connected pixels above a threshold, deblended (Bertin & Arnouts 1996, A&AS 117, 393), by way of `sep`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import sep

from ztfluigi.model.columns import Column, dtype_of
from ztfluigi.model.config.astrometry import DetectionConfig
from ztfluigi.model.config.photometry import ApertureConfig
from ztfluigi.model.maskbits import Mask

_PIXSTACK, _OBJECTS_PER_FRAME = 1_000_000, 4096
#: Pixels without any sky: not searched and not summed (their share of an aperture is filled with its mean).
_BLIND = int(Mask.TRACK | Mask.SPIKE | Mask.DEAD | Mask.NAN)

START = (
    Column("x", "f8", "pix", "isophotal barycentre, zero-based"),
    Column("y", "f8", "pix", "isophotal barycentre, zero-based"),
    Column("flux", "f8", "DN", "isophotal flux"),
    Column("fluxerr", "f8", "DN", "its 1-sigma uncertainty"),
)
"""What a PSF fit starts from."""


@dataclass
class Sources:
    """Rows of `sep.extract`, the segmentation map int32 (ny, nx) (row + 1; 0: no source), the image float32 searched (unusable pixels 0)
    and what was unusable, bool (ny, nx)."""

    found: np.ndarray
    segments: np.ndarray
    data: np.ndarray
    bad: np.ndarray


def segment(data: np.ndarray, rms: np.ndarray, mask: np.ndarray, config: ApertureConfig = ApertureConfig()) -> Sources:
    """Sources of a background-subtracted image, for the aperture catalogue and as start of the PSF fit.

    data, rms : float32 (ny, nx) [DN]. mask : uint16. Pixels with TRACK, SPIKE, DEAD or NAN bits, or not finite, are not searched.
    """
    data = np.ascontiguousarray(data, np.float32)
    bad = (mask & np.uint16(_BLIND)) != 0
    bad |= ~np.isfinite(data) | ~(rms > 0)
    if bad.any():
        data = np.where(bad, np.float32(0.0), data)
    return Sources(*extract(data, rms, bad, config, segments=True), data, bad)


def starts(sources: Sources, rms: np.ndarray, gain: float) -> np.ndarray:
    """Structured array of `START`; gain [electron/DN]."""
    found = sources.found
    table = np.zeros(len(found), dtype_of(START))
    table["x"], table["y"], table["flux"] = found["x"], found["y"], found["flux"]
    table["fluxerr"] = flux_error(found, rms, gain)
    return table


def flux_error(found: np.ndarray, rms: np.ndarray, gain: float) -> np.ndarray:
    """1-sigma uncertainty [DN] of isophotal fluxes: sky and photons."""
    sky_noise = rms[np.clip(found["ypeak"], 0, None), np.clip(found["xpeak"], 0, None)].astype(float)
    return np.sqrt(found["npix"] * sky_noise**2 + np.maximum(found["flux"], 0.0) / gain)


def extract(data: np.ndarray, rms: np.ndarray, bad: np.ndarray, config: ApertureConfig | DetectionConfig, *, segments: bool = False):
    """Rows of `sep.extract`, with the segmentation map if asked for.

    No cleaning: it takes half of the time in a crowded field and drops real neighbours; fits subtract the wings instead.
    A crowded field overflows the stack of pixels or the list of blends: it is tried again with more room rather than lost.
    """
    pixstack, objects = _PIXSTACK, _OBJECTS_PER_FRAME
    for _ in range(4):
        sep.set_extract_pixstack(pixstack)
        sep.set_sub_object_limit(objects)
        try:
            return sep.extract(data, config.threshold, err=rms, mask=bad if bad.any() else None, minarea=config.min_area,
                               filter_type="conv", deblend_nthresh=config.deblend_levels, deblend_cont=config.deblend_contrast,
                               clean=False, segmentation_map=segments)
        except Exception as error:  # sep raises bare Exception
            if "pixel buffer" not in str(error) and "deblending overflow" not in str(error):
                raise
            pixstack, objects = 4 * pixstack, 4 * objects
    raise MemoryError(f"more than {pixstack} pixels above the threshold of {config.threshold} sigma")
