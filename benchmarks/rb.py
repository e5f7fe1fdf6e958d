"""Real-bogus classifiers on skies that training never saw: efficiency by class at one false positive in a hundred, calibration."""

from __future__ import annotations

import numpy as np

from benchmarks.train import card, samples
from benchmarks.truth import Case
from ztfluigi.tasks.scoring import classifier

SKIES, QUICK_SKIES = 6, 2
FIRST_SKY = 50_000_000
"""Numbers of these skies start here, far above those of training."""
WANTED, CALIBRATED = 0.97, 0.1


def measure(case: Case) -> None:
    """Print the figures of one density: of `rb`, and the same of `drb`. Bogus events are those past the light filter, most of them planted.

    Beside the efficiency at one in a hundred of them stand that with the peaks of the noise set apart, and what those alone allow.
    """
    plane = case.density == "plane"
    first = FIRST_SKY + 1000 * case.seed + 500 * plane
    made = samples.join([samples.of_sky(case.density, first + k) for k in range(QUICK_SKIES if case.quick else SKIES)])
    made = made.take(made.passed)
    both = classifier()
    apart = ~made.noise
    for name, scores in (("rb", both.trees.score(made.features)), ("drb", both.network.score(made.inputs, made.features))):
        limit = card.threshold(scores, made.label)
        for word, (share, number) in card.efficiency(scores, made.label, limit).items():
            case.figure(f"{name}.efficiency_{word}", share, "fraction", number, WANTED)
        for word, (share, number) in card.efficiency(scores, made.label, card.threshold(scores[apart], made.label[apart])).items():
            case.figure(f"{name}.efficiency_noise_apart_{word}", share, "fraction", number, None)
        case.figure(f"{name}.bogus", limit, "score", np.count_nonzero(made.label == samples.BOGUS), None)
        case.figure(f"{name}.calibration", card.calibration_error(scores, made.label), "probability", len(scores), CALIBRATED)
    limit = card.ceiling(made.label, made.noise, made.table["scorr"])
    case.figure("rb.noise", limit, "sigma", np.count_nonzero(made.noise), None)
    for word, (share, number) in card.efficiency(made.table["scorr"], made.label, limit).items():
        case.figure(f"rb.ceiling_{word}", share, "fraction", number, None)
