"""Door to the operations database: one connection a process and thread, autocommit for reads, one transaction for a seal.

A connection never crosses a fork: the process number is kept beside it and a child opens its own. What PostgreSQL says when
it cannot be reached becomes one sentence (`BadInput` when a setting is wrong, `Transient` when time may mend it).
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import re
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import psycopg2
import psycopg2.extensions
import psycopg2.extras

import ztfluigi
from ztfluigi.model.errors import BadInput, Transient
from ztfluigi.services import postgres
from ztfluigi.services.settings import Settings, settings

_SESSION = {"connect_timeout": 10, "application_name": "ztfluigi", "options": "-c timezone=UTC"}
RECOVERY_S = 30.0
"""How long a reconnect waits for an embedded server that is starting, stopping or recovering."""
MIGRATION_LOCK = 7_236_001
"""Advisory lock under which migrations are applied."""
_WRONG_SETTING = ("password", "authentication", "does not exist", "no pg_hba.conf entry", "translate host name", "invalid", "SSL", "peer")
_MIGRATION = re.compile(r"^\d{3}_\w+\.sql$")

for _kind, _convert in ((np.integer, int), (np.floating, float), (np.bool_, bool), (np.str_, str)):
    for _type in {_kind, *_kind.__subclasses__(), *(s for c in _kind.__subclasses__() for s in c.__subclasses__())}:
        psycopg2.extensions.register_adapter(_type, lambda value, convert=_convert: psycopg2.extensions.adapt(convert(value)))


class _Slot(threading.local):
    connection = None
    owner: tuple | None = None


_slot = _Slot()


def connect() -> psycopg2.extensions.connection:
    """This process's (and thread's) connection to the database of the settings in force, in autocommit mode, schema up to date."""
    wanted = settings()
    owner = (os.getpid(), wanted.database or wanted.root)
    if _slot.connection is not None:
        if _slot.owner == owner and not _slot.connection.closed:
            return _slot.connection
        if _slot.owner[0] == owner[0]:
            _slot.connection.close()
        _slot.connection = None  # after a fork: dropped, never closed; the session is the parent's
    connection = open_connection(wanted)
    _slot.connection, _slot.owner = connection, owner
    return connection


def disconnect() -> None:
    """Close this process's connection; the next use opens a new one."""
    if _slot.connection is not None and _slot.owner[0] == os.getpid():
        _slot.connection.close()
    _slot.connection = None


def query(sql: str, args: Sequence | dict | None = None, *, rows: type = dict) -> list:
    """Rows of a read, as dictionaries or (`rows=tuple`) tuples. A connection lost since its last use is reopened once."""
    for attempt in (1, 2):
        connection = connect()
        try:
            with connection.cursor() as cursor:
                cursor.execute(sql, args)
                found = cursor.fetchall()
                names = [column.name for column in cursor.description]
            return found if rows is tuple else [dict(zip(names, row)) for row in found]
        except psycopg2.Error as error:
            if not _gave_up(error, connection):
                raise
            if attempt == 2 or not connection.closed:
                raise _transient(error) from error
    raise AssertionError("unreachable")


@contextlib.contextmanager
def transaction() -> Iterator[psycopg2.extras.RealDictCursor]:
    """One transaction: commits when the block ends, rolls back when it raises. Yields a cursor whose rows are dictionaries."""
    connection = _begin()
    try:
        with connection.cursor(cursor_factory=psycopg2.extras.RealDictCursor) as cursor:
            yield cursor
            cursor.execute("commit")
    except BaseException as error:
        with contextlib.suppress(psycopg2.Error):
            if not connection.closed:
                with connection.cursor() as cursor:
                    cursor.execute("rollback")
        if isinstance(error, psycopg2.Error) and _gave_up(error, connection):
            raise _transient(error) from error
        raise


def _gave_up(error: psycopg2.Error, connection) -> bool:
    """Whether the server or the way to it failed, not the statement: a server killed in the midst of a COPY is a plain DatabaseError."""
    return isinstance(error, (psycopg2.OperationalError, psycopg2.InterfaceError)) or bool(connection.closed)


def _begin() -> psycopg2.extensions.connection:
    for attempt in (1, 2):
        connection = connect()
        if connection.info.transaction_status == psycopg2.extensions.TRANSACTION_STATUS_INTRANS:
            raise RuntimeError("a transaction is already open in this process")
        try:
            with connection.cursor() as cursor:
                cursor.execute("begin")
            return connection
        except (psycopg2.OperationalError, psycopg2.InterfaceError) as error:
            if attempt == 2 or not connection.closed:
                raise _transient(error) from error
    raise AssertionError("unreachable")


def execute(sql: str, args: Sequence | dict | None = None) -> int:
    """One writing statement in its own transaction; the number of rows it touched."""
    with transaction() as cursor:
        cursor.execute(sql, args)
        return cursor.rowcount


