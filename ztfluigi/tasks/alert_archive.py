"""The nightly tarballs in which the survey hands out its alert packets, one a programme."""

from __future__ import annotations

from collections.abc import Iterator

import luigi

from targets import paths
from targets.codecs import alert as alert_codec
from targets.sealed import Stage
from ztfluigi.model.errors import NoWork, Transient
from ztfluigi.services import ledger
from ztfluigi.tasks.base import Built, Choice
from ztfluigi.tasks.settings import root


class AlertArchive(Choice):
    """Every packet of a night and programme that the ledger holds as sealed, as `<candid>.avro` in one tarball.

    What it is made of is looked up in the ledger each time, so that it is stale as soon as a quadrant of the night is packed anew.
    """

    night = luigi.Parameter()
    programid = luigi.IntParameter()
    frozen = ()

    def ingredients(self):
        return ()

    def files(self):
        return {"packets": paths.alert_archive(self.night, self.programid)}

    def choose(self) -> list:
        return [list(one) for one in ledger.archived(self.night, self.programid)]

    def build(self, stage: Stage) -> Built:
        wanted = {file: {candid for candid, row in rows.items() if row["programid"] == self.programid}
                  for file, rows in ledger.sealed(self.night).items()}
        expected = sum(map(len, wanted.values()))
        if not expected:
            raise NoWork(f"no sealed packet of programme {self.programid} in night {self.night}")
        count = alert_codec.pack_alerts(stage["packets"], self.packets(wanted))
        if count != expected:
            raise Transient(f"the archive's tarballs hold {count} packets of programme {self.programid}, the ledger {expected}: "
                            "a quadrant is being packed anew")
        return Built(numbers={"n_packets": count})

    @staticmethod
    def packets(wanted: dict[str, set[int]]) -> Iterator[tuple[int, bytes]]:
        """The wanted packets, by file; one file is open at a time."""
        for file, candids in wanted.items():
            if candids:
                yield from ((candid, packet) for candid, packet in alert_codec.unpack_alerts(root() / file) if candid in candids)


def archives(night: str) -> list[AlertArchive]:
    """The tarballs of a night: of each programme that has packets in the ledger."""
    return [AlertArchive(night, programid) for programid in ledger.programmes(night)]
