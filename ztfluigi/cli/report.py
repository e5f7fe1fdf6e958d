"""What a night found, against the simulator's truth."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
from scipy.spatial import cKDTree

from targets.codecs import catalog
from targets.current import registry
from ztfluigi.model.maskbits import UNUSABLE
from ztfluigi.model.wcs import separation_arcsec
from ztfluigi.services import database
from ztfluigi.services.settings import settings
from ztfluigi.simulate.truth import Truth

MATCH_ARCSEC = 1.5
STAGES = ("IngestCcd", "SplitCcd", "BiasImage", "FlatImage", "CalibratedImage", "SourceCatalog", "ScienceImage", "ReferenceImage",
          "ReferenceCatalog", "DifferenceImage", "AlertPackets")


def text(root: Path, night: str) -> str:
    """The report of a night as a person reads it."""
    truth = Truth(root)
    lines = [f"\nnight {night} against truth", *calibration_lines(root, truth, night), *event_lines(truth, night)]
    lines += ["", "seconds per stage (CPU, mean of a product; products; peak MiB)", *stage_lines()]
    return "\n".join([*lines, "", "what each alert was", *alert_lines(truth, night)])


def example(night: str) -> str:
    """Key of one difference image of the night, to try `ztf why` on."""
    rows = registry().select("DifferenceImage", night=night)
    return rows[0].key if rows else "EXPOSURE/CCDID/QID"


def calibration_lines(root: Path, truth: Truth, night: str) -> list[str]:
    """Astrometry, zero point, photometry and depth of the night's usable science images."""
    per_image = [one for row in registry().select("SourceCatalog", night=night) if (one := science_figures(root, truth, row)) is not None]
    if not per_image:
        return ["  no usable science image"]
    offsets = np.concatenate([one["offsets"] for one in per_image])
    zero_points = np.array([one["zero_point"] for one in per_image])
    colours = np.array([one["colour"] for one in per_image])
    bright = np.concatenate([one["bright"] for one in per_image])
    return [f"  science images usable                 {len(per_image)}",
            f"  astrometric RMS per axis, S/N >= 10   {rms(offsets):.0f} mas against truth ({len(offsets)} stars)",
            f"  zero-point error                      {1000 * np.median(zero_points):+.1f} mmag median, {1000 * rms(zero_points):.1f} mmag RMS",
            f"  colour-term error                     {np.median(colours):+.4f} median, {rms(colours):.4f} RMS",
            f"  magnitudes of stars brighter than 17  {1000 * rms(bright):.1f} mmag RMS against truth"]


def science_figures(root: Path, truth: Truth, row) -> dict | None:
    """Differences from truth of one quadrant's PSF catalogue."""
    record = truth.exposure(row.exposure)
    quadrant = truth.quadrant(row.exposure, row.ccdid, row.qid)
    cat, _ = catalog.read_psfcat(root / next(entry["path"] for entry in row.files if entry["role"] == "psfcat"))
    cat = cat[(cat["snr"] >= 10) & ((cat["flags"].astype(int) & UNUSABLE) == 0)]
    sources = truth.table("sources")
    stars = sources[~sources["galaxy"] & (sources["variable"] == 0) & (sources[record["filter"][1]] < 20.5)]
    years = (record["mjd_mid"] - 57388.0) / 365.25  # truth positions stand at 2016.0
    ra = stars["ra"] + stars["pmra"] * years / 3.6e6 / np.cos(np.radians(stars["dec"]))
    dec = stars["dec"] + stars["pmdec"] * years / 3.6e6
    scale = np.cos(np.radians(np.median(dec)))
    distance, index = cKDTree(np.column_stack([ra * scale, dec])).query(np.column_stack([cat["ra"] * scale, cat["dec"]]))
    good = distance < 1.0 / 3600.0
    if good.sum() < 10:
        return None
    cat, i = cat[good], index[good]
    offsets = np.column_stack([(cat["ra"] - ra[i]) * scale, cat["dec"] - dec[i]]) * 3.6e6
    band = stars[record["filter"][1]][i]
    colour = (stars["g"] - stars["r"] if record["filter"] != "zi" else stars["r"] - stars["i"])[i]
    residual = row.numbers["MAGZP"] + row.numbers["CLRCOEFF"] * colour + cat["mag"] - band
    return {"offsets": offsets, "zero_point": row.numbers["MAGZP"] - quadrant["zero_point"],
            "colour": row.numbers["CLRCOEFF"] - quadrant["colour_term"], "bright": residual[band < 17]}