@contextlib.contextmanager
def separate_transaction() -> Iterator[psycopg2.extras.RealDictCursor]:
    """A short transaction on a connection of its own: what it commits stays whatever becomes of a transaction now open."""
    connection = open_connection(settings())
    try:
        with connection.cursor(cursor_factory=psycopg2.extras.RealDictCursor) as cursor:
            cursor.execute("begin")
            yield cursor
            cursor.execute("commit")
    except psycopg2.Error as error:
        if _gave_up(error, connection):
            raise _transient(error) from error
        raise
    finally:
        connection.close()


def open_connection(wanted: Settings) -> psycopg2.extensions.connection:
    """A new connection in autocommit mode, schema up to date; starts the embedded server when no URI is given."""
    connection = _open_uri(wanted.database) if wanted.database else _open_embedded(wanted.root)
    connection.autocommit = True
    try:
        migrate(connection)
    except BaseException as error:
        connection.close()
        if isinstance(error, psycopg2.errors.InsufficientPrivilege):
            raise BadInput(f"the database user may not make the survey's tables: {_first_line(error)}") from error
        if isinstance(error, psycopg2.OperationalError):
            raise _transient(error) from error
        raise
    return connection


def _open_uri(uri: str) -> psycopg2.extensions.connection:
    try:
        parts = psycopg2.extensions.parse_dsn(uri)
    except psycopg2.ProgrammingError as error:
        raise BadInput("[ztf] database (or ZTF_DATABASE) is not a PostgreSQL URI of the form postgresql://user@host:5432/name: "
                       + _first_line(error)) from error
    try:
        return psycopg2.connect(uri, **_SESSION | parts)
    except psycopg2.OperationalError as error:
        place = f"{parts.get('host', 'the local socket')}:{parts.get('port', '5432')}, database {parts.get('dbname', 'of the user')}"
        said = _first_line(error)
        kind = BadInput if any(word in said for word in _WRONG_SETTING) else Transient
        raise kind(f"the database at {place} (from [ztf] database or ZTF_DATABASE) cannot be reached: {said.split('failed: ')[-1]}; "
                   "check host, port, name and user, and that the server runs") from error


def _open_embedded(root: Path) -> psycopg2.extensions.connection:
    deadline = time.monotonic() + RECOVERY_S
    while True:
        folder = postgres.serve(root)
        try:
            return psycopg2.connect(host=str(folder), port=postgres.PORT, user="postgres", dbname="postgres", **_SESSION)
        except psycopg2.OperationalError as error:
            said = _first_line(error)
            if "Permission denied" in said:
                raise BadInput(f"the database in {root / 'db'} was started by another user: use the survey as that user, "
                               + postgres.ELSEWHERE) from error
            if time.monotonic() > deadline:
                raise Transient(f"the embedded database in {root / 'db'} does not answer: {said}") from error
        time.sleep(0.1)  # killed, starting, stopping or recovering


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].strip()


def _transient(error: Exception) -> Transient:
    return Transient(f"the database gave up: {_first_line(error)}")


@functools.lru_cache(maxsize=1)
def migrations() -> dict[str, tuple[str, str]]:
    """Name of every `sql/NNN_*.sql` in order, with its text and checksum."""
    folder = Path(ztfluigi.__file__).resolve().parents[1] / "sql"
    found = sorted(path for path in folder.glob("*.sql") if _MIGRATION.match(path.name)) if folder.is_dir() else []
    if not found:
        raise BadInput(f"the folder {folder} with the database's migrations is missing: install ztfluigi from its checkout (make setup)")
    return {path.name: (text := path.read_text(), hashlib.sha256(text.encode()).hexdigest()) for path in found}


def migrate(connection: psycopg2.extensions.connection) -> list[str]:
    """Apply the migrations that are missing, each once and whole; the names applied. Cheap when there is nothing to do.

    Raises `BadInput` when an applied migration was edited, or when the database knows one that this checkout lacks.
    """
    with connection.cursor() as cursor:
        if not (missing := _missing(cursor)):
            return []
        cursor.execute("select pg_advisory_lock(%s)", (MIGRATION_LOCK,))
        try:
            cursor.execute("create table if not exists migrations (name text primary key, checksum text not null, "
                           "applied timestamptz not null default now())")
            missing = _missing(cursor)
            for name in missing:
                text, checksum = migrations()[name]
                cursor.execute("begin")
                try:
                    cursor.execute(text)
                    cursor.execute("insert into migrations (name, checksum) values (%s, %s)", (name, checksum))
                    cursor.execute("commit")
                except BaseException:
                    if not connection.closed:
                        cursor.execute("rollback")
                    raise
        finally:
            if not connection.closed:
                cursor.execute("select pg_advisory_unlock(%s)", (MIGRATION_LOCK,))
    return missing


def _missing(cursor) -> list[str]:
    try:
        cursor.execute("select name, checksum from migrations")
    except psycopg2.errors.UndefinedTable:
        return list(migrations())
    applied = dict(cursor.fetchall())
    for name, checksum in applied.items():
        if name not in migrations():
            raise BadInput(f"the database was made by a newer ztfluigi (it has migration {name}): update the checkout")
        if migrations()[name][1] != checksum:
            raise BadInput(f"migration sql/{name} was edited after it was applied to this database: restore it and add a new numbered file")
    return [name for name in migrations() if name not in applied]
