"""The embedded server under the things that happen to servers: races, kills, copies, moves, private folders, other users."""

import io
import os
import pwd
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ztfluigi.model.errors import BadInput, Transient
from ztfluigi.services import database, postgres

pytestmark = pytest.mark.db

CLIENT = """
import warnings
import luigi
warnings.simplefilter("error")
from ztfluigi.services import database
print(database.query("select inet_server_addr() as address, pg_postmaster_start_time()::text as started")[0]["started"])
"""


def client(**environment):
    """A second process that uses the survey; its environment is this one's."""
    return subprocess.Popen([sys.executable, "-c", CLIENT], env=os.environ | environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            text=True)


def keep(value: str) -> None:
    database.execute("create table if not exists kept (value text)")
    database.execute("insert into kept values (%s)", (value,))


def kept() -> list[str]:
    return [row["value"] for row in database.query("select value from kept order by 1")]


def kill_server(root) -> list[str]:
    """Kill -9 of the postmaster; its last processes have gone when this returns. The lines of the pid file it left."""
    lines = (root / "db/postmaster.pid").read_text().splitlines()
    os.kill(int(lines[0]), signal.SIGKILL)
    while postgres.running(root):
        time.sleep(0.01)
    return lines


def test_two_processes_starting_at_once_share_one_server_that_survives_them(own_root):
    clients = [client() for _ in range(3)]
    answers = [process.communicate(timeout=120) for process in clients]
    assert [process.returncode for process in clients] == [0, 0, 0], answers
    assert len({out for out, _ in answers}) == 1
    assert postgres.running(own_root)
    assert database.query("select pg_postmaster_start_time()::text as started")[0]["started"] == answers[0][0].strip()
    settings = {row["name"]: row["setting"] for row in database.query("select name, setting from pg_settings")}
    assert settings["fsync"] == settings["synchronous_commit"] == settings["full_page_writes"] == "on"
    assert settings["max_connections"] == "200" and settings["listen_addresses"] == ""


def test_killed_server_comes_back_with_every_sealed_row(own_root):
    keep("before")
    kill_server(own_root)
    assert kept() == ["before"]
    keep("after")
    kill_server(own_root)
    with database.transaction() as cursor:  # a transaction, too, finds the new server
        cursor.execute("insert into kept values ('third')")
    assert kept() == ["after", "before", "third"]


@pytest.mark.parametrize("write", [lambda cursor: cursor.execute("insert into kept values ('lost')"),
                                   lambda cursor: cursor.copy_expert("copy kept from stdin", io.StringIO("lost\n"))])
def test_loss_within_a_transaction_is_transient(own_root, write):
    keep("before")
    with pytest.raises(Transient, match="the database gave up"):
        with database.transaction() as cursor:
            cursor.execute("insert into kept values ('lost')")
            kill_server(own_root)
            write(cursor)
    assert kept() == ["before"]


def test_stop_and_start_again(own_root):
    assert not postgres.running(own_root) and postgres.stop(own_root) is False
    keep("one")
    sockets = database.connect().info.host
    assert postgres.running(own_root) and postgres.stop(own_root) is True
    assert not postgres.running(own_root) and not os.path.exists(sockets)
    assert kept() == ["one"]


def test_copied_and_moved_roots_start_by_themselves(own_root, tmp_path, monkeypatch):
    keep("original")
    copy = tmp_path / "copy"
    shutil.copytree(own_root, copy)  # the original's server still runs, and its postmaster.pid is copied too
    monkeypatch.setenv("ZTF_ROOT", str(copy))
    try:
        keep("copy")
        assert kept() == ["copy", "original"]
        monkeypatch.setenv("ZTF_ROOT", str(own_root))
        assert kept() == ["original"]
    finally:
        assert postgres.stop(copy)
    moved = own_root.rename(tmp_path / "moved")
    monkeypatch.setenv("ZTF_ROOT", str(moved))
    assert kept() == ["original"]  # renamed under a running server
    assert postgres.stop(moved)
    assert kept() == ["original"]
    assert postgres.stop(moved)


