"""A real broker for tests, and what a stock consumer reads from it."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

from ztfluigi.services import kafka_server

PASSWORD = "not-a-secret"


class KafkaBroker:
    """One broker in a folder: a plain listener at `at`, one with TLS and a password at `secure`, whose authority is in `cafile`."""

    def __init__(self, folder: Path, secured: bool = True):
        self.folder, self.secured = folder, secured
        self.port, self.secure_port = kafka_server.free_port(), kafka_server.free_port()
        self.at, self.secure = f"127.0.0.1:{self.port}", f"localhost:{self.secure_port}"
        self.cafile = folder / "ca.pem"

    def start(self) -> None:
        kafka_server.start(self.folder, port=self.port, settings=self._secure_listener() if self.secured else None)

    def stop(self) -> None:
        kafka_server.stop(self.folder)

    def kill(self) -> None:
        """-9, as a power cut would."""
        pid = int((self.folder / "broker.pid").read_text())
        os.kill(pid, signal.SIGKILL)
        while kafka_server.status(self.folder):
            time.sleep(0.02)

    def _secure_listener(self) -> dict[str, str]:
        store = self.folder / "broker.p12"
        if not store.exists():
            key = ["keytool", "-keystore", store, "-storetype", "PKCS12", "-storepass", PASSWORD, "-alias", "broker"]
            subprocess.run([*key, "-genkeypair", "-keyalg", "EC", "-dname", "CN=localhost", "-ext", "san=dns:localhost,ip:127.0.0.1",
                            "-validity", "30"], check=True, capture_output=True)
            subprocess.run([*key, "-exportcert", "-rfc", "-file", self.cafile], check=True, capture_output=True)
        login = f'org.apache.kafka.common.security.plain.PlainLoginModule required user_ztf="{PASSWORD}";'
        return {"listeners": f"SECURE://127.0.0.1:{self.secure_port}", "advertised.listeners": f"SECURE://{self.secure}",
                "listener.security.protocol.map": "SECURE:SASL_SSL", "listener.name.secure.ssl.keystore.location": str(store),
                "listener.name.secure.ssl.keystore.password": PASSWORD, "listener.name.secure.sasl.enabled.mechanisms": "PLAIN",
                "listener.name.secure.plain.sasl.jaas.config": login}


def stock_consumer(at: str, topic: str, group: str = "stock", expected: int | None = None, patience_s: float = 60.0) -> list:
    """Every message of a topic as confluent-kafka reads it from the beginning, in a group of its own."""
    from confluent_kafka import Consumer

    consumer = Consumer({"bootstrap.servers": at, "group.id": group, "auto.offset.reset": "earliest", "enable.partition.eof": True})
    consumer.subscribe([topic])
    messages, ended, partitions = [], set(), None
    deadline = time.monotonic() + patience_s
    try:
        while time.monotonic() < deadline:
            message = consumer.poll(0.2)
            partitions = partitions or len(consumer.list_topics(topic).topics[topic].partitions)
            if message is not None and message.error() is None:
                messages.append(message)
            elif message is not None and message.error().name() == "_PARTITION_EOF":
                ended.add(message.partition())
            if len(messages) == expected or (expected is None and len(ended) == partitions):
                break
    finally:
        consumer.close()
    return messages
