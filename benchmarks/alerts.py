"""Alert packets: how many a second are built, how fast a place's history is found in a large candidates table, what the context costs."""

from __future__ import annotations

import io
import os
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks import delivery, solar_system
from benchmarks.meter import figure
from targets import current, paths
from targets.codecs import alert, catalog
from targets.codecs import image as image_codec
from targets.registry import ProductRow
from ztfluigi.algorithms import packets
from ztfluigi.model.alert_schema import CUTOUTS
from ztfluigi.model.columns import GAIA, PS1, dtype_of
from ztfluigi.model.config.alerts import AlertConfig
from ztfluigi.model.ids import JD_NIGHT_ZERO, SkyCell
from ztfluigi.model.wcs import TpvWcs
from ztfluigi.services import candidates, coverage, database, healpix, postgres
from ztfluigi.services.settings import settings
from ztfluigi.tasks import alert_context, alert_history
from ztfluigi.tasks.known_orbits import KnownOrbits

NIGHTS, CHANNELS, IMAGES = 50, 4, 10
"""Nights, readout channels a night, images a channel and night of the synthetic table."""
FIRST_NIGHT, FIELDS = 600, 200
ROWS, QUICK_ROWS = 10_000_000, 200_000
PLACES, CANDIDATES, REPEATS = 20, 50, 5


def measure(*, quick: bool, seed: int) -> None:
    """Every figure of the area."""
    rate, n = build_rate(seed)
    figure("alerts.build_per_s", rate, "packets/CPU s", n, 500.0, seed)
    with tempfile.TemporaryDirectory(prefix="ztfluigi-alerts-") as folder:
        before = {name: os.environ.get(name) for name in ("ZTF_ROOT", "ZTF_DATABASE", "ZTF_RUN")}
        os.environ |= {"ZTF_ROOT": folder, "ZTF_RUN": "main"}
        os.environ.pop("ZTF_DATABASE", None)
        try:
            places, centre = fill(QUICK_ROWS if quick else ROWS, seed)
            history(places, seed)
            context(centre, seed)
        finally:
            database.disconnect()
            postgres.stop(Path(folder))
            os.environ |= {name: value for name, value in before.items() if value is not None}
    delivery.measure(seed=seed)
    solar_system.measure(quick=quick, seed=seed)


def build_rate(seed: int, n: int = 200) -> tuple[float, int]:
    """(packets a CPU second, packets): stamps squeezed, record built with a month's history, checked, written and put in the tarball."""
    rng = np.random.default_rng(seed)
    image = {"fid": 2, "programid": 1, "programpi": "Kulkarni", "nid": 700, "rcid": 5, "field": 505, "rfid": 505120205, "exptime": 30.0,
             "diffmaglim": 20.5, "magzpsci": 26.2, "magzpsciunc": 1e-5, "magzpscirms": 0.03, "clrcoeff": 0.08, "clrcounc": 1e-5, "rbversion": "none",
             "pdiffimfilename": "/ztf/archive/sci/2018/1102/191419/ztf_20181102191419_000505_zr_c02_o_q2_scimrefdiffimg.fits.fz"}
    event = image | {"isdiffpos": "t", "tblid": 3, "jd": 2458424.69, "jdstartref": 2458300.5, "jdendref": 2458400.5,
                     "nframesref": 20, "nmatches": 900, "ndethist": 9, "ncovhist": 30, "nmtchps": 4, "drbversion": "none",
                     "objectid": "ZTF18aaaaaaa", "ssnamenr": "null"}
    event |= dict(zip((f.name for f in packets.alert_schema.CANDIDATE if f.name not in event and f.type in ("float", "double")),
                      rng.normal(20, 1, 200).tolist()))
    past = [event | {"jd": 2458400.0 + k, "pid": 10**12 + k, "candid": 10**18 + k} for k in range(9)]
    unseen = [image | {"jd": 2458400.5 + k, "pid": 2 * 10**12 + k} for k in range(12)]
    forced = [event | {"jd": 2458400.0 + k, "pid": 10**12 + k, "forcediffimflux": 900.0, "forcediffimfluxunc": 30.0, "procstatus": "0",
                       "sciinpseeing": 2.1, "scibckgnd": 300.0, "scisigpix": 9.0, "adpctdif1": 0.06, "adpctdif2": 0.06} for k in range(20)]
    stamps = rng.normal(300.0, 12.0, (n, 3, 63, 63)).astype(np.float32)

    def build(folder: Path) -> None:
        made = []
        for k in range(n):
            cutouts = {word: alert.encode_cutout(stamp) for word, stamp in zip(CUTOUTS.values(), stamps[k], strict=True)}
            record = packets.build_packet(event | {"pid": 3 * 10**12, "candid": 3 * 10**18 + k}, past, unseen, cutouts, {}, forced=forced)
            made.append((record["candid"], alert.write_packet(record)))
        alert.pack_alerts(folder / "alerts.tar.gz", made)

    with tempfile.TemporaryDirectory() as folder:
        return n / _least_cpu(lambda: build(Path(folder))), n


