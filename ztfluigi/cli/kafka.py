"""`ztf kafka`: a real Apache Kafka broker on loopback, for a quick start."""

from __future__ import annotations

from ztfluigi.model.errors import BadInput
from ztfluigi.services import broker, kafka_server
from ztfluigi.services.settings import settings


def add_parser(subparsers) -> None:
    parser = subparsers.add_parser("kafka", help="an alert broker on loopback: start, stop, or print where it listens")
    parser.add_argument("action", choices=("start", "stop", "status"))
    parser.add_argument("--port", type=int, help=f"port of its clients (default {kafka_server.PORT}, or the one it had)")


def run(args) -> int:
    folder = settings().root / "kafka"
    if args.port is not None and not 0 < args.port < 65536:
        raise BadInput(f"--port {args.port} is no port: give one from 1 to 65535")
    if args.action == "start":
        at = kafka_server.start(folder, port=args.port)
        print(f"Apache Kafka listens at {at}, its data are in {folder}\n  deliver the alerts of a night   ZTF_KAFKA={at} ztf alerts publish "
              f"--night YYYY-MM-DD\n  see what is there               ZTF_KAFKA={at} ztf alerts consume --night YYYY-MM-DD\n"
              f"  deliver as a night goes on      set `kafka = {at}` in section [ztf] of luigi.cfg\n  stop it                         ztf kafka stop")
        return 0
    if args.action == "stop":
        print("Apache Kafka is stopped" if kafka_server.stop(folder) else f"no broker of {folder} runs")
        return 0
    at = kafka_server.status(folder)
    print(f"Apache Kafka listens at {at}" if at else f"no broker of {folder} runs; `ztf kafka start` starts one")
    if broker.configured():
        print(f"alerts go to {broker.servers()}")
    return 0 if at else 1
