"""Tangent-plane sky coordinates with TPV distortion, the form ZTF headers carry (fact sheets science.md 1, database.md 4)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

#: TPV coefficient numbers used by ZTF (4th order, no radial terms) and the powers (of the own axis, of the other axis) of each.
TPV_POWERS = {0: (0, 0), 1: (1, 0), 2: (0, 1), 4: (2, 0), 5: (1, 1), 6: (0, 2), 7: (3, 0), 8: (2, 1), 9: (1, 2), 10: (0, 3),
              12: (4, 0), 13: (3, 1), 14: (2, 2), 15: (1, 3), 16: (0, 4)}
TPV_TERMS = tuple(TPV_POWERS)
_IDENTITY = {1: 1.0}


@dataclass(frozen=True)
class TpvWcs:
    """RA---TPV / DEC--TPV world coordinates.

    crpix : (x, y) FITS one-based reference pixel. crval : (ra, dec) [deg]. cd : 2 x 2 [deg/pix].
    pv1, pv2 : TPV coefficients by number; empty means no distortion.
    All methods take and give zero-based pixels and ICRS degrees, broadcast over arrays; NaN gives NaN.
    """

    crpix: tuple[float, float]
    crval: tuple[float, float]
    cd: tuple[tuple[float, float], tuple[float, float]]
    pv1: Mapping[int, float] = field(default_factory=lambda: dict(_IDENTITY))
    pv2: Mapping[int, float] = field(default_factory=lambda: dict(_IDENTITY))

    @property
    def distorted(self) -> bool:
        """True when the polynomial is not the identity."""
        return dict(self.pv1) != _IDENTITY or dict(self.pv2) != _IDENTITY

    @property
    def pixel_scale_arcsec(self) -> float:
        """Linear pixel scale at the reference pixel [arcsec/pix]."""
        return float(np.sqrt(abs(np.linalg.det(np.array(self.cd)))) * 3600.0)

    def sky(self, x, y) -> tuple[np.ndarray, np.ndarray]:
        """(ra, dec) [deg] of zero-based pixels."""
        xi, eta = self.distort(*self.intermediate(x, y))
        return deproject(xi, eta, *self.crval)

    def intermediate(self, x, y) -> tuple[np.ndarray, np.ndarray]:
        """Undistorted tangent-plane coordinates CD (pixel - CRPIX) [deg]."""
        u = np.asarray(x, float) + 1.0 - self.crpix[0]
        v = np.asarray(y, float) + 1.0 - self.crpix[1]
        (a, b), (c, d) = self.cd
        return a * u + b * v, c * u + d * v

    def distort(self, xi, eta) -> tuple[np.ndarray, np.ndarray]:
        """Apply the TPV polynomial [deg]."""
        if not self.distorted:
            return xi, eta
        return evaluate_tpv(self.pv1, xi, eta), evaluate_tpv(self.pv2, eta, xi)

    def undistort(self, xi, eta) -> tuple[np.ndarray, np.ndarray]:
        """Inverse of `distort` [deg], by fixed-point steps to 1e-9 pixel; NaN where they do not converge."""
        if not self.distorted:
            return xi, eta
        tolerance = self.pixel_scale_arcsec / 3600.0 * 1e-9
        plain_xi, plain_eta = np.asarray(xi, float), np.asarray(eta, float)
        with np.errstate(invalid="ignore", over="ignore"):
            for _ in range(50):
                fit_xi, fit_eta = self.distort(plain_xi, plain_eta)
                step_xi, step_eta = xi - fit_xi, eta - fit_eta
                plain_xi, plain_eta = plain_xi + step_xi, plain_eta + step_eta
                moving = np.maximum(np.abs(step_xi), np.abs(step_eta)) > tolerance
                if not np.any(moving):
                    break
        return np.where(moving, np.nan, plain_xi), np.where(moving, np.nan, plain_eta)

    def pixel(self, ra, dec) -> tuple[np.ndarray, np.ndarray]:
        """Zero-based pixels of sky positions; NaN on the far side of the sky and where the polynomial has no inverse."""
        xi, eta = self.undistort(*project(ra, dec, *self.crval))
        inverse = np.linalg.inv(np.array(self.cd))
        u = inverse[0, 0] * xi + inverse[0, 1] * eta
        v = inverse[1, 0] * xi + inverse[1, 1] * eta
        return u + self.crpix[0] - 1.0, v + self.crpix[1] - 1.0

    def shifted(self, crval: tuple[float, float]) -> TpvWcs:
        """The same geometry pointed elsewhere."""
        return replace(self, crval=crval)

    def cards(self) -> dict[str, float | str]:
        """Header cards, TPV coefficients included when distorted."""
        suffix = "TPV" if self.distorted else "TAN"
        cards: dict[str, float | str] = {
            "CTYPE1": f"RA---{suffix}", "CTYPE2": f"DEC--{suffix}", "CRPIX1": self.crpix[0], "CRPIX2": self.crpix[1],
            "CRVAL1": self.crval[0], "CRVAL2": self.crval[1], "CUNIT1": "deg", "CUNIT2": "deg",
            "CD1_1": self.cd[0][0], "CD1_2": self.cd[0][1], "CD2_1": self.cd[1][0], "CD2_2": self.cd[1][1]}
        if self.distorted:
            for axis, pv in ((1, self.pv1), (2, self.pv2)):
                cards.update({f"PV{axis}_{n}": float(pv.get(n, 0.0)) for n in TPV_TERMS})
        return cards

    @classmethod
    def from_cards(cls, header: Mapping) -> TpvWcs:
        """Read the cards of a TAN or TPV header; absent coefficients are those of no distortion. ValueError on radial terms."""
        pv = [_IDENTITY | {n: float(header[f"PV{axis}_{n}"]) for n in range(40) if f"PV{axis}_{n}" in header} for axis in (1, 2)]
        for terms in pv:
            unknown = set(terms) - set(TPV_POWERS)
            if any(terms[n] for n in unknown):
                raise ValueError(f"TPV terms {sorted(unknown)} are not supported")
        cd = ((float(header["CD1_1"]), float(header.get("CD1_2", 0.0))), (float(header.get("CD2_1", 0.0)), float(header["CD2_2"])))
        crpix, crval = ((float(header[f"{key}1"]), float(header[f"{key}2"])) for key in ("CRPIX", "CRVAL"))
        return cls(crpix, crval, cd, *({n: v for n, v in terms.items() if n in TPV_POWERS} for terms in pv))


def evaluate_tpv(coefficients: Mapping[int, float], own, other) -> np.ndarray:
    """TPV polynomial of one axis; `own` is the axis' coordinate and `other` the other one [deg]."""
    own, other = np.asarray(own, float), np.asarray(other, float)
    # Horner in `own` with polynomials in `other`.
    rows = [[0.0] * (5 - i) for i in range(5)]
    for n, value in coefficients.items():
        i, j = TPV_POWERS[n]
        rows[i][j] = value
    total = np.zeros(np.broadcast(own, other).shape)
    for row in reversed(rows):
        inner = np.full_like(total, row[-1])
        for value in row[-2::-1]:
            inner *= other
            inner += value
        total = total * own + inner
    return total


