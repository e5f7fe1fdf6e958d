"""Fixtures every test may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.kafka import KafkaBroker
from ztfluigi.services import kafka_server

os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data beside the checkout; the test skips where it is absent."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the real-data folder ../shared/data is not on this machine")
    return folder


@pytest.fixture(scope="session")
def shared_spec(shared_data) -> Path:
    """The folder of format fact sheets beside the checkout."""
    return shared_data.parent / "spec"


@pytest.fixture(scope="session")
def kafka_broker(tmp_path_factory):
    """A real Apache Kafka of this session, with a plain and a TLS-and-password listener; the test skips without Java and Maven."""
    if lack := kafka_server.missing():
        pytest.skip(lack)
    broker = KafkaBroker(tmp_path_factory.mktemp("kafka"))
    broker.start()
    yield broker
    broker.stop()


def pytest_runtest_logreport(report):
    """On the continuous-integration machine nothing may skip for want of a server or of the real data."""
    if os.environ.get("ZTF_TESTS_NO_SKIP") and report.skipped and {"real", "db", "kafka"} & set(report.keywords):
        _skipped.append(report.nodeid)


def pytest_sessionfinish(session, exitstatus):
    if _skipped and not hasattr(session.config, "workerinput"):
        print("\nskipped although ZTF_TESTS_NO_SKIP is set: " + ", ".join(_skipped))
        session.exitstatus = 1


_skipped: list[str] = []