def _least_cpu(job, repeats: int = REPEATS, *, also: int | None = None) -> float:
    """CPU seconds of a job, the least of several; with those of another process."""
    spent = []
    for _ in range(repeats):
        before = time.process_time() + _cpu_of(also)
        job()
        spent.append(time.process_time() + _cpu_of(also) - before)
    return min(spent)


def _cpu_of(pid: int | None) -> float:
    """CPU seconds that a process has used."""
    if pid is None:
        return 0.0
    return sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13])) / os.sysconf("SC_CLK_TCK")


def fill(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A candidates table of `rows` rows in NIGHTS x CHANNELS partitions.

    Returns places (PLACES, 2) [deg] that have a detection every night, and the centre of their field.
    """
    rng = np.random.default_rng(seed)
    database.connect()
    centres = np.column_stack([rng.uniform(0, 360, FIELDS), np.degrees(np.arcsin(rng.uniform(-0.4, 0.9, FIELDS)))])
    places = centres[0] + rng.uniform(-0.35, 0.35, (PLACES, 2))
    per_image = rows // (NIGHTS * CHANNELS * IMAGES)
    for nid in range(FIRST_NIGHT, FIRST_NIGHT + NIGHTS):
        candidates.prepare([nid], range(CHANNELS))
        with database.transaction() as cursor:
            for rcid in range(CHANNELS):
                for image in range(IMAGES):
                    # the field of the places is looked at every night, by their own channel
                    field = 0 if (rcid, image) == (0, 0) else int(rng.integers(1, FIELDS))
                    ra, dec = centres[field][:, None] + rng.uniform(-0.43, 0.43, (2, per_image))
                    if field == 0:
                        ra[:PLACES], dec[:PLACES] = (places + rng.normal(0, 0.1 / 3600, places.shape)).T
                    _copy(cursor, nid, rcid, image, field, ra % 360, dec)
    database.execute("analyze candidates")
    database.execute("analyze detections")
    return places, centres[0]


def _copy(cursor, nid: int, rcid: int, image: int, field: int, ra: np.ndarray, dec: np.ndarray) -> None:
    """The events of one image, by binary COPY."""
    pid = ((nid * 100000 + 20000 + 500 * image) * 100 + rcid) * 100 + 15
    jd, pixels = JD_NIGHT_ZERO + nid + 0.2 + 0.005 * image, healpix.index(ra, dec)
    columns = {"run": np.full(len(ra), b"main"), "provid": np.full(len(ra), b"0123456789abcdef"), "isdiffpos": np.full(len(ra), b"t"),
               "pdiffimfilename": np.full(len(ra), b"ztf_20181014250000_000505_zr_c01_o_q1_scimrefdiffimg.fits"),
               "jd": np.full(len(ra), jd, ">f8"), "ra": ra.astype(">f8"), "dec": dec.astype(">f8"),
               **{name: np.full(len(ra), value, kind) for name, value, kind in (
                   ("fid", 2, ">i4"), ("pid", pid, ">i8"), ("nid", nid, ">i4"), ("rcid", rcid, ">i4"), ("field", field, ">i4"),
                   ("programid", 1, ">i4"), *((name, 19.0, ">f4") for name in (
                       "diffmaglim", "magpsf", "sigmapsf", "magap", "distnr", "magnr", "fwhm", "elong", "rb")))},
               "candid": (pid * 10**6 + 15000 + np.arange(len(ra))).astype(">i8"), "hpx": pixels.astype(">i8")}
    table = np.zeros(len(ra), [("fields", ">i2"), *((part + name, kind) for name, values in columns.items()
                                                    for part, kind in (("size ", ">i4"), ("", values.dtype)))])
    table["fields"] = len(columns)
    for name, values in columns.items():
        table["size " + name], table[name] = values.dtype.itemsize, values
    cursor.copy_expert(f"copy candidates_n{nid:05d}_rc{rcid:02d} ({', '.join(columns)}) from stdin (format binary)",
                       io.BytesIO(b"PGCOPY\n\xff\r\n\0" + bytes(8) + table.tobytes() + b"\xff\xff"))
    by_place = ", ".join(("run", "hpx", *candidates.HISTORY))
    cursor.execute(f"insert into detections ({by_place}) select {by_place} from candidates_n{nid:05d}_rc{rcid:02d} where pid = %s", (pid,))


def history(places: np.ndarray, seed: int) -> None:
    """All detections at a place since the survey began: the median over places, each the best of several tries."""
    spent = []
    for ra, dec in places:
        tries = []
        for _ in range(REPEATS):
            before = time.perf_counter()
            found, = candidates.history(ra, dec, 0.0, 3e6)
            tries.append(time.perf_counter() - before)
        assert len(found) >= NIGHTS
        spent.append(min(tries))
    figure("alerts.history_ms", 1000.0 * float(np.median(spent)), "ms", len(places), 10.0, seed)


def context(centre: np.ndarray, seed: int) -> None:
    """CPU of all context of CANDIDATES candidates, this process and its database session together, and of one image's forced photometry.

    Names, counts, neighbours in catalogues of a field at high latitude, and a month's history of which every image covers every place.
    Known orbits are a fiftieth of the whole catalogue; `movers.field_cpu_s` is what the whole costs.
    """
    rng, root, cell = np.random.default_rng(seed), settings().root, SkyCell(FIELDS, "zr", 1, 1)
    sky = TpvWcs((1536.5, 1540.5), tuple(centre), ((-2.8e-4, 0.0), (0.0, 2.8e-4)))
    _catalogues(rng, root, cell, sky)
    nights = range(FIRST_NIGHT, FIRST_NIGHT + NIGHTS)
    for nid in nights:
        _cover(nid, cell, sky, {})
    exposure = "20181014000000"  # the start of that night
    _known_orbits(root, exposure, seed)
    _cover(FIRST_NIGHT + NIGHTS, cell, sky, _images(rng, root, cell, exposure, sky), exposure=exposure)
    x, y = rng.uniform(100, 2900, (2, CANDIDATES))
    ra, dec = sky.sky(x, y)
    jd = JD_NIGHT_ZERO + FIRST_NIGHT + NIGHTS + 1.0
    seen = alert_context.Candidates(exposure, cell, 1, jd, 30.0, np.arange(CANDIDATES), ra, dec)

    def one(days: float) -> None:
        alert_history.past(seen, 1, AlertConfig(forced_days=days))

    def all_of_it() -> None:
        with database.transaction() as cursor:
            candidates.assign_object_ids(cursor, [(k, ra[k], dec[k], jd, cell.field, 0) for k in range(CANDIDATES)])
        _, note = alert_context.gather(seen)
        assert not note
        one(0.0)

    server = database.query("select pg_backend_pid() as pid")[0]["pid"]
    figure("alerts.context_cpu_s", _least_cpu(all_of_it, also=server), "CPU s", CANDIDATES, 1.0, seed)
    figure("alerts.forced_cpu_s", _least_cpu(lambda: one(1.5), also=server) - _least_cpu(lambda: one(0.0), also=server), "CPU s/image", CANDIDATES,
           None, seed)


def _known_orbits(root: Path, exposure: str, seed: int) -> None:
    """The product of a small catalogue, as the task makes it."""
    (root / paths.MPCORB).parent.mkdir(parents=True, exist_ok=True)
    solar_system.write(root / paths.MPCORB, solar_system.catalogue(solar_system.QUICK, seed))
    assert not list(KnownOrbits.of_exposure(exposure).run())


def _catalogues(rng, root: Path, cell: SkyCell, sky: TpvWcs) -> None:
    for path, columns, names, n in ((paths.ps1(cell.field, 1, 1), PS1, ("raMean", "decMean"), 12000),
                                    (paths.gaia(cell.field, 1, 1), GAIA, ("ra", "dec"), 5000)):
        table = np.zeros(n, dtype_of(columns))
        table[names[0]], table[names[1]] = sky.sky(*rng.uniform(-100, 3180, (2, n)))
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        catalog.write_table(root / path, table)


def _cover(nid: int, cell: SkyCell, sky: TpvWcs, files: dict, *, exposure: str = "20181014250000") -> None:
    """The registry row of a difference image of the cell, with its local limits."""
    pid, jd = ((nid * 100000 + 25000) * 100) * 100 + 15, JD_NIGHT_ZERO + nid + 0.25
    ra, dec = sky.sky(np.array([0, 3071, 3071, 0]), np.array([0, 0, 3079, 3079]))
    numbers = {"diffmaglim": 20.5, "programid": 1, "magzpsci": 26.2, **{f"metric{n}": 1.0 for n in range(40)}}
    current.registry().seal(ProductRow(
        "DifferenceImage", f"k{pid}", f"p{pid}", pid=pid, jd=jd, fid=2, filter="zr", field=cell.field, rcid=0, nid=nid, exposure=exposure,
        ra=float(ra.mean()), dec=float(dec.mean()), numbers=numbers, files=[{"role": role, "path": str(path)} for role, path in files.items()],
        **{f"{axis}{k}": float(values[k - 1]) for axis, values in (("ra", ra), ("dec", dec)) for k in (1, 2, 3, 4)}),
        also=lambda cursor: coverage.replace_limits(cursor, pid, np.full((48, 48), 20.6)))


def _images(rng, root: Path, cell: SkyCell, exposure: str, sky: TpvWcs) -> dict:
    """Full-size difference, PSF and science image as they stand in the archive; paths by role."""
    name = paths.RawName(exposure, cell.field, cell.filter, 1, "o")
    path = {role: paths.science(name, 1, suffix) for role, suffix in (("image", "scimrefdiffimg.fits.fz"), ("psf", "diffimgpsf.fits"),
                                                                      ("science", "sciimg.fits"))}
    (root / path["image"]).parent.mkdir(parents=True, exist_ok=True)
    pixels, cards = rng.normal(0.0, 10.0, (3080, 3072)).astype(np.float32), {**sky.cards(), "GAIN": 6.2}
    stamp = np.exp(-np.hypot(*np.mgrid[-12:13, -12:13]) ** 2 / 2.0)
    image_codec.write_difference(root / path["image"], pixels, cards, noise=10.0)
    image_codec.write_difference_psf(root / path["psf"], stamp, np.tile(stamp, (7, 7, 1, 1)))
    image_codec.write_science(root / path.pop("science"), pixels + 200.0, cards)
    return path
