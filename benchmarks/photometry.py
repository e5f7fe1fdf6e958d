"""Photometry: zero point, colour term, repeatability, linearity in magnitude, honesty of errors (target 0.95 to 1.1), depth (to 0.05 of
theory either way)."""

from __future__ import annotations

import numpy as np

from benchmarks.truth import Case, Matched, ideal_limit, matched, night, true_magzp, width

REPEAT_SNR, TREND_SNR = 100.0, 10.0
TREND_ERROR_MMAG = 2.0
PULL_SNR = 10.0, 50.0


def measure(case: Case) -> None:
    """Print the figures of one case; zero point, colour and limit are the mean absolute errors over the epochs."""
    epochs = night(case).epochs
    tables = [matched(epoch) for epoch in epochs]
    zero_points = [1e3 * abs(epoch.magzp - true_magzp(epoch.truth)) for epoch in epochs]
    colours = [abs(epoch.found.zero_point.clrcoeff - epoch.truth.colour_term) for epoch in epochs]
    limits = [epoch.found.metrics["maglim"] - ideal_limit(epoch.truth) for epoch in epochs]
    repeat = _repeat(tables, [epoch.magzp for epoch in epochs])
    trend, n_trend = _trend(tables)
    pull = np.concatenate([_pull(table) for table in tables])
    case.figure("photometry.zp_mmag", np.mean(zero_points), "mmag", len(epochs), 3.0)
    case.figure("photometry.colour", np.mean(colours), "mag/mag", len(epochs), 0.005)
    case.figure("photometry.repeat_mmag", np.median(repeat) if len(repeat) else np.nan, "mmag", len(repeat), 8.0)
    case.figure("photometry.trend_mmag", trend, "mmag", n_trend, 5.0)
    case.figure("photometry.pull", width(pull), "sigma", len(pull), 1.1)
    case.figure("photometry.maglim_mag", np.mean(limits), "mag", len(epochs), 0.05)


def _repeat(tables: list[Matched], magzp: list[float]) -> np.ndarray:
    """RMS over the epochs [mmag] of every constant star with S/N above `REPEAT_SNR` in all of them; calibrated, nothing else corrected."""
    ids = tables[0].stars["id"][tables[0].snr > REPEAT_SNR]
    for table in tables[1:]:
        ids = np.intersect1d(ids, table.stars["id"][table.snr > REPEAT_SNR])
    measured, true = np.empty((len(tables), len(ids))), np.empty((len(tables), len(ids)))
    for n, (table, zero) in enumerate(zip(tables, magzp, strict=True)):
        _, _, rows = np.intersect1d(ids, table.stars["id"], return_indices=True)
        measured[n], true[n] = table.rows["mag"][rows] + zero, table.stars["mag"][rows]
    constant = np.ptp(true, axis=0) < 1e-3
    return 1e3 * measured[:, constant].std(axis=0, ddof=1)


def _trend(tables: list[Matched]) -> tuple[float, int]:
    """Largest absolute median error [mmag] of a magnitude bin, relative to the stars brighter than S/N 100, epochs together."""
    error = np.concatenate([1e3 * -2.5 * np.log10(t.rows["flux"] / t.flux) for t in tables])
    mag, snr = (np.concatenate(parts) for parts in zip(*((t.stars["mag"], t.snr) for t in tables), strict=True))
    middle = np.median(error[snr > REPEAT_SNR])
    bins = [error[(mag >= m) & (mag < m + 1.0) & (snr > TREND_SNR)] for m in np.arange(13.0, 21.0)]
    # a bin too small for the target says nothing
    bins = [values for values in bins if len(values) >= 30 and width(values) / len(values) ** 0.5 < TREND_ERROR_MMAG]
    return max((abs(float(np.median(values) - middle)) for values in bins), default=np.nan), sum(map(len, bins))


def _pull(table: Matched) -> np.ndarray:
    """Flux errors over their stated uncertainties, where noise and not the PSF limits."""
    rows, low_high = table.rows, (table.snr > PULL_SNR[0]) & (table.snr < PULL_SNR[1])
    return ((rows["flux"] - table.flux) / rows["sigflux"])[low_high]
