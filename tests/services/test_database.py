import os
import threading

import numpy as np
import psycopg2
import pytest

from ztfluigi.model.errors import BadInput, Transient
from ztfluigi.services import database as db
from ztfluigi.services import postgres

pytestmark = pytest.mark.db


def backend() -> int:
    return db.query("select pg_backend_pid() as pid")[0]["pid"]


def test_transaction_commits_whole_or_not_at_all(database):
    database.execute("create table if not exists pairs (run text, n int)")
    run = os.environ["ZTF_RUN"]
    with database.transaction() as cursor:
        cursor.execute("insert into pairs values (%s, 1), (%s, 2)", (run, run))
    with pytest.raises(ValueError):
        with database.transaction() as cursor:
            cursor.execute("insert into pairs values (%s, 3)", (run,))
            raise ValueError
    with pytest.raises(psycopg2.errors.InvalidTextRepresentation):
        with database.transaction() as cursor:
            cursor.execute("insert into pairs values (%s, 4)", (run,))
            cursor.execute("insert into pairs values (%s, 'x')", (run,))
    assert [r["n"] for r in database.query("select n from pairs where run = %s order by n", (run,))] == [1, 2]
    with database.transaction():
        with pytest.raises(RuntimeError, match="already open"):
            with database.transaction():
                pass


def test_separate_transaction_stays_when_the_open_one_fails(database):
    database.execute("create table if not exists pairs (run text, n int)")
    run = os.environ["ZTF_RUN"]
    with pytest.raises(ValueError):
        with database.transaction():
            with database.separate_transaction() as other:
                other.execute("insert into pairs values (%s, 9)", (run,))
            raise ValueError
    assert database.query("select n from pairs where run = %s", (run,)) == [{"n": 9}]


def test_each_process_and_thread_has_its_own_connection(database):
    mine = backend()
    assert backend() == mine
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(write, str(backend()).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert int(os.read(read, 100)) != mine
    os.close(read), os.close(write)
    others = []
    thread = threading.Thread(target=lambda: others.append(backend()))
    thread.start()
    thread.join()
    assert others[0] != mine
    assert backend() == mine  # the child's end did not end the parent's session


def test_numpy_values_and_time_zone(database):
    row = database.query("select %s::bigint as i, %s::float8 as f, %s::bool as b, %s::text as t, current_setting('timezone') as zone",
                         (np.int64(2**60), np.float32(1.5), np.bool_(True), np.str_("x")))[0]
    assert row == {"i": 2**60, "f": 1.5, "b": True, "t": "x", "zone": "UTC"}
    assert database.query("select 1, 2", rows=tuple) == [(1, 2)]


@pytest.mark.parametrize("uri, kind, says", [
    ("postgresql://nobody@127.0.0.1:1/ztf", Transient, "127.0.0.1:1, database ztf.*Connection refused.*check host"),
    ("postgresql://u:secret@no-such-host.invalid/ztf", BadInput, "no-such-host.invalid:5432"),
    ("not a uri", BadInput, "is not a PostgreSQL URI"),
    ("postgresql://h/d?nonsense=1", BadInput, "is not a PostgreSQL URI"),
])
def test_wrong_uri_is_one_sentence(monkeypatch, tmp_path, uri, kind, says):
    monkeypatch.setenv("ZTF_ROOT", str(tmp_path))
    monkeypatch.setenv("ZTF_DATABASE", uri)
    with pytest.raises(kind, match=says) as caught:
        db.connect()
    assert "\n" not in caught.value.reason and "secret" not in caught.value.reason
    assert not (tmp_path / "db").exists()


def external(name: str) -> str:
    """URI of a database of this name in the session's server, as an outside server would be given."""
    db.execute("select 1")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("ZTF_DATABASE", raising=False)
        connection = db.connect()
        with connection.cursor() as cursor:
            cursor.execute(f"create database {name}")
        return f"postgresql://postgres@/{name}?host={connection.info.host}&port={postgres.PORT}"


def test_outside_server_by_uri(database, monkeypatch):
    uri = external("outside")
    monkeypatch.setenv("ZTF_DATABASE", uri)
    assert database.query("select current_database() as name, (select count(*) from products) as n") == [{"name": "outside", "n": 0}]
    monkeypatch.setenv("ZTF_DATABASE", uri.replace("/outside", "/missing"))
    with pytest.raises(BadInput, match='database missing.*"missing" does not exist'):
        database.connect()
    monkeypatch.setenv("ZTF_DATABASE", uri.replace("postgres@", "stranger@"))
    with pytest.raises(BadInput, match='"stranger" does not exist'):
        database.connect()


def test_user_without_rights_to_make_tables(database, monkeypatch):
    uri = external("guarded")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("ZTF_DATABASE", raising=False)
        database.execute("create role reader login")
    monkeypatch.setenv("ZTF_DATABASE", uri.replace("postgres@", "reader@"))
    with pytest.raises(BadInput, match="may not make the survey's tables: permission denied"):
        database.connect()


def test_migrations_apply_once_in_order_and_are_not_edited(database, monkeypatch):
    applied = [r["name"] for r in database.query("select name from migrations order by applied, name")]
    assert applied == sorted(db.migrations()) and applied[0] == "001_registry.sql"
    assert db.migrate(database.connect()) == []
    real = db.migrations()
    extra = real | {"900_extra.sql": ("create table extra (n int)", "sum")}
    monkeypatch.setattr(db, "migrations", lambda: extra)
    assert db.migrate(database.connect()) == ["900_extra.sql"] and db.migrate(database.connect()) == []
    try:
        monkeypatch.setattr(db, "migrations", lambda: real)
        with pytest.raises(BadInput, match="newer ztfluigi.*900_extra.sql"):
            db.migrate(database.connect())
        monkeypatch.setattr(db, "migrations", lambda: real | {"900_extra.sql": ("create table extra (n bigint)", "other")})
        with pytest.raises(BadInput, match="900_extra.sql was edited"):
            db.migrate(database.connect())
        twice = "create table half (n int); create table half (n int)"
        monkeypatch.setattr(db, "migrations", lambda: extra | {"901_bad.sql": (twice, "s")})
        with pytest.raises(psycopg2.errors.DuplicateTable):
            db.migrate(database.connect())
        monkeypatch.setattr(db, "migrations", lambda: extra)
        assert db.migrate(database.connect()) == []
        assert database.query("select to_regclass('half') as half") == [{"half": None}]
    finally:
        with database.connect().cursor() as cursor:
            cursor.execute("drop table extra; delete from migrations where name = '900_extra.sql'")