def rms(values: np.ndarray) -> float:
    """RMS of the values within 5 robust sigmas (a blend with an unlisted neighbour is no error of ours)."""
    values = np.asarray(values, float).ravel()
    if not len(values):
        return float("nan")
    spread = 1.4826 * np.median(np.abs(values - np.median(values)))
    kept = values[np.abs(values - np.median(values)) <= 5 * max(spread, 1e-12)]
    return float(np.sqrt(np.mean(kept**2)))


def expected_sources(truth: Truth, night: str) -> list[dict]:
    """Every transient and asteroid on a usable difference of the night, with its S/N there."""
    found = []
    for row in registry().select("DifferenceImage", night=night):
        wcs, (ny, nx) = truth.wcs(row.exposure, row.ccdid, row.qid), truth.simulated.camera.shape
        for point in truth.points(row.exposure):
            x, y = wcs.pixel(point["ra"], point["dec"])
            if 5 < x < nx - 6 and 5 < y < ny - 6:
                snr = 5.0 * 10 ** (0.4 * (row.numbers["diffmaglim"] - point["mag"]))
                found.append({"row": row, "id": int(point["id"]), "ra": float(point["ra"]), "dec": float(point["dec"]),
                              "mag": float(point["mag"]), "snr": float(snr)})
    return found


def night_candidates(night: str) -> list[dict]:
    """Candidates of a night's usable differences."""
    return database.query("select c.*, p.exposure, p.ccdid, p.qid from candidates c join usable_products p on p.pid = c.pid "
                          "and p.kind = 'DifferenceImage' and p.run = c.run where p.night = %s and c.run = %s", (night, settings().run))


def event_lines(truth: Truth, night: str) -> list[str]:
    """Transients and asteroids found and missed, and events that are nothing."""
    candidates = night_candidates(night)
    lines = []
    for label, keep in (("transients", lambda one: one["id"] >= 0), ("asteroids", lambda one: one["id"] < 0)):
        wanted = [one for one in expected_sources(truth, night) if keep(one) and one["snr"] >= 7]
        seen = [one for one in wanted if any(c["pid"] == one["row"].pid and is_at(c, one) for c in candidates)]
        packets = [one for one in wanted if any(c["pid"] == one["row"].pid and c["fate"] == "packet" and is_at(c, one) for c in candidates)]
        missed = ", ".join(f"{one['id']} ({one['mag']:.1f} mag, S/N {one['snr']:.0f}, {one['row'].key})" for one in wanted if one not in seen)
        lines.append(f"  {label} at S/N >= 7, detections         {len(seen)} of {len(wanted)} found, {len(packets)} in packets"
                     + (f"; missed: {missed}" if missed else ""))
    kinds = Counter(kind for _, kind in classified(truth, candidates))
    false = kinds["false"]
    images = len(registry().select("DifferenceImage", night=night))
    packets = Counter(kind for c, kind in classified(truth, candidates) if c["fate"] == "packet")
    lines.append(naming_line(truth, [one for one in candidates if one["fate"] == "packet"]))
    return [*lines, f"  false events                          {false} on {images} differences before the filter, {packets['false']} in packets"]


def naming_line(truth: Truth, candidates: list[dict]) -> str:
    """How many packets of asteroids with a known orbit carry their name, and how many others carry one."""
    names = {int(row["id"]): row["readable"].strip(" ()") for row in truth.table("orbits") if row["known"]}
    owners = []
    for one in candidates:
        points = [point for point in truth.points(one["exposure"]) if int(point["id"]) in names and is_at(one, point)]
        owners.append(names[int(points[0]["id"])] if points else None)
    right = sum(owner is not None and one["ssnamenr"] == owner for one, owner in zip(candidates, owners, strict=True))
    others = sum(owner is None and one["ssnamenr"] not in (None, "null") and one["ssdistnr"] < MATCH_ARCSEC
                 for one, owner in zip(candidates, owners, strict=True))
    return f"  packets of known asteroids with name  {right} of {sum(owner is not None for owner in owners)}; names on others: {others}"


def is_at(candidate: dict, place: dict, radius: float = MATCH_ARCSEC) -> bool:
    return bool(separation_arcsec(candidate["ra"], candidate["dec"], place["ra"], place["dec"]) < radius)


