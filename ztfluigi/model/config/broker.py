"""The alert broker: how its clients connect."""

from __future__ import annotations

from dataclasses import dataclass

from ztfluigi.model.config import knob


@dataclass(frozen=True)
class BrokerConfig:
    """Section [kafka]. The broker itself is named by `[ztf] kafka`; secrets stand in environment variables alone."""

    security_protocol: str = knob("PLAINTEXT", "TLS is SSL, a password is SASL, both are SASL_SSL", critical=False,
                                  choices=("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"))
    sasl_mechanism: str = knob("SCRAM-SHA-512", "how the password is shown", critical=False,
                               choices=("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"))
    sasl_username: str | None = knob(None, "user name of SASL", critical=False)
    sasl_password_from: str = knob("ZTF_KAFKA_PASSWORD", "environment variable that holds the password of SASL", critical=False)
    ssl_cafile: str | None = knob(None, "PEM file of the authorities that sign brokers; none means the system's", critical=False)
    ssl_certfile: str | None = knob(None, "PEM file of this client's certificate, where the broker asks for one", critical=False)
    ssl_keyfile: str | None = knob(None, "PEM file of that certificate's key", critical=False)
    ssl_password_from: str = knob("ZTF_KAFKA_KEY_PASSWORD", "environment variable that holds the key's password, where it has one",
                                  critical=False)
    timeout_s: float = knob(20.0, "longest wait for the broker's answer to one send", unit="s", critical=False, low=1.0, high=600.0)
