"""One picture of a night's alerts: science, reference and difference cut-outs side by side."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np

from targets import paths
from targets.codecs import alert
from ztfluigi.cli import report
from ztfluigi.simulate.truth import Truth

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402  the backend is chosen first

COLUMNS, ROWS = 4, 9
ORDER = ("transient", "asteroid", "variable star", "fast mover's streak", "satellite trail", "false")


def draw(root: Path, night: str) -> Path:
    """Write `depot/<night>/contact_sheet.png`; up to 36 alerts, a fair share of each kind, highest score first."""
    kinds = [(one, kind) for one, kind in report.classified(Truth(root), report.night_candidates(night)) if one["fate"] == "packet"]
    chosen = fair_share(kinds, COLUMNS * ROWS)
    records = stamps(root, chosen)
    figure, axes = pyplot.subplots(ROWS, 3 * COLUMNS, figsize=(2.1 * 3 * COLUMNS * 0.62, 2.0 * ROWS * 0.72), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for n, ((one, kind), cutouts) in enumerate(zip(chosen, records, strict=True)):
        row, first = n % ROWS, 3 * (n // ROWS)
        for k, (word, stamp) in enumerate(cutouts.items()):
            show(axes[row, first + k], stamp, word)
        axes[row, first + 1].set_title(f"{kind}  {one['objectid']}\n{one['magpsf']:.2f} mag {'+' if one['isdiffpos'] == 't' else '-'}  "
                                       f"scorr {one['scorr']:.0f}", fontsize=7)
    figure.suptitle(f"night {night}: science, reference, difference of {len(chosen)} of {len(kinds)} alerts", fontsize=11)
    figure.tight_layout(rect=(0, 0, 1, 0.98))
    path = root / "depot" / night.replace("-", "") / "contact_sheet.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
    return path


def fair_share(kinds: list, places: int) -> list:
    """Turn by turn one of each kind, highest score first."""
    queues = {kind: sorted((pair for pair in kinds if pair[1] == kind), key=lambda pair: -pair[0]["scorr"]) for kind in ORDER}
    chosen = []
    while len(chosen) < places and any(queues.values()):
        for queue in queues.values():
            if queue and len(chosen) < places:
                chosen.append(queue.pop(0))
    return sorted(chosen, key=lambda pair: (ORDER.index(pair[1]), -pair[0]["scorr"]))


def stamps(root: Path, chosen: list) -> list[dict[str, np.ndarray]]:
    """Decoded cut-outs of each candidate, from the archive's tarballs."""
    opened: dict[Path, dict[int, bytes]] = {}
    out = []
    for one, _ in chosen:
        name = paths.ScienceName.parse(one["pdiffimfilename"])
        path = root / paths.science(name.raw, name.qid, "alerts.tar.gz")
        packets = opened.setdefault(path, dict(alert.unpack_alerts(path)) if path not in opened else opened[path])
        packet = alert.read_packets(packets[one["candid"]])[0]
        out.append({word: alert.decode_cutout(packet[f"cutout{word}"]["stampData"]) for word in ("Science", "Template", "Difference")})
    return out


def show(axis, stamp: np.ndarray, word: str) -> None:
    """A stamp, grey, from 2 sigma below its sky to its peak; the difference symmetric about zero."""
    sky = np.nanmedian(stamp)
    noise = 1.4826 * np.nanmedian(np.abs(stamp - sky)) or 1.0
    peak = np.nanpercentile(stamp, 99.7) - sky
    low, high = (-6 * noise, 10 * noise) if word == "Difference" else (-2 * noise, max(peak, 8 * noise))
    axis.imshow(stamp - sky, cmap="gray", vmin=low, vmax=high, origin="upper", interpolation="nearest")