def test_number_of_a_dead_server_taken_by_another_process(own_root):
    keep("row")
    lines = kill_server(own_root)
    (own_root / "db/postmaster.pid").write_text("\n".join([str(os.getpid()), *lines[1:]]) + "\n")  # as after a reboot
    assert kept() == ["row"]


def test_cleaned_temporary_folder(own_root):
    keep("row")
    shutil.rmtree(database.connect().info.host)
    database.disconnect()
    assert kept() == ["row"]


def test_long_root_path(tmp_path, monkeypatch):
    root = tmp_path / ("d" * 120)
    monkeypatch.delenv("ZTF_DATABASE", raising=False)
    monkeypatch.setenv("ZTF_ROOT", str(root))
    try:
        assert database.query("select 1 as one") == [{"one": 1}]
    finally:
        database.disconnect()
        postgres.stop(root)


def test_folder_that_is_no_cluster(own_root):
    (own_root / "db").mkdir()
    (own_root / "db/notes.txt").write_text("mine")
    with pytest.raises(BadInput, match="not empty and holds no PostgreSQL cluster"):
        database.connect()
    assert (own_root / "db/notes.txt").read_text() == "mine"


def test_broken_cluster_says_what_postgresql_said(own_root):
    keep("row")
    postgres.stop(own_root)
    (own_root / "db/postgresql.conf").write_text("shared_buffers = nonsense\n")
    with pytest.raises(Transient, match="did not start: .*(errors|invalid)") as caught:
        kept()
    assert "\n" not in caught.value.reason and "ZTF_DATABASE" in caught.value.reason
    assert not postgres.running(own_root)


needs_root = pytest.mark.skipif(os.geteuid() != 0 or shutil.which("setpriv") is None, reason="needs root to become another user")


@needs_root
def test_ordinary_user_in_a_private_folder(monkeypatch):
    """A process of user nobody makes, uses and stops a server of its own; root may then use that survey, too."""
    nobody = pwd.getpwnam("nobody")
    place = Path(f"/tmp/ztf-test-{os.getpid()}")  # pytest's own folders are closed to other users
    place.mkdir(mode=0o700)
    os.chown(place, nobody.pw_uid, nobody.pw_gid)
    monkeypatch.setenv("ZTF_ROOT", str(place))
    monkeypatch.delenv("ZTF_DATABASE", raising=False)
    become = ["setpriv", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups", sys.executable, "-B", "-c", CLIENT]
    try:
        first, second = (subprocess.run(become, env=os.environ | {"HOME": str(place)}, capture_output=True, text=True, cwd=place) for _ in "12")
        if "Permission denied" in first.stderr or "No module" in first.stderr:
            pytest.skip("this checkout's Python is in a private folder")
        assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
        assert first.stdout == second.stdout
        assert database.query("select pg_postmaster_start_time()::text as started")[0]["started"] == first.stdout.strip()
        assert postgres.stop(place)
        keep("by root")
        assert kept() == ["by root"]
        assert postgres.stop(place)
        assert {path.lstat().st_uid for path in [place / "db", *(place / "db").rglob("*")]} == {nobody.pw_uid}
    finally:
        database.disconnect()
        postgres.stop(place)
        shutil.rmtree(place)


@needs_root
def test_root_without_user_namespaces(own_root, monkeypatch):
    works = postgres._works
    monkeypatch.setattr(postgres, "_works", lambda prefix: prefix[0] != "unshare" and works(prefix))
    keep("row")
    assert os.stat(own_root / "db").st_uid != 0 and os.stat(own_root).st_mode & 0o777 == 0o700
    postgres.stop(own_root)
    monkeypatch.setattr(postgres, "_works", works)
    assert kept() == ["row"]


@needs_root
def test_root_without_any_way_is_told_what_to_do(own_root, monkeypatch):
    monkeypatch.setattr(postgres, "_works", lambda prefix: False)
    with pytest.raises(BadInput, match="ordinary user.*ZTF_DATABASE"):
        database.connect()
