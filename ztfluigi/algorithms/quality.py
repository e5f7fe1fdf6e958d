"""Quality verdicts: tables of thresholds turn the metrics of a product into INFOBITS and STATUS (fact sheet science.md 3).

A metric that is absent (or None) is not judged. A metric that is NaN could not be measured, and sets its bit.

Science metrics: background_dn, noise_dn [DN]; saturated_percent; fwhm_arcsec (or fwhm_pix with pixel_scale_arcsec); ellipticity;
maglim, maglim_theory [mag]; n_psf_sources; n_sex_sources; zero_point_failed (1); colour_departure [mag/mag] (of the colour coefficient from
the filter's own, less 3 sigma); nmatches; magzprms [mag]; astrometry_failed (1); psf_failed (1); and those of `astrometry.solve`.
Difference metrics: those of `subtract`, subtraction_failed (1), n_events, flux_ratio_relative (flux ratio over that of the zero points).
Bias metrics: those of `masters.make_bias` and `masters.compare`, read_noise_ratio (measured over expected).
Flat metrics: those of `masters.make_flat` and `masters.compare`, led_mix_off (1 when the LEDs are not those of the filter, equally often).
Low-frequency flat metrics: those of `low_flat.fit`.
Reference metrics: those of `coadd`, coadd_failed (1), psf_failed (1), uncovered_percent, fwhm_arcsec or fwhm_pix, maglim [mag],
n_psf_sources, n_sex_sources, magzprms [mag].
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from ztfluigi.model.errors import Unusable
from ztfluigi.model.infobits import CLOUDS


@dataclass(frozen=True)
class Threshold:
    """One row: `bit` is set when `metric` is `below` or `above` the limits (each a number, or one by filter code)."""

    bit: int
    metric: str
    below: float | Mapping[str, float] | None = None
    above: float | Mapping[str, float] | None = None
    fatal: bool = False


SCIENCE_THRESHOLDS = (
    Threshold(0, "background_dn", above=4000.0, fatal=True),
    Threshold(1, "noise_dn", above=100.0, fatal=True),
    Threshold(2, "saturated_percent", above=50.0, fatal=True),
    Threshold(3, "fwhm_arcsec", above=5.0, fatal=True),
    Threshold(4, "maglim", below=17.5, fatal=True),
    Threshold(5, "maglim_theory", below=17.5),
    Threshold(6, "n_psf_sources", below=10),
    Threshold(7, "n_sex_sources", below=20),
    Threshold(8, "zero_point_failed", above=0, fatal=True),
    Threshold(8, "colour_departure", above=0.12, fatal=True),
    Threshold(9, "nmatches", below=30),
    Threshold(10, "nmatches", below=5),
    Threshold(11, "magzprms", above=0.2),
    Threshold(12, "astrometry_failed", above=0, fatal=True),
    Threshold(13, "astrom_ref_percent", below=0.0),
    Threshold(14, "ASTROMN", below=100),
    Threshold(15, "astrom_grid_min", below=5),
    Threshold(16, "pixel_scale_percent", below=-0.20, above=2.00),
    Threshold(17, "astrom_chi2_change_percent", above=0.0),
    Threshold(18, "ASTCHI2", above=30.0),
    Threshold(19, "astrom_grid_residual_arcsec", above=0.7),
    Threshold(20, "psf_failed", above=0, fatal=True),
    Threshold(21, "astrom_detected_percent", below=50.0),
)
DIFFERENCE_THRESHOLDS = (
    Threshold(0, "subtraction_failed", above=0, fatal=True),
    Threshold(1, "noise_ratio", above=2.0, fatal=True),
    Threshold(2, "score_width", below=0.8, above=1.3),
    Threshold(3, "score_offset", above=0.2),
    Threshold(4, "flux_ratio_scatter", above=0.1),
    Threshold(5, "flux_ratio_relative", below=0.8, above=1.25),
    Threshold(6, "n_match", below=10),
    Threshold(7, "registration_rms_pix", above=0.5),
    Threshold(8, "registration_mean_pix", above=1.0),
    Threshold(9, "masked_percent", above=50.0, fatal=True),
    Threshold(10, "fwhm_difference", above=5.0),
    Threshold(11, "diffmaglim", below=17.5, fatal=True),
    Threshold(12, "n_events", above=2000, fatal=True),
    Threshold(13, "score_width", above=2.0, fatal=True),
)
REFERENCE_THRESHOLDS = (
    Threshold(0, "coadd_failed", above=0, fatal=True),
    Threshold(1, "nframes", below=15),
    Threshold(2, "cov5percent", below=50.0),
    Threshold(3, "median_depth", below=5),
    Threshold(4, "uncovered_percent", above=50.0, fatal=True),
    Threshold(5, "trimmed_fraction", above=0.1),
    Threshold(6, "fwhm_arcsec", above=5.0, fatal=True),
    Threshold(7, "maglim", below=17.5, fatal=True),
    Threshold(8, "n_psf_sources", below=10),
    Threshold(9, "n_sex_sources", below=20),
    Threshold(10, "magzprms", above=0.2),
    Threshold(11, "psf_failed", above=0, fatal=True),
)
BIAS_THRESHOLDS = (
    Threshold(0, "level", below=-20.0, above=20.0, fatal=True),
    Threshold(1, "read_noise_ratio", below=0.5, above=2.0, fatal=True),
    Threshold(2, "noisy_fraction", above=0.01),
    Threshold(3, "trimmed_fraction", above=0.05),
    Threshold(4, "shift", below=-2.0, above=2.0),
    Threshold(5, "shift_scatter", above=5.0, fatal=True),
)
FLAT_THRESHOLDS = (
    Threshold(0, "lamp_level", below=1000.0, above=50000.0, fatal=True),
    Threshold(1, "lamp_drift", above=0.5),
    Threshold(2, "noisy_fraction", above=0.01),
    Threshold(3, "trimmed_fraction", above=0.05),
    Threshold(4, "dead_fraction", above=0.2, fatal=True),
    Threshold(5, "led_mix_off", above=0),
    Threshold(6, "shift_gradient", above=0.025),
    Threshold(7, "shift_scatter", above=0.02),
    Threshold(8, "shift_gradient", above=0.25, fatal=True),
)
LOW_FLAT_THRESHOLDS = (
    Threshold(0, "cell_fraction", below=0.7, fatal=True),
    Threshold(1, "range", above=0.2, fatal=True),
    Threshold(2, "cell_scatter", above=0.01),
)

_NOMINAL_SCALE_ARCSEC = 1.0125


def judge_science(metrics: Mapping, *, filter_code: str | None = None, infobits: int = 0) -> tuple[int, int]:
    """(infobits, status) of a science image; `infobits` are bits already known, such as those an `Unusable` error carries."""
    return _judge(SCIENCE_THRESHOLDS, metrics, filter_code, infobits)


@contextmanager
def explained(metrics: Mapping, **failed: int) -> Iterator[None]:
    """What makes a science image unusable inside this block leaves it with the metrics measured so far and every bit they set.

    metrics : filled inside the block. failed : what the failure means, such as `astrometry_failed=1`.
    """
    try:
        yield
    except Unusable as reason:
        reason.numbers = {**metrics, **failed, **reason.numbers}
        reason.infobits = judge_science(reason.numbers, infobits=reason.infobits)[0]
        raise


def judge_difference(metrics: Mapping, *, filter_code: str | None = None, infobits: int = 0) -> tuple[int, int]:
    """(infobits, status) of a difference image."""
    return _judge(DIFFERENCE_THRESHOLDS, metrics, filter_code, infobits)


def judge_reference(metrics: Mapping, *, filter_code: str | None = None, infobits: int = 0) -> tuple[int, int]:
    """(infobits, status) of a reference image."""
    return _judge(REFERENCE_THRESHOLDS, metrics, filter_code, infobits)


def judge_master(product: str, metrics: Mapping) -> tuple[int, int]:
    """(infobits, status) of a calibration image; product is `bias`, `flat` or `low_flat`."""
    return _judge({"bias": BIAS_THRESHOLDS, "flat": FLAT_THRESHOLDS, "low_flat": LOW_FLAT_THRESHOLDS}[product], metrics, None, 0)


def fatal_bits(thresholds: tuple[Threshold, ...]) -> int:
    """OR of the bits that make STATUS 0."""
    return sum({1 << row.bit for row in thresholds if row.fatal})


#: Zero point above which the header is wrong, slope with airmass [mag], largest residual RMS [mag], fewest calibrators of a full quadrant.
_PHOTOMETRIC_NIGHT = {"zg": (26.7, 0.2, 0.06, 80), "zr": (26.65, 0.15, 0.05, 120), "zi": (26.0, 0.07, 0.06, 100)}


def cloud_bit(metrics: Mapping, *, filter_code: str, airmass: float, faintest_zero_point: float | None = None,
              area_fraction: float = 1.0) -> int:
    """Bit 25 (as a value) when the photometric conditions were bad, else 0: the rule of the public forced-photometry service.

    metrics : magzp, magzprms, nmatches. faintest_zero_point : lowest good MAGZP of the readout channel at airmass 0 [mag], if known.
    area_fraction : area of the quadrant over that of a full ZTF quadrant; the wanted number of calibrators scales with it.
    """
    highest, slope, rms, calibrators = _PHOTOMETRIC_NIGHT[filter_code]
    extinction = slope * airmass
    bad = metrics["magzp"] > highest - extinction or metrics["magzprms"] > rms or metrics["nmatches"] < calibrators * area_fraction
    if faintest_zero_point is not None:
        bad = bad or metrics["magzp"] < faintest_zero_point - extinction
    return 1 << CLOUDS if bad else 0


def _judge(thresholds: tuple[Threshold, ...], metrics: Mapping, filter_code: str | None, infobits: int) -> tuple[int, int]:
    values = {**metrics, **_derived(metrics)}
    for row in thresholds:
        value = values.get(row.metric)
        if value is not None and _fails(row, float(value), filter_code):
            infobits |= 1 << row.bit
    return infobits, 0 if infobits & fatal_bits(thresholds) else 1


def _fails(row: Threshold, value: float, filter_code: str | None) -> bool:
    below, above = (limit[filter_code] if isinstance(limit, Mapping) else limit for limit in (row.below, row.above))
    return math.isnan(value) or (below is not None and value < below) or (above is not None and value > above)


def _derived(metrics: Mapping) -> dict[str, float]:
    # Metrics that follow from others.
    derived = {}
    if "fwhm_pix" in metrics and "fwhm_arcsec" not in metrics:
        derived["fwhm_arcsec"] = metrics["fwhm_pix"] * metrics.get("pixel_scale_arcsec", _NOMINAL_SCALE_ARCSEC)
    if derived and 0.0 < (ellipticity := metrics.get("ellipticity", 0.0)) < 1.0:
        # the longer axis: a trail is no sharper for being thin
        derived["fwhm_arcsec"] /= math.sqrt(1.0 - ellipticity)
    if "noise" in metrics and "noise_expected" in metrics:
        derived["noise_ratio"] = metrics["noise"] / metrics["noise_expected"] if metrics["noise_expected"] > 0 else math.nan
    if "score_mean" in metrics:
        derived["score_offset"] = abs(metrics["score_mean"])
    if "dx_rms" in metrics:
        derived["registration_rms_pix"] = max(metrics["dx_rms"], metrics["dy_rms"])
    if "dx_mean" in metrics:
        derived["registration_mean_pix"] = math.hypot(metrics["dx_mean"], metrics["dy_mean"])
    return derived
