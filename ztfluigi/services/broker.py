"""Door to Kafka: alert packets out, and in again for whoever listens.

A message is the whole Avro container of one packet; its key is the candid in decimal digits, so that all versions of one alert
lie in one partition, in order, and whoever remembers the keys he has seen sees no alert twice.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import socket
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ztfluigi.model.config.broker import BrokerConfig
from ztfluigi.model.errors import BadInput, Transient
from ztfluigi.model.ids import night_code
from ztfluigi.services.settings import section, settings

MAX_MESSAGE_BYTES = 16_000_000
"""Topics are made to take packets of this size: one with the whole history of a bright variable is larger than Kafka's usual 1 MB."""
CONNECT_S = 4.0
"""How long a broker may take to be reached. Short: a night goes on without it, and asks again."""
BATCH = 256
"""Messages read at a time."""
SESSION_S = 10.0
"""After this silence a group's dead member is forgotten and its share goes to the others."""


@dataclass(frozen=True)
class Placed:
    """Where the broker put a message."""

    topic: str
    partition: int
    offset: int


@dataclass(frozen=True)
class Message:
    """A message as it was read."""

    place: Placed
    key: bytes | None
    value: bytes


@dataclass
class Sent:
    """What became of messages. `answers` has one entry for each, in order: where it was placed, acknowledged by every replica in sync; or
    a sentence why it is refused for good; or None, for the passing reason in `trouble`."""

    answers: list[Placed | str | None]
    trouble: str = ""


def topic_of(night: str, programid: int) -> str:
    """`ztf_YYYYMMDD_programidN`."""
    return f"ztf_{night_code(night)}_programid{programid}"


def configured() -> bool:
    """Whether a broker is named: without one, alerts go to files and the ledger alone."""
    return bool(settings().kafka)


def servers() -> str:
    """Bootstrap servers; BadInput when none are named."""
    if not settings().kafka:
        raise BadInput("no broker is named: set `kafka = host:9092` in section [ztf] of luigi.cfg, or ZTF_KAFKA; `make kafka` starts one")
    return settings().kafka


@functools.lru_cache(maxsize=1)
def load():
    """The client library, loaded when first needed; forked task processes inherit it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # it reads its own files in an old way
        import kafka
        import kafka.admin
        import kafka.errors
    logging.getLogger("kafka").setLevel(logging.CRITICAL)  # what goes wrong is raised as one sentence
    return kafka


class Publisher:
    """An idempotent producer that waits for all replicas in sync. Use as a context manager.

    Raises `BadInput` for wrong settings, `Transient` when the broker cannot be reached.
    """

    def __init__(self, at: str | None = None):
        self.at = at or servers()
        self.timeout_s = section(BrokerConfig, "kafka").timeout_s
        self._topics: set[str] = set()
        limits = {"delivery_timeout_ms": int(1000 * self.timeout_s), "request_timeout_ms": max(int(500 * self.timeout_s), 500),
                  "max_block_ms": int(1000 * self.timeout_s)}
        self._producer = _client(load().KafkaProducer, self.at, acks="all", enable_idempotence=True, linger_ms=50, batch_size=1_000_000,
                                 max_request_size=MAX_MESSAGE_BYTES, allow_auto_create_topics=False, **limits)

    def __enter__(self) -> Publisher:
        return self

    def __exit__(self, kind, value, traceback) -> None:
        self._producer.close(timeout=self.timeout_s if kind is None else 0)

    def send(self, messages: Iterable[tuple[str, bytes | None, bytes]]) -> Sent:
        """Send (topic, key, value) and wait for the answers; what is wrong with one message does not stop the others."""
        errors, answered, trouble = load().errors, [], ""
        messages = iter(messages)
        for topic, key, value in messages:
            try:
                self._ensure(topic)
                answered.append((topic, self._producer.send(topic, value, key=key)))
            except errors.MessageSizeTooLargeError:
                answered.append((topic, f"its {len(value)} bytes are more than the {MAX_MESSAGE_BYTES} a message may have"))
            except errors.KafkaError as error:
                answered.append((topic, None))
                trouble = _trouble(error, self.at).reason
                break
        answered += [(topic, None) for topic, _, _ in messages]
        with contextlib.suppress(errors.KafkaError):  # said by the futures
            self._producer.flush(0 if trouble else self.timeout_s)
        answers = [self._answer(topic, future) for topic, future in answered]
        failed = [future.exception for (_, future), answer in zip(answered, answers) if answer is None and future is not None and future.failed()]
        if not trouble and None in answers:
            trouble = _trouble(failed[0], self.at).reason if failed else f"the broker at {self.at} did not answer in {self.timeout_s:g} s"
        return Sent(answers, trouble)

    @staticmethod
    def _answer(topic: str, future) -> Placed | str | None:
        if future is None or isinstance(future, str):
            return future
        if future.succeeded():
            return Placed(topic, future.value.partition, future.value.offset)
        errors = load().errors
        refused = future.failed() and isinstance(future.exception, (errors.MessageSizeTooLargeError, errors.RecordListTooLargeError))
        return f"the broker takes no message of its size: {future.exception}" if refused else None

    def _ensure(self, topic: str) -> None:
        """Make the topic when it is new, with the broker's own number of partitions and replicas."""
        if topic in self._topics:
            return
        kafka = load()
        with contextlib.closing(_client(kafka.KafkaAdminClient, self.at)) as admin:
            if topic not in admin.list_topics():
                wanted = {topic: {"configs": {"max.message.bytes": str(MAX_MESSAGE_BYTES)}}}
                with contextlib.suppress(kafka.errors.TopicAlreadyExistsError):
                    admin.create_topics(wanted, wait_for_metadata=True)
        self._topics.add(topic)


