"""The QA figure of one science quadrant: image, sky, astrometric and photometric residuals, PSF, and the verdict in words (PNG)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib
import numpy as np

from ztfluigi.model.maskbits import UNUSABLE, Mask
from ztfluigi.model.psf import PsfModel

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402  the backend is chosen first
from matplotlib.colors import AsinhNorm, ListedColormap  # noqa: E402

if TYPE_CHECKING:
    from ztfluigi.algorithms.photometric_calibration import ZeroPoint

PIXELS = 600
"""The image is shown with at most this many pixels a side."""
CELLS = 10
"""Cells a side of the maps of residuals."""
GOOD, BAD, INK = "#1a7f37", "#b42318", "#24292f"
SHOWN_BITS = ((Mask.SATURATED, "#d62728", "saturated"), (Mask.SPIKE, "#1f77b4", "cosmic ray"), (Mask.TRACK, "#2ca02c", "track"),
              (Mask.GHOST | Mask.HALO, "#9467bd", "ghost, halo"), (Mask.DEAD | Mask.NAN | Mask.NOISY, "#ff7f0e", "dead, noisy"))


@dataclass
class QuadrantPlot:
    """What is shown; None where a step was not reached.

    title, verdict : lines of text; usable : STATUS. data, mask, level : image, its mask, sky [DN] of the same shape. scale : arcsec/pix.
    astrometry : residual rows (x, y, dra_mas, ddec_mas, g_mag). zero_point : fit with its residual rows. psf : PSF over the quadrant.
    numbers : (name, text) pairs.
    """

    title: str
    usable: bool
    verdict: list[str]
    numbers: list[tuple[str, str]]
    scale: float
    data: np.ndarray
    mask: np.ndarray | None = None
    level: np.ndarray | None = None
    astrometry: np.ndarray | None = None
    zero_point: ZeroPoint | None = None
    psf: PsfModel | None = None


def write_quadrant_figure(path: Path, plot: QuadrantPlot) -> None:
    """Draw and write the figure."""
    style = {"font.size": 8, "axes.titlesize": 8.5, "axes.titleweight": "bold", "axes.titlelocation": "left", "axes.edgecolor": "#8c959f",
             "text.color": INK, "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK, "figure.facecolor": "white"}
    with pyplot.rc_context(style):
        figure, axes = pyplot.subplots(2, 4, figsize=(17.0, 8.9), layout="constrained")
        figure.get_layout_engine().set(w_pad=0.08, h_pad=0.10)
        for draw, axis in zip((_image, _sky, _astrometry_map, _astrometry_scatter, _psf, _photometry_map, _zero_point, _words), axes.flat,
                              strict=True):
            if draw(figure, axis, plot) is False:
                axis.text(0.5, 0.5, "not reached", ha="center", va="center", color="#8c959f", fontsize=11, transform=axis.transAxes)
                axis.set(xticks=[], yticks=[])
        figure.suptitle(plot.title, x=0.012, ha="left", fontsize=13, fontweight="bold", color=INK)
        figure.savefig(path, format="png", dpi=100)
        pyplot.close(figure)


def _image(figure, axis, plot: QuadrantPlot):
    step = max(1, -(-max(plot.data.shape) // PIXELS))
    ny, nx = (n // step * step for n in plot.data.shape)
    blocks = (ny // step, step, nx // step, step)
    image = np.nan_to_num(plot.data[:ny, :nx], nan=0.0, posinf=0.0, neginf=0.0).reshape(blocks).max(axis=(1, 3))
    sky = float(np.median(image))
    noise = max(sky - float(np.percentile(image, 16)), 1e-3)
    axis.imshow(image, origin="lower", cmap="gray_r", norm=AsinhNorm(5 * noise, sky - 4 * noise, sky + 200 * noise), extent=(0, nx, 0, ny),
                interpolation="nearest")
    if plot.mask is not None:
        for bits, colour, name in SHOWN_BITS:
            hit = ((plot.mask[:ny, :nx] & np.uint16(bits)) != 0).reshape(blocks).any(axis=(1, 3))
            layer = np.ma.masked_where(~hit, hit)
            axis.imshow(layer, origin="lower", cmap=ListedColormap([colour]), extent=(0, nx, 0, ny), interpolation="nearest", alpha=0.8)
            if hit.any():
                axis.plot([], [], "s", color=colour, markersize=5, label=name)
        axis.legend(loc="lower left", bbox_to_anchor=(-0.03, -0.11), ncols=5, frameon=False, fontsize=7, handletextpad=0.1, columnspacing=0.8)
    masked = f", {100 * np.mean((plot.mask & np.uint16(UNUSABLE)) != 0):.2f}% masked" if plot.mask is not None else ""
    axis.set(title=f"image{masked}", xticks=[], yticks=[])


def _sky(figure, axis, plot: QuadrantPlot):
    if plot.level is None:
        return False
    ny, nx = plot.level.shape
    level = plot.level[::8, ::8]
    shown = axis.imshow(level, origin="lower", cmap="cividis", extent=(0, nx, 0, ny))
    figure.colorbar(shown, ax=axis, shrink=0.82, pad=0.02)
    axis.set(title=f"sky {np.median(level):.1f} DN, {np.ptp(level):.1f} from end to end", xticks=[], yticks=[])


def _cells(x, y, shape, *values):
    """Cell centres and medians of values in cells with 3 stars or more: x, y, medians."""
    column, row = (np.clip((v * CELLS / n).astype(int), 0, CELLS - 1) for v, n in ((x, shape[1]), (y, shape[0])))
    cell = row * CELLS + column
    rows = [(k, np.flatnonzero(cell == k)) for k in np.unique(cell)]
    rows = [(k, members) for k, members in rows if len(members) >= 3]
    centres = np.array([((k % CELLS + 0.5) * shape[1] / CELLS, (k // CELLS + 0.5) * shape[0] / CELLS) for k, _ in rows]).reshape(-1, 2)
    return centres[:, 0], centres[:, 1], *(np.array([np.median(v[members]) for _, members in rows]) for v in values)


def _astrometry_map(figure, axis, plot: QuadrantPlot):
    rows = plot.astrometry
    if rows is None or not len(rows):
        return False
    ny, nx = plot.data.shape
    axis.plot(rows["x"], rows["y"], ".", color="#d0d7de", markersize=2)
    # east is to the left: an arrow shows how the stars of a cell lie off Gaia on the sky, north up
    x, y, east, north = _cells(rows["x"], rows["y"], (ny, nx), rows["dra_mas"], rows["ddec_mas"])
    if len(x):
        size = max(10.0, float(np.ceil(np.percentile(np.hypot(east, north), 90) / 10.0) * 10.0))
        arrows = axis.quiver(x, y, -east, north, color="#0550ae", angles="uv", scale=size * CELLS * 1.1, width=0.006, pivot="mid")
        axis.quiverkey(arrows, 0.84, -0.05, size, f"{size:.0f} mas", labelpos="E", coordinates="axes", fontproperties={"size": 8})
    axis.set(title=f"astrometry: image minus Gaia, medians of {len(rows)} stars in cells", xlim=(0, nx), ylim=(0, ny), aspect="equal",
             xticks=[], yticks=[])


def _astrometry_scatter(figure, axis, plot: QuadrantPlot):
    rows = plot.astrometry
    if rows is None or not len(rows):
        return False
    for name, colour, label in (("dra_mas", "#0550ae", "RA"), ("ddec_mas", "#bc4c00", "Dec")):
        axis.plot(rows["g_mag"], rows[name], ".", color=colour, markersize=2.5, alpha=0.5, label=f"{label}: RMS {np.std(rows[name]):.0f} mas")
    edge = max(30.0, 1.2 * float(np.percentile(np.abs([rows["dra_mas"], rows["ddec_mas"]]), 99)))
    axis.axhline(0.0, color=INK, linewidth=0.7)
    axis.legend(loc="upper left", frameon=False, markerscale=4, handletextpad=0.1)
    axis.set(title="astrometry: image minus Gaia", xlabel="G [mag]", ylabel="residual [mas]", ylim=(-edge, edge))


def _psf(figure, axis, plot: QuadrantPlot):
    if plot.psf is None:
        return False
    ny, nx = plot.psf.shape
    x, y = np.linspace(0, nx - 1, 5), np.linspace(0, ny - 1, 5)
    stamps = [np.hstack([_framed(plot.psf.render(cx, cy)) for cx in x]) for cy in y]
    shown = np.vstack(stamps)
    peak = float(np.nanmax(shown))
    axis.imshow(shown, origin="lower", cmap="magma", norm=AsinhNorm(0.01 * peak, -0.002 * peak, peak), interpolation="nearest")
    size = stamps[0].shape[0]
    widths = []
    for i, cy in enumerate(y):
        for j, cx in enumerate(x):
            widths.append(plot.scale * plot.psf.fwhm(cx, cy))
            axis.text(size * (j + 0.5), size * i + 1.6, f'{widths[-1]:.2f}"', color="white", ha="center", fontsize=7)
    axis.set(title=f'PSF: FWHM {min(widths):.2f}" to {max(widths):.2f}" with the pixel, e = {plot.psf.ellipticity():.3f}',
             xticks=[], yticks=[])


def _framed(stamp: np.ndarray) -> np.ndarray:
    return np.pad(stamp[4:-4, 4:-4], 1, constant_values=np.nan)


def _photometry_map(figure, axis, plot: QuadrantPlot):
    if plot.zero_point is None:
        return False
    ny, nx = plot.data.shape
    rows = plot.zero_point.residuals[plot.zero_point.residuals["used"]]
    limit = max(10.0, 2.0 * float(np.percentile(np.abs(1e3 * rows["residual"]), 60)))
    x, y, value = _cells(rows["x"], rows["y"], (ny, nx), 1e3 * rows["residual"])
    axis.scatter(rows["x"], rows["y"], c=1e3 * rows["residual"], cmap="RdBu_r", vmin=-limit, vmax=limit, s=7, linewidths=0)
    shown = axis.scatter(x, y, c=value, cmap="RdBu_r", vmin=-limit, vmax=limit, s=150, marker="s", edgecolors="#8c959f", linewidths=0.6)
    figure.colorbar(shown, ax=axis, shrink=0.82, pad=0.02, label="PS1 minus image [mmag]")
    spread = f", cells scatter {np.std(value):.1f} mmag" if len(value) > 3 else ""
    axis.set(title=f"photometry: {len(rows)} stars{spread}", xlim=(0, nx), ylim=(0, ny), aspect="equal", xticks=[], yticks=[])


def _zero_point(figure, axis, plot: QuadrantPlot):
    fit = plot.zero_point
    if fit is None:
        return False
    rows = fit.residuals
    difference = rows["mag_ps1"] - rows["mag_inst"]
    for used, colour, label in ((False, "#d0d7de", "left out"), (True, "#0550ae", "used")):
        chosen = rows["used"] == used
        axis.errorbar(rows["colour"][chosen], difference[chosen], rows["uncertainty"][chosen], fmt=".", color=colour, ecolor="#c8d9ee", markersize=3,
                      elinewidth=0.5, label=f"{label}: {chosen.sum()}")
    line = np.array([rows["colour"].min(), rows["colour"].max()])
    axis.plot(line, fit.magzp + fit.clrcoeff * line, color="#bc4c00", linewidth=1.6)
    middle, edge = float(np.median(difference)), max(0.1, 5.0 * fit.magzprms)
    axis.legend(loc="lower right", frameon=False, ncols=2)
    axis.set(title=f"zero point {fit.magzp:.4f}, colour term {fit.clrcoeff:+.4f}, RMS {1e3 * fit.magzprms:.0f} mmag",
             xlabel=f"PS1 {fit.pcolor.lower()} [mag]", ylabel="PS1 minus instrumental [mag]", ylim=(middle - edge, middle + edge))


def _words(figure, axis, plot: QuadrantPlot):
    axis.axis("off")
    axis.text(0.0, 1.0, "usable" if plot.usable else "unusable", color=GOOD if plot.usable else BAD, fontsize=15, fontweight="bold", va="top",
              transform=axis.transAxes)
    y = 0.92
    for sentence in plot.verdict:
        axis.text(0.0, y, sentence, fontsize=7.5, color=BAD, va="top", transform=axis.transAxes, wrap=True)
        y -= 0.045
    y = min(y, 0.90)
    for name, value in plot.numbers:
        axis.text(0.0, y - 0.01, name, fontsize=8.5, color="#57606a", va="top", transform=axis.transAxes)
        axis.text(0.62, y - 0.01, value, fontsize=8.5, va="top", transform=axis.transAxes)
        y -= 0.047
