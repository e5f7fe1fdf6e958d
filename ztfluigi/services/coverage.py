"""Which past images covered a place, and what they could have shown there. Every reader and writer works in one run; times are JD UTC."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ztfluigi.services import database, healpix
from ztfluigi.services.settings import settings

_COVER = ("pid", "provid", "jd", "fid", "filter", "nid", "rcid", "field", "exposure", "files")


def covering(ra, dec, jd_from: float, jd_to: float, *, kind: str = "DifferenceImage") -> tuple[list[dict], np.ndarray, list[np.ndarray]]:
    """Usable images of a kind near positions, by time (jd_from <= jd < jd_to).

    Returns (rows: pid, provid, jd, fid, filter, nid, rcid, field, exposure, files and every entry of the product's `numbers`; bool
    (positions, images), which covers which; [ra, dec] of the images' corners, each (images, 4) [deg]).
    """
    images, inside, corners = _covering(ra, dec, jd_from, jd_to, kind, ", ".join(_COVER) + ", numbers")
    return [image["numbers"] | {name: image[name] for name in _COVER} for image in images], inside, corners


def _covering(ra, dec, jd_from: float, jd_to: float, kind: str, wanted: str) -> tuple[list[dict], np.ndarray, list[np.ndarray]]:
    ra, dec = np.atleast_1d(ra).astype(float), np.atleast_1d(dec).astype(float)
    images = database.query(
        f"select {wanted}, ra1, dec1, ra2, dec2, ra3, dec3, ra4, dec4 from usable_products where run = %s and kind = %s and cells && %s "
        "and jd >= %s and jd < %s order by jd, pid", (settings().run, kind, healpix.cells(healpix.index(ra, dec)).tolist(), jd_from, jd_to))
    corners = [np.array([[image[f"{axis}{i}"] for i in (1, 2, 3, 4)] for image in images], float).reshape(-1, 4) for axis in ("ra", "dec")]
    return images, healpix.inside_quads(ra, dec, *corners), corners


def covering_limits(ra, dec, jd_from: float, jd_to: float, *, detections: Sequence[Sequence[Mapping]] | None = None,
                    kind: str = "DifferenceImage") -> list[list[dict]]:
    """Past difference images that covered each position, by time (jd_from <= jd < jd_to): the upper limits of its history.

    Rows as of `covering`; diffmaglim is the limit at the place (from `replace_limits`; that of the image where it has none), None where
    the place is masked. `detections` (from `history`): images that gave a detection there are left out.
    """
    ra, dec = np.atleast_1d(ra).astype(float), np.atleast_1d(dec).astype(float)
    rows, inside, corners = covering(ra, dec, jd_from, jd_to, kind=kind)
    if detections is not None:
        for p, found in enumerate(detections):
            seen = {row["pid"] for row in found}
            inside[p, [i for i, row in enumerate(rows) if row["pid"] in seen]] = False
    place, image = np.nonzero(inside)
    limits: list[list[dict]] = [[] for _ in ra]
    local = _local_limits(ra[place], dec[place], [rows[i]["pid"] for i in image], *(axis[image] for axis in corners))
    for n, (p, i) in enumerate(zip(place.tolist(), image.tolist())):
        limits[p].append(rows[i] | ({"diffmaglim": local[n]} if n in local else {}))
    return limits


def replace_limits(cursor, pid: int, limits: np.ndarray) -> None:
    """Keep the local limits [mag] of a difference image: (rows, cols) of equal cells, NaN where masked."""
    packed = np.where(np.isfinite(limits), np.rint(limits * 1000.0), 0).astype("<i2").tobytes()
    cursor.execute("insert into difference_limits (run, pid, rows, cols, limits) values (%s, %s, %s, %s, %s) on conflict (run, pid) "
                   "do update set rows = excluded.rows, cols = excluded.cols, limits = excluded.limits",
                   (settings().run, pid, *limits.shape, packed))


def _local_limits(ra, dec, pids: list[int], corners_ra, corners_dec) -> dict[int, float | None]:
    """Limit [mag] at position n on image n, for those that are known; None where masked."""
    if not pids:
        return {}
    u, v = (np.clip(f, 0.0, 1.0).tolist() for f in healpix.quad_fractions(ra, dec, corners_ra, corners_dec))
    found = database.query(
        "select n, substring(limits from 2 * (least(floor(v * rows)::int, rows - 1) * cols + least(floor(u * cols)::int, cols - 1)) + 1 for 2) "
        "from unnest(%(pid)s::bigint[], %(u)s::float8[], %(v)s::float8[]) with ordinality as q (pid, u, v, n) "
        "join difference_limits l using (pid) where l.run = %(run)s", {"pid": pids, "u": u, "v": v, "run": settings().run}, rows=tuple)
    values = {n - 1: int.from_bytes(cell, "little", signed=True) for n, cell in found}
    return {n: value / 1000.0 if value else None for n, value in values.items()}


def coverage_counts(ra, dec, jd: float, *, kind: str = "DifferenceImage") -> np.ndarray:
    """ncovhist: how often each position fell on any field and rcid up to and including `jd`, in usable images of a kind."""
    _, inside, _ = _covering(ra, dec, 0.0, np.nextafter(jd, np.inf), kind, "pid")
    return inside.sum(axis=1)