def read(topics: Sequence[str], *, at: str | None = None, group: str | None = None, follow: bool = False,
         limit: int | None = None) -> Iterator[list[Message]]:
    """Messages of topics in batches, from the beginning or from where the group stands, to what the topics hold now.

    Parameters
    ----------
    group : name under which the broker remembers what was read. It is noted when the next batch is asked for: what was handed over and
        not finished comes again after a crash.
    follow : go on waiting for more. limit : end after so many messages.
    """
    kafka, at, left = load(), at or servers(), limit
    consumer = _client(kafka.KafkaConsumer, at, group_id=group, auto_offset_reset="earliest", enable_auto_commit=False,
                       max_partition_fetch_bytes=MAX_MESSAGE_BYTES, fetch_max_bytes=4 * MAX_MESSAGE_BYTES, fetch_max_wait_ms=200,
                       session_timeout_ms=int(1000 * SESSION_S), heartbeat_interval_ms=int(200 * SESSION_S), allow_auto_create_topics=False)
    try:
        missing = sorted(set(topics) - consumer.topics())
        if missing:
            raise BadInput(f"the broker at {at} has no topic {', '.join(missing)}")
        if group:
            consumer.subscribe(topics)
        else:
            consumer.assign([kafka.TopicPartition(topic, number) for topic in topics for number in consumer.partitions_for_topic(topic)])
        silent_since = time.monotonic()
        while left is None or left > 0:
            records = consumer.poll(timeout_ms=300, max_records=min(BATCH, left or BATCH))
            batch = [Message(Placed(r.topic, r.partition, r.offset), r.key, r.value) for part in records.values() for r in part]
            if batch:
                yield batch
                if group:
                    consumer.commit()
                left, silent_since = left and left - len(batch), time.monotonic()
            elif not follow and (_at_the_end(consumer) or time.monotonic() - silent_since > 2 * SESSION_S):
                return
    except kafka.errors.KafkaError as error:
        raise _trouble(error, at) from error
    finally:
        consumer.close(timeout_ms=2000)


def _at_the_end(consumer) -> bool:
    """Whether everything that the topics hold has been read; never before partitions are assigned."""
    assigned = list(consumer.assignment())
    if not assigned:
        return False
    return all(consumer.position(partition) >= end for partition, end in consumer.end_offsets(assigned).items())


