"""A real Apache Kafka broker on loopback, for a quick start and for the tests: fetched by Maven coordinates, one process, KRaft mode.

It stands outside the survey: a survey in operation names a broker of its own with `[ztf] kafka`. A folder holds one broker: its settings,
data, log and process number.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

import ztfluigi
from ztfluigi.model.errors import BadInput, Transient

HOST, PORT = "127.0.0.1", 9092
PATIENCE_S = 90.0
"""How long a start or a stop may take on a busy machine."""
POM = Path(ztfluigi.__file__).parent / "data" / "kafka_pom.xml"
JARS = Path(ztfluigi.__file__).resolve().parents[1] / ".kafka"
"""Where the jars lie: in the checkout, not under version control."""
JVM = ("-Xms128m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dlog4j2.level=WARN")
SETTINGS = {"process.roles": "broker,controller", "node.id": "1", "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "PLAINTEXT", "num.partitions": "4", "default.replication.factor": "1",
            "offsets.topic.replication.factor": "1", "offsets.topic.num.partitions": "4", "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1", "share.coordinator.state.topic.replication.factor": "1",
            "share.coordinator.state.topic.min.isr": "1", "group.initial.rebalance.delay.ms": "0", "auto.create.topics.enable": "false"}
"""One broker that is its own controller; replicas would need more of them."""


def missing() -> str:
    """What this machine lacks to run a broker, as a sentence; empty when nothing."""
    lacking = [name for name in ("java", "mvn") if shutil.which(name) is None]
    if not lacking or (lacking == ["mvn"] and _fetched()):
        return ""
    return (f"{' and '.join(lacking)} {'is' if len(lacking) == 1 else 'are'} not installed: Apache Kafka needs Java 17 or newer, and Maven to be "
            "fetched (Debian: apt-get install openjdk-17-jre-headless maven)")


def fetch(say=lambda text: print(text, file=sys.stderr, flush=True)) -> Path:
    """Folder of the broker's jars; fetched on first use (about 45 MB). Safe against several processes at once."""
    if lack := missing():
        raise BadInput(lack)
    JARS.mkdir(exist_ok=True)
    with _locked(JARS / ".lock"):
        if not _fetched():
            say(f"fetching Apache Kafka into {JARS} (about 45 MB, once)")
            fresh = JARS / "new"
            shutil.rmtree(fresh, ignore_errors=True)
            command = ["mvn", "--quiet", "--batch-mode", "--file", POM, "dependency:copy-dependencies", "-DincludeScope=runtime",
                       f"-DoutputDirectory={fresh}"]
            done = subprocess.run([str(word) for word in command], stdin=subprocess.DEVNULL, capture_output=True, text=True)
            if done.returncode:
                words = [line for line in (done.stdout + done.stderr).splitlines() if "ERROR" in line] or ["it says nothing"]
                raise Transient(f"Maven could not fetch Apache Kafka: {words[0].split('ERROR]')[-1].strip()}")
            (fresh / POM.name).write_bytes(POM.read_bytes())
            shutil.rmtree(JARS / "lib", ignore_errors=True)
            fresh.rename(JARS / "lib")
    return JARS / "lib"


def _fetched() -> bool:
    """Whether the jars of today's coordinates are there."""
    with contextlib.suppress(FileNotFoundError):
        return (JARS / "lib" / POM.name).read_bytes() == POM.read_bytes()
    return False


