"""Figures of the classifiers, and their place in the model card `docs/real_bogus.md`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.train.samples import BOGUS, CLASSES, Samples

BEGIN, END = "<!-- written by python -m benchmarks.train -->", "<!-- end -->"
FALSE_SHARE = 0.01
BINS = np.linspace(0.0, 1.0, 6)


def threshold(scores: np.ndarray, label: np.ndarray, share: float = FALSE_SHARE) -> float:
    """Score above which that share of the bogus events lies."""
    bogus = scores[label == BOGUS]
    return float(np.quantile(bogus, 1.0 - share)) if len(bogus) else float("nan")


def efficiency(scores: np.ndarray, label: np.ndarray, limit: float) -> dict[str, tuple[float, int]]:
    """Class -> (share above the limit, number of events), of real classes."""
    return {name: (float(np.mean(scores[label == k] > limit)) if (label == k).any() else float("nan"), int(np.count_nonzero(label == k)))
            for k, name in enumerate(CLASSES) if k != BOGUS}


def ceiling(label: np.ndarray, noise: np.ndarray, height: np.ndarray) -> float:
    """Height above which as many peaks of the noise lie as FALSE_SHARE of the bogus events allows: what a classifier would have to demand of
    a faint source on empty sky that refused every other bogus event, since nothing but its height tells such a source from the noise."""
    bogus = np.count_nonzero(label == BOGUS)
    return float(np.quantile(height[noise], max(0.0, 1.0 - FALSE_SHARE * bogus / max(np.count_nonzero(noise), 1)))) if noise.any() else -np.inf


def reliability(scores: np.ndarray, label: np.ndarray) -> list[tuple[float, float, float, int]]:
    """(mean score, share of real events, its error, events) of each bin of the score, real and bogus events counting alike."""
    real = label != BOGUS
    weight = np.where(real, 0.5 / max(np.count_nonzero(real), 1), 0.5 / max(np.count_nonzero(~real), 1))
    place = np.digitize(scores, BINS[1:-1])
    rows = []
    for k in range(len(BINS) - 1):
        chosen = place == k
        if chosen.any():
            w = weight[chosen]
            share = float(np.average(real[chosen], weights=w))
            number = w.sum() ** 2 / np.sum(w**2)  # of events that counted alike and gave the same error
            rows.append((float(np.average(scores[chosen], weights=w)), share, float(np.sqrt(max(share * (1 - share), 0.25 / number) / number)),
                         int(chosen.sum())))
    return rows


def calibration_error(scores: np.ndarray, label: np.ndarray) -> float:
    """Largest excess of |share of real events - mean score| over the error of that share, over the bins of the score."""
    return max((max(0.0, abs(share - mean) - error) for mean, share, error, _ in reliability(scores, label)), default=float("nan"))


def write(docs: Path, versions: dict[str, str], scores: dict[str, np.ndarray], test: Samples, labels: dict[str, np.ndarray]) -> None:
    """Replace the figures between the marks of the card, and its curve."""
    lines = [BEGIN, "", "| events | " + " | ".join(CLASSES) + " |", "|---|" + "---|" * len(CLASSES)]
    lines += [f"| {name} | " + " | ".join(str(n) for n in np.bincount(label, minlength=len(CLASSES))) + " |" for name, label in labels.items()]
    lines += ["", "| classifier | sky | bogus | threshold | " + " | ".join(CLASSES[1:]) + " | bogus kept with 98 % of the real |",
              "|---|---|---|---|" + "---|" * len(CLASSES[1:]) + "---|"]
    for name, sky in (("sparse", ~test.plane), ("crowded", test.plane)):
        for word, chosen in (("", sky), (", noise apart", sky & ~test.noise)):
            for kind, values in scores.items():
                limit = threshold(values[chosen], test.label[chosen])
                bogus = test.label[chosen] == BOGUS
                kept = np.mean(values[chosen][bogus] > np.quantile(values[chosen][~bogus], 0.02))
                lines.append(_row(f"`{versions[kind]}`", name + word, bogus, f"{limit:.3f}", efficiency(values[chosen], test.label[chosen], limit),
                                  f"{kept:.3f}"))
        height = test.table["scorr"][sky]
        limit = ceiling(test.label[sky], test.noise[sky], height)
        lines.append(_row("noise alone", name, test.noise[sky], f"{limit:.2f} sigma", efficiency(height, test.label[sky], limit), ""))
    lines += ["", END]
    page = docs / "real_bogus.md"
    before, rest = page.read_text().split(BEGIN)
    page.write_text(before + "\n".join(lines) + rest.split(END)[1])
    _draw(docs / "real_bogus_calibration.png", scores, test.label)


def _row(first: str, sky: str, bogus: np.ndarray, limit: str, shares: dict[str, tuple[float, int]], last: str) -> str:
    return f"| {first} | {sky} | {bogus.sum()} | {limit} | " + " | ".join(f"{share:.3f}" for share, _ in shares.values()) + f" | {last} |"


def _draw(path: Path, scores: dict[str, np.ndarray], label: np.ndarray) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.6, 3.4), dpi=90, layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="0.7", lw=1)
    for kind, values in scores.items():
        mean, share, error, _ = np.array(reliability(values, label)).T
        axes.errorbar(mean, share, error, marker="o", ms=4, lw=1, label=kind)
    axes.set(xlabel="score", ylabel="share of real events", xlim=(-0.02, 1.02), ylim=(-0.05, 1.05))
    axes.legend(frameon=False)
    figure.savefig(path, metadata={"Software": None})