def classified(truth: Truth, candidates: list[dict]) -> list[tuple[dict, str]]:
    """Each candidate with what it was in truth."""
    sources = truth.table("sources")
    variables = sources[sources["variable"] > 0]
    streaks, trails = truth.table("streaks"), truth.table("trails")
    out = []
    for one in candidates:
        kind = "false"
        points = truth.points(one["exposure"])
        near = separation_arcsec(points["ra"], points["dec"], one["ra"], one["dec"]) if len(points) else np.array([np.inf])
        if near.min() < MATCH_ARCSEC:
            kind = "transient" if points["id"][near.argmin()] >= 0 else "asteroid"
        elif (separation_arcsec(variables["ra"], variables["dec"], one["ra"], one["dec"]) < MATCH_ARCSEC).any():
            kind = "variable star"
        elif any(on_line(one, line) for line in streaks if line["exposure"] == one["exposure"]):
            kind = "fast mover's streak"
        elif any(beside_trail(one, line) for line in trails
                 if (line["exposure"], line["ccdid"], line["qid"]) == (one["exposure"], one["ccdid"], one["qid"])):
            kind = "satellite trail"
        out.append((one, kind))
    return out


def on_line(candidate: dict, streak) -> bool:
    """Within 3 arcsec of a streak."""
    scale = np.cos(np.radians(candidate["dec"]))
    points = np.array([[streak["ra1"] * scale, streak["dec1"]], [streak["ra2"] * scale, streak["dec2"]]])
    return distance_to_segment(np.array([candidate["ra"] * scale, candidate["dec"]]), *points) < 3.0 / 3600.0


def beside_trail(candidate: dict, trail) -> bool:
    """Within 6 pixels of a satellite trail."""
    place = np.array([candidate["xpos"] - 1.0, candidate["ypos"] - 1.0])
    return distance_to_segment(place, np.array([trail["x1"], trail["y1"]]), np.array([trail["x2"], trail["y2"]])) < 6.0


def distance_to_segment(place, start, end) -> float:
    along = end - start
    t = np.clip(np.dot(place - start, along) / np.dot(along, along), 0.0, 1.0)
    return float(np.hypot(*(place - start - t * along)))


def alert_lines(truth: Truth, night: str) -> list[str]:
    """A line an object, of its alerts of the night and what they were in truth; then how many alerts there were of each kind."""
    alerts = [(c, kind) for c, kind in classified(truth, night_candidates(night)) if c["fate"] == "packet"]
    if not alerts:
        return ["  no alerts"]
    objects: dict[str, list] = {}
    for c, kind in sorted(alerts, key=lambda pair: (pair[1], pair[0]["objectid"] or "", pair[0]["jd"])):
        objects.setdefault(c["objectid"] or "unnamed", []).append((c, kind))
    lines = [f"  {'object':12s} {'alerts':>6s} {'magpsf':>7s} {'rb':>5s} {'seen before':>11s}  in truth"]
    for name, group in objects.items():
        last, kind = group[-1]
        signs = "".join(sorted({"+" if c["isdiffpos"] == "t" else "-" for c, _ in group}))
        rb = np.mean([np.nan if c["rb"] is None else c["rb"] for c, _ in group])
        lines.append(f"  {name:12s} {len(group):4d} {signs:>2s}{np.mean([c['magpsf'] for c, _ in group]):7.2f} {rb:5.2f} "
                     f"{(last['ndethist'] or 1) - 1:11d}  {in_truth(truth, last, kind)}")
    counts = Counter((kind, c["isdiffpos"]) for c, kind in alerts)
    return [*lines, "", *(f"  {kind:22s} {counts[kind, 't']:4d} positive {counts[kind, 'f']:4d} negative" for kind in sorted({k for k, _ in counts}))]


def in_truth(truth: Truth, candidate: dict, kind: str) -> str:
    """What an alert was in truth, with its number and magnitude there; for an asteroid also whom its packet names."""
    if kind in ("transient", "asteroid"):
        points = truth.points(candidate["exposure"])
        point = points[separation_arcsec(points["ra"], points["dec"], candidate["ra"], candidate["dec"]).argmin()]
        named = {None: "", "null": ", named nothing"}.get(candidate["ssnamenr"], f", named {candidate['ssnamenr']}") if kind == "asteroid" else ""
        return f"{kind} {abs(point['id'])} of {point['mag']:.2f} mag{named}"
    return kind


def stage_lines() -> list[str]:
    """Mean CPU seconds, number and peak memory of every stage."""
    rows = {row["kind"]: row for row in database.query(
        "select kind, avg(cpu_s) as cpu, count(*) as n, max(peak_mib) as peak from products where vbest > 0 and run = %s and state = 'sealed' "
        "group by kind", (settings().run,))}
    return [f"  {kind:18s} {rows[kind]['cpu']:7.2f} {rows[kind]['n']:6d} {rows[kind]['peak']:7.0f}" for kind in STAGES if kind in rows]
