"""Alert packets from the archive to a real broker, with the ledger: how many a second."""

from __future__ import annotations

import math
import os
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.meter import figure
from targets.codecs import alert
from ztfluigi.algorithms import packets
from ztfluigi.model.alert_schema import CUTOUTS
from ztfluigi.services import broker, candidates, database, kafka_server, ledger, postgres
from ztfluigi.tasks import delivery

NIGHT, PID = "2024-05-17", 2695378400015
QUADRANTS, EVENTS, HISTORY = 10, 100, 30
REPEATS = 3
TARGET = 1000.0


def measure(*, seed: int = 1) -> None:
    """Packets delivered a second of time, and a second of the publisher's CPU; the best of three deliveries of 1,000 packets.

    Counted from the pending rows of the ledger to their delivery noted in it: tarballs read, every packet checked against its schema,
    sent to Apache Kafka on this machine, acknowledged. Null where Java or Maven is missing.
    """
    rates, n = (_rates(seed), REPEATS * QUADRANTS * EVENTS) if not kafka_server.missing() else ((math.nan, math.nan), 0)
    for name, rate, target in zip(("alerts.deliver_per_s", "alerts.deliver_per_cpu_s"), rates, (TARGET, None), strict=True):
        figure(name, rate, "packets/s", n, target, seed)


def _rates(seed: int) -> tuple[float, float]:
    """(per second of time, per second of CPU)."""
    before = {name: os.environ.get(name) for name in ("ZTF_ROOT", "ZTF_DATABASE", "ZTF_KAFKA")}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "root"
        os.environ |= {"ZTF_ROOT": str(root), "ZTF_DATABASE": ""}
        try:
            os.environ["ZTF_KAFKA"] = kafka_server.start(Path(folder) / "kafka", port=kafka_server.free_port())
            _seal(root, seed)
            spent = np.array([_deliver() for _ in range(REPEATS)])
        finally:
            database.disconnect()
            postgres.stop(root)
            kafka_server.stop(Path(folder) / "kafka")
            for name, value in before.items():
                os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)
    wall, cpu = QUADRANTS * EVENTS / spent.min(axis=0)
    return float(wall), float(cpu)


def _deliver() -> tuple[float, float]:
    """Seconds of time and of CPU that the delivery of the night takes."""
    database.execute("update alerts set delivered = null")
    wall, cpu = time.monotonic(), time.process_time()
    with broker.Publisher() as publisher:
        for file in ledger.pending_files(NIGHT):
            delivery.deliver(publisher, file)
    spent = time.monotonic() - wall, time.process_time() - cpu
    assert ledger.counts(NIGHT) == {"delivered": QUADRANTS * EVENTS, "pending": 0, "failed": 0}
    return spent


def _seal(root: Path, seed: int) -> None:
    """Quadrants with packets of about 50 kB in the archive and in the ledger."""
    rng = np.random.default_rng(seed)
    stamps = [{word: alert.encode_cutout(rng.normal(200.0, 12.0, (63, 63))) for word in CUTOUTS.values()} for _ in range(EVENTS)]
    for quadrant in range(QUADRANTS):
        pid = PID + 100 * quadrant
        made = [(pid * 10**6 + number, _packet(pid * 10**6 + number, pid, stamps[number])) for number in range(EVENTS)]
        file = f"archive/sci/q{quadrant}_alerts.tar.gz"
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        alert.pack_alerts(root / file, made)
        rows = [{"candid": candid, "objectid": "ZTF24aaaaaaa", "programid": 1, "file": file} for candid, _ in made]
        with database.transaction() as cursor:
            candidates.replace_alerts(cursor, pid, "p", NIGHT, rows)


def _packet(candid: int, pid: int, stamps: dict[str, bytes]) -> bytes:
    context = {"jd": 2460447.7, "fid": 2, "pid": pid, "programid": 1, "programpi": "TESTPI", "nid": pid // 10**9, "rcid": pid // 100 % 100,
               "field": 655, "diffmaglim": 20.5, "pdiffimfilename": "ztf_scimrefdiffimg.fits", "ndethist": 30, "ncovhist": 60, "nmtchps": 3,
               "rfid": 655120250, "jdstartref": 2458000.1, "jdendref": 2458100.1, "nframesref": 15, "rbversion": "none", "nmatches": 900,
               "drbversion": "none"}
    event = {"candid": candid, "objectId": "ZTF24aaaaaaa", "isdiffpos": True, "tblid": candid % 1000, "ra": 58.0, "dec": 35.7,
             "magpsf": 19.5, "sigmapsf": 0.1, "ranr": 58.0001, "decnr": 35.7001}
    past = [context | event | {"jd": context["jd"] - day, "pid": pid - 10**9 * day, "candid": candid - 10**15 * day} for day in range(1, HISTORY)]
    return alert.write_packet(packets.build_packet(event, past, [], stamps, context))


if __name__ == "__main__":
    measure()