def mirror(topics: Sequence[str], destination: str, *, group: str = "ztf-mirror", follow: bool = False) -> int:
    """Copy messages to topics of the same names on another cluster, keys and values unchanged; the number copied.

    The group's place moves on when the destination has acknowledged, so that nothing is lost whichever side dies; after that a few
    messages may come twice, with the same key. Raises `Transient` when either side is away.
    """
    copied = 0
    with Publisher(destination) as publisher:
        for batch in read(topics, group=group, follow=follow):
            sent = publisher.send((message.place.topic, message.key, message.value) for message in batch)
            if refused := [answer for answer in sent.answers if isinstance(answer, str)]:
                raise BadInput(f"a message of {', '.join(topics)} cannot be copied to {destination}: {refused[0]}")
            if sent.trouble:
                raise Transient(sent.trouble)
            copied += len(batch)
    return copied


def _client(kind, at: str, **options):
    """A client of the library with the connection settings of section [kafka]. A broker that is away is noticed at once."""
    if not any(_listens(server) for server in at.split(",")):
        raise _away(at)
    try:
        return kind(bootstrap_servers=at.split(","), client_id="ztfluigi", bootstrap_timeout_ms=int(1000 * CONNECT_S), **_security(), **options)
    except load().errors.KafkaError as error:
        raise _trouble(error, at) from error
    except (ValueError, OSError) as error:  # a port that is no number, a certificate file that is none
        raise BadInput(f"the broker settings ([ztf] kafka = {at}, section [kafka]) cannot be used: {error}") from error


def _security() -> dict:
    """TLS and SASL options of the client library. Raises BadInput when a file or a secret is missing."""
    config = section(BrokerConfig, "kafka")
    options: dict = {"security_protocol": config.security_protocol}
    if config.security_protocol.startswith("SASL"):
        password = os.environ.get(config.sasl_password_from)
        if not config.sasl_username or not password:
            raise BadInput(f"[kafka] security_protocol = {config.security_protocol} needs sasl_username, and the password in the environment "
                           f"variable {config.sasl_password_from} (named by sasl_password_from)")
        options |= {"sasl_mechanism": config.sasl_mechanism, "sasl_plain_username": config.sasl_username, "sasl_plain_password": password}
    if config.security_protocol.endswith("SSL"):
        for name in ("ssl_cafile", "ssl_certfile", "ssl_keyfile"):
            path = getattr(config, name)
            if path and not Path(path).is_file():
                raise BadInput(f"[kafka] {name} = {path} is no file")
            options[name] = path
        options["ssl_password"] = os.environ.get(config.ssl_password_from)
    return options


def _trouble(error: Exception, at: str) -> BadInput | Transient:
    """One sentence of what is wrong: `BadInput` where a setting or a permission is, `Transient` where time may mend it."""
    errors = load().errors
    permission = (errors.AuthorizationError, errors.SaslAuthenticationFailedError, errors.UnsupportedSaslMechanismError,
                  errors.KafkaConfigurationError, errors.InvalidTopicError)
    if isinstance(error, permission):
        return BadInput(f"the broker at {at} refuses: {error}; check section [kafka] and this user's rights")
    if not any(_listens(server) for server in at.split(",")):
        return _away(at)
    if "bootstrap" in str(error):
        return Transient(f"{at} listens but does not answer as a Kafka broker with security_protocol = "
                         f"{section(BrokerConfig, 'kafka').security_protocol}: it is starting, or [kafka] has another user, password or TLS "
                         "setting than it wants")
    return Transient(f"the broker at {at} did not do what was asked: {error}")


def _away(at: str) -> Transient:
    return Transient(f"no broker listens at {at} (from [ztf] kafka or ZTF_KAFKA); what is pending is sent later by "
                     "`ztf alerts publish --night`")


def _listens(server: str) -> bool:
    host, _, port = server.strip().rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=2.0).close()
    except (OSError, ValueError):
        return False
    return True