def project(ra, dec, ra0: float, dec0: float) -> tuple[np.ndarray, np.ndarray]:
    """Gnomonic projection about (ra0, dec0): (xi, eta) [deg]; NaN beyond 90 deg."""
    a = np.radians(np.asarray(ra, float) - ra0)
    d, d0 = np.radians(np.asarray(dec, float)), np.radians(dec0)
    cos_c = np.sin(d0) * np.sin(d) + np.cos(d0) * np.cos(d) * np.cos(a)
    cos_c = np.where(cos_c > 1e-6, cos_c, np.nan)
    xi = np.cos(d) * np.sin(a) / cos_c
    eta = (np.cos(d0) * np.sin(d) - np.sin(d0) * np.cos(d) * np.cos(a)) / cos_c
    return np.degrees(xi), np.degrees(eta)


def deproject(xi, eta, ra0: float, dec0: float) -> tuple[np.ndarray, np.ndarray]:
    """Inverse of `project`: (ra in 0..360, dec) [deg]."""
    x, y = np.radians(np.asarray(xi, float)), np.radians(np.asarray(eta, float))
    d0 = np.radians(dec0)
    ra = ra0 + np.degrees(np.arctan2(x, np.cos(d0) - y * np.sin(d0)))
    dec = np.degrees(np.arctan2(np.sin(d0) + y * np.cos(d0), np.hypot(x, np.cos(d0) - y * np.sin(d0))))
    return np.mod(ra, 360.0), dec


def separation_arcsec(ra1, dec1, ra2, dec2) -> np.ndarray:
    """Great-circle separation [arcsec], accurate for small angles."""
    ra1, dec1, ra2, dec2 = (np.radians(np.asarray(v, float)) for v in (ra1, dec1, ra2, dec2))
    h = np.sin((dec2 - dec1) / 2) ** 2 + np.cos(dec1) * np.cos(dec2) * np.sin((ra2 - ra1) / 2) ** 2
    return np.degrees(2 * np.arcsin(np.sqrt(np.clip(h, 0, 1)))) * 3600.0