def start(folder: Path, *, port: int | None = None, settings: Mapping[str, str] | None = None) -> str:
    """Start the broker of a folder, unless it runs; its bootstrap servers.

    Parameters
    ----------
    port : of the clients' plain listener (default 9092, or the one it had). settings : more lines of Kafka's server.properties.

    Raises `BadInput` (java or mvn missing, port in use) and `Transient` (it did not come up), each with one sentence.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder / ".lock"):
        if at := status(folder):
            return at
        jars = fetch()
        known = _properties(folder)
        port = port or int(known.get("listeners", f":{PORT}").split(",")[0].rpartition(":")[2])
        _refuse_used(port)
        _write(folder, port, known, settings or {})
        if not (folder / "data" / "meta.properties").exists():
            cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
            os.waitpid(_java(jars, folder, "kafka.tools.StorageTool", "format", "-t", cluster, "-c", folder / "server.properties"), 0)
        pid = _java(jars, folder, "kafka.Kafka", folder / "server.properties")
        (folder / "broker.pid").write_text(str(pid))
        _wait_until_up(pid, folder, port)
    return f"{HOST}:{port}"


def stop(folder: Path) -> bool:
    """Stop the broker of a folder and wait until it has gone; False when none ran."""
    pid = _pid(folder)
    if pid is None:
        return False
    deadline = time.monotonic() + PATIENCE_S
    os.kill(pid, signal.SIGTERM)
    while _pid(folder) is not None:
        if time.monotonic() > deadline:
            raise Transient(f"the broker of {folder} (process {pid}) does not stop: see {folder / 'server.log'}")
        time.sleep(0.05)
    _gone(pid)
    (folder / "broker.pid").unlink(missing_ok=True)
    return True


def status(folder: Path) -> str | None:
    """Bootstrap servers of the broker of a folder when it runs, else None."""
    if _pid(folder) is None:
        return None
    return f"{HOST}:{_properties(folder)['listeners'].split(',')[0].rpartition(':')[2]}"


def _pid(folder: Path) -> int | None:
    """Process number of this folder's live broker: the number on file, if that process was started with this folder's settings."""
    with contextlib.suppress(OSError, ValueError):
        pid = int((folder / "broker.pid").read_text())
        if str(folder / "server.properties") in Path(f"/proc/{pid}/cmdline").read_text().split("\0"):
            return pid
    return None


def _properties(folder: Path) -> dict[str, str]:
    try:
        lines = (folder / "server.properties").read_text().splitlines()
    except FileNotFoundError:
        return {}
    return dict(line.split("=", 1) for line in lines if "=" in line)


def _write(folder: Path, port: int, known: Mapping[str, str], more: Mapping[str, str]) -> None:
    """server.properties; the controller keeps the port it had, which its data know."""
    voters = known.get("controller.quorum.voters") or f"1@{HOST}:{free_port()}"
    plain, controller = f"PLAINTEXT://{HOST}:{port}", f"CONTROLLER://{voters.partition('@')[2]}"
    lines = SETTINGS | {"controller.quorum.voters": voters, "listeners": f"{plain},{controller}", "advertised.listeners": plain,
                        "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT", "log.dirs": str(folder / "data")}
    for name, value in more.items():
        if name in ("listeners", "advertised.listeners", "listener.security.protocol.map"):
            lines[name] += "," + value
        else:
            lines[name] = value
    (folder / "server.properties").write_text("".join(f"{name}={value}\n" for name, value in lines.items()))


def _java(jars: Path, folder: Path, *command) -> int:
    """Process number of a Java program of Kafka's, in a session of its own, its words in the folder's log."""
    log = [(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
           (os.POSIX_SPAWN_OPEN, 1, folder / "server.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644), (os.POSIX_SPAWN_DUP2, 1, 2)]
    return os.posix_spawnp("java", ["java", *JVM, "-cp", f"{jars}/*", *(str(word) for word in command)], os.environ, file_actions=log, setsid=True)


def _gone(pid: int) -> bool:
    """Whether a child of this process has ended."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return True


def _wait_until_up(pid: int, folder: Path, port: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            socket.create_connection((HOST, port), timeout=1.0).close()
            return
        if _gone(pid):
            break
        time.sleep(0.1)
    else:
        os.kill(pid, signal.SIGKILL)
    said = (folder / "server.log").read_text().splitlines()[-30:]
    words = next((line for line in said if "Exception" in line or "ERROR" in line or "rror:" in line), said[-1] if said else "it says nothing")
    raise Transient(f"the broker in {folder} did not start: {words.strip()[:300]} (see {folder / 'server.log'})")


def _refuse_used(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise BadInput(f"port {port} of {HOST} is taken ({error.strerror}): start the broker with another --port") from error


def free_port() -> int:
    """A port of loopback that nobody uses now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with open(path, "w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
