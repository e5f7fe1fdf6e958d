"""Least-squares fits of TPV world coordinates to matched stars."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ztfluigi.model.wcs import TPV_POWERS, TpvWcs, deproject, project


def fit_linear(x, y, ra, dec, *, start: TpvWcs) -> TpvWcs:
    """Pointing, rotation and scale (CRVAL, CD) from matched stars; CRPIX and the distortion of `start` stay.

    x, y : zero-based pixels; ra, dec [deg], all (n,), n >= 3. Unweighted, with stars beyond 3 robust sigma left out.
    """
    wcs = start
    used = np.ones(x.size, bool)
    u, v = x + 1.0 - start.crpix[0], y + 1.0 - start.crpix[1]
    for _ in range(4):
        plane = wcs.undistort(*project(ra, dec, *wcs.crval))
        target = np.column_stack(plane)
        design = np.column_stack([u, v, np.ones(x.size)])
        solution = np.linalg.lstsq(design[used], target[used], rcond=None)[0]
        residual = np.hypot(*(target - design @ solution).T)
        used = residual <= 3.0 * np.median(residual) + 1e-12
        cd = ((solution[0, 0], solution[1, 0]), (solution[0, 1], solution[1, 1]))
        wcs = replace(wcs, crval=_move(wcs.crval, solution[2]), cd=_floats(cd))
    return wcs


def fit_tpv(x, y, ra, dec, variance, *, start: TpvWcs, prior: TpvWcs, order: int, tolerance: float) -> TpvWcs:
    """Polynomial distortion of `order` (1 to 4) by weighted least squares; the linear part goes into CRVAL and CD.

    variance : [deg^2], (n,) or (2, n), of each star in each axis of the tangent plane.
    prior : its TPV coefficients are the expectation of those of degree 2 and more, with standard deviation `tolerance` [deg^(1-n)],
    so that a region without stars follows the prior; terms above `order` keep it exactly.
    """
    variance = np.broadcast_to(variance, (2, x.size))
    wcs = start
    for _ in range(2):
        # The first round finds the linear part, the second fits the coefficients about it, so that PV1 and PV2 start as identity.
        own = wcs.intermediate(x, y)
        target = project(ra, dec, *wcs.crval)
        pv = [_fit_axis(own[k], own[1 - k], target[k], variance[k], (prior.pv1, prior.pv2)[k], order, tolerance) for k in (0, 1)]
        jacobian = np.array([[pv[0][1], pv[0][2]], [pv[1][2], pv[1][1]]])
        last = replace(wcs, pv1=pv[0], pv2=pv[1])
        wcs = replace(last, cd=_floats(jacobian @ np.array(wcs.cd)), crval=_move(wcs.crval, (pv[0][0], pv[1][0])))
    return last


def terms_of(order: int) -> tuple[int, ...]:
    """TPV coefficient numbers up to a total degree."""
    return tuple(n for n, powers in TPV_POWERS.items() if sum(powers) <= order)


def _fit_axis(own, other, target, variance, prior, order, tolerance) -> dict[int, float]:
    size = max(float(np.max(np.abs(own))), float(np.max(np.abs(other))), 1e-9)
    fitted = terms_of(order)
    held = {n: float(prior.get(n, 0.0)) for n in TPV_POWERS if n not in fitted}
    a, b = own / size, other / size
    powers_a, powers_b = [np.ones_like(a)], [np.ones_like(b)]
    for _ in range(4):
        powers_a.append(powers_a[-1] * a)
        powers_b.append(powers_b[-1] * b)

    def column(n):
        return powers_a[TPV_POWERS[n][0]] * powers_b[TPV_POWERS[n][1]]

    def scale(n):
        return size ** sum(TPV_POWERS[n])

    rest = target - sum((value * scale(n) * column(n) for n, value in held.items() if value), np.zeros_like(own))
    design = np.column_stack([column(n) for n in fitted])
    weighted = design / variance[:, None]
    normal, right = design.T @ weighted, weighted.T @ rest
    for k, n in enumerate(fitted):
        if sum(TPV_POWERS[n]) >= 2:
            stiffness = 1.0 / max(tolerance * scale(n), 1e-15) ** 2
            normal[k, k] += stiffness
            right[k] += stiffness * prior.get(n, 0.0) * scale(n)
    norm = 1.0 / np.sqrt(np.diag(normal))
    solution = norm * np.linalg.solve(normal * norm[:, None] * norm, norm * right)
    return {n: float(value / scale(n)) for n, value in zip(fitted, solution)} | held


def _move(crval, offset) -> tuple[float, float]:
    ra, dec = deproject(offset[0], offset[1], *crval)
    return float(ra), float(dec)


def _floats(matrix):
    return tuple(tuple(float(v) for v in row) for row in matrix)
