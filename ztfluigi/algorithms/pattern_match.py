"""Pattern match of two star lists on a plane: votes of pair offsets over a grid of rotations and scales, then proof.

The brightest stars of both lists, equal in surface density, vote for offsets; for the right rotation and scale true pairs fall
in one cell. The best cells are refined to an affine transformation, and one is accepted only when chance pairs, counted at control
offsets of the same transformation, cannot explain its number of pairs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numba import njit
from scipy.spatial import cKDTree
from scipy.stats import poisson

CHANCE_LIMIT = 1e-5
"""Largest accepted probability that a match is chance, over all trials of the search; on unrelated lists it stays above 0.1."""
MIN_FRACTION = 0.15
"""Smallest accepted fraction of paired stars in the shorter list."""
MAX_SHEAR = 0.005
_FREE_PAIRS = {4: 2, 6: 3}  # pairs that a transformation of so many parameters fits exactly
_BRIGHTEST = (60, 200, 600)
_CANDIDATES = 4
_CONTROL_RADII = (6.0, 10.0)  # in pair radii
_PROOF_RADII = (1.0, 0.5, 0.25)  # in pair radii; the narrowest that the camera's distortion allows tells most


@dataclass(frozen=True)
class PatternMatch:
    """`reference = matrix @ (x, y) + offset` [pix]; pairs; log10 of the chance probability over all trials."""

    matrix: np.ndarray
    offset: np.ndarray
    pairs: int
    fraction: float
    log_chance: float

    def apply(self, x, y) -> tuple[np.ndarray, np.ndarray]:
        (a, b), (c, d) = self.matrix
        return a * x + b * y + self.offset[0], c * x + d * y + self.offset[1]


def match_pattern(x, y, ref_x, ref_y, *, shape, search_radius: float, pair_radius: float, max_rotation_deg: float,
                  max_scale_change: float) -> PatternMatch | None:
    """Find the transformation from detections to reference stars; None when no transformation is beyond chance.

    Parameters
    ----------
    x, y : float (n,) detections, brightest first [pix]. ref_x, ref_y : float (m,) predicted positions of reference stars, brightest
    first, on the same grid [pix]; some may lie outside the frame. NaN is not allowed.
    shape : (ny, nx) of the frame. search_radius : largest offset [pix]. pair_radius : largest separation of a true pair after an
    affine transformation [pix].
    """
    stars = np.column_stack([x, y]).astype(float)
    refs = np.column_stack([ref_x, ref_y]).astype(float)
    centre = np.array([(shape[1] - 1) / 2.0, (shape[0] - 1) / 2.0])
    inside = np.all(np.abs(refs - centre) <= np.array([shape[1], shape[0]]) / 2.0, axis=1)
    if not inside.any() or not len(stars):
        return None
    rank = np.cumsum(inside)
    seen = 0
    for brightest in _BRIGHTEST:
        n = min(brightest, len(stars))
        # A margin of fainter reference stars makes up for different passbands and for saturated stars missing among the detections.
        m = int(np.searchsorted(rank, 1.3 * n, side="right")) or len(refs)
        if n + m == seen:
            break
        seen = n + m
        found = _search(stars[:n], refs[:m], stars[: 4 * n], refs[: 4 * m], centre, shape, search_radius, pair_radius,
                        max_rotation_deg, max_scale_change)
        if found is not None:
            return found
    return None


def _search(vote_stars, vote_refs, stars, refs, centre, shape, search_radius, pair_radius, max_rotation_deg, max_scale_change):
    cell = 2.0 * pair_radius
    half_diagonal = 0.5 * math.hypot(*shape)
    # Steps that move the corners of the frame by no more than one cell from one trial to the next.
    rotations = _steps(math.radians(max_rotation_deg), cell / half_diagonal)
    scales = 1.0 + _steps(max_scale_change, cell / half_diagonal)
    vote_refs = vote_refs[np.argsort(vote_refs[:, 0], kind="stable")]
    peaks = _vote(vote_stars - centre, vote_refs - centre, rotations, scales, search_radius, cell)
    trials = rotations.size * scales.size * (2.0 * search_radius / cell) ** 2
    tree = cKDTree(refs)
    best = None
    for k in np.argsort(-peaks[:, 0], kind="stable")[:_CANDIDATES]:
        votes, rotation, scale, dx, dy = peaks[k]
        if votes < 4:
            break
        cos, sin = scale * math.cos(rotation), scale * math.sin(rotation)
        matrix = np.array([[cos, -sin], [sin, cos]])
        offset = centre + (dx, dy) - matrix @ centre
        found = _refine(matrix, offset, stars, refs, tree, pair_radius, trials)
        if found is None or found.log_chance > math.log10(CHANCE_LIMIT) or found.fraction < MIN_FRACTION:
            continue
        if not _is_plausible(found.matrix, 1.2 * math.radians(max_rotation_deg) + 1e-3, 1.2 * max_scale_change + 1e-3):
            continue
        if best is None or found.log_chance < best.log_chance:
            best = found
    return best


def _steps(limit: float, step: float) -> np.ndarray:
    n = int(math.ceil(limit / step))
    return np.linspace(-limit, limit, 2 * n + 1) if n else np.zeros(1)


@njit(cache=True, nogil=True)
def _vote(stars, refs, rotations, scales, radius, cell):
    # Best cell of each (rotation, scale): rows of votes in 2 x 2 cells, rotation, scale, dx, dy. `refs` are sorted by x.
    n_cells = int(2.0 * radius / cell) + 2
    votes = np.zeros((n_cells, n_cells), np.int32)
    peaks = np.zeros((rotations.size * scales.size, 5))
    row = 0
    for rotation in rotations:
        for scale in scales:
            votes[:] = 0
            cos, sin = scale * math.cos(rotation), scale * math.sin(rotation)
            for i in range(stars.shape[0]):
                sx = cos * stars[i, 0] - sin * stars[i, 1]
                sy = sin * stars[i, 0] + cos * stars[i, 1]
                for j in range(np.searchsorted(refs[:, 0], sx - radius), refs.shape[0]):
                    dx, dy = refs[j, 0] - sx, refs[j, 1] - sy
                    if dx >= radius:
                        break
                    if -radius <= dy < radius:
                        votes[int((dy + radius) / cell), int((dx + radius) / cell)] += 1
            best, bi, bj = -1, 0, 0
            for j in range(n_cells - 1):
                for i in range(n_cells - 1):
                    total = votes[j, i] + votes[j + 1, i] + votes[j, i + 1] + votes[j + 1, i + 1]
                    if total > best:
                        best, bi, bj = total, i, j
            peaks[row, 0], peaks[row, 1], peaks[row, 2] = best, rotation, scale
            peaks[row, 3], peaks[row, 4] = (bi + 1) * cell - radius, (bj + 1) * cell - radius
            row += 1
    return peaks


def _pairs(points, tree, radius):
    # Mutual nearest pairs within `radius`: indices of points and of the tree's stars.
    distance, index = tree.query(points, distance_upper_bound=radius)
    return unique_pairs(distance, index, tree.n)


def unique_pairs(distance, index, n_targets: int) -> tuple[np.ndarray, np.ndarray]:
    """One point for each target, the closest: (points, targets) from a nearest-neighbour query (index n_targets: none)."""
    points = np.flatnonzero(index < n_targets)
    order = points[np.argsort(distance[points], kind="stable")]
    targets, first = np.unique(index[order], return_index=True)
    return order[first], targets


def _refine(matrix, offset, stars, refs, tree, pair_radius, trials):
    for factor in (4.0, 2.5, 1.5, 1.0, 1.0):
        points = stars @ matrix.T + offset
        i, j = _pairs(points, tree, factor * pair_radius)
        if i.size <= _FREE_PAIRS[6]:
            return None
        # Few pairs, or a wide radius with chance pairs in it: four parameters are steadier than six.
        parameters = 6 if i.size >= 12 and factor < 4.0 else 4
        matrix, offset = (_fit_affine if parameters == 6 else _fit_similarity)(stars[i], refs[j])
        if not np.all(np.isfinite(matrix)):
            return None
    best = None
    for factor in _PROOF_RADII:
        radius = factor * pair_radius
        points = stars @ matrix.T + offset
        i, j = _pairs(points, tree, radius)
        if i.size <= _FREE_PAIRS[6]:
            break
        found = _prove(matrix, offset, points, refs, tree, radius, i.size, parameters, trials * len(_PROOF_RADII))
        if best is None or found.log_chance < best.log_chance:
            best = found
        parameters = 6 if i.size >= 12 else 4
        matrix, offset = (_fit_affine if parameters == 6 else _fit_similarity)(stars[i], refs[j])
    return best


def _prove(matrix, offset, points, refs, tree, radius, pairs, parameters, trials):
    # The transformation with the probability that unrelated lists give as many pairs.
    # Only stars that could have a partner count: those in the area that the reference stars cover.
    covered = np.all((points >= refs.min(axis=0)) & (points <= refs.max(axis=0)), axis=1)
    low, high = points.min(axis=0) - radius, points.max(axis=0) + radius
    in_frame = np.all((refs >= low) & (refs <= high), axis=1)
    area = max(np.prod(high - low), 1.0)
    expected = covered.sum() * in_frame.sum() / area * math.pi * radius**2
    controls = []
    for distance in _CONTROL_RADII:
        for angle in np.arange(8) * (math.pi / 4):
            shift = distance * radius * np.array([math.cos(angle), math.sin(angle)])
            controls.append(_pairs(points + shift, tree, radius)[0].size)
    expected = max(expected, float(np.mean(controls)), 1e-3)
    log_chance = max(-300.0, float(poisson.logsf(pairs - _FREE_PAIRS[parameters] - 1, expected) / math.log(10.0) + math.log10(trials)))
    return PatternMatch(matrix, offset, int(pairs), pairs / max(1, min(covered.sum(), in_frame.sum())), log_chance)


def _fit_similarity(a, b):
    mean_a, mean_b = a.mean(axis=0), b.mean(axis=0)
    u, v = a - mean_a, b - mean_b
    norm = np.sum(u * u)
    if not norm > 0:
        return np.full((2, 2), np.nan), np.zeros(2)
    cos, sin = np.sum(u * v) / norm, np.sum(u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0]) / norm
    matrix = np.array([[cos, -sin], [sin, cos]])
    return matrix, mean_b - matrix @ mean_a


def _fit_affine(a, b):
    mean = a.mean(axis=0)
    design = np.column_stack([a - mean, np.ones(len(a))])
    solution = np.linalg.lstsq(design, b, rcond=None)[0]
    residual = np.hypot(*(b - design @ solution).T)
    good = residual <= 3.0 * np.median(residual) + 1e-9
    solution = np.linalg.lstsq(design[good], b[good], rcond=None)[0]
    matrix = solution[:2].T
    return matrix, solution[2] - matrix @ mean


def _is_plausible(matrix, max_rotation, max_scale) -> bool:
    (a, b), (c, d) = matrix
    rotation, scale = math.atan2(c - b, a + d), math.sqrt(abs(a * d - b * c))
    shear = max(abs(a - d), abs(b + c)) / 2.0
    return a * d - b * c > 0 and abs(rotation) <= max_rotation and abs(scale - 1.0) <= max_scale and shear <= MAX_SHEAR
