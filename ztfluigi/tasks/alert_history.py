"""What past images say of the places of one quadrant's candidates: earlier detections and upper limits (paper 4.1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from targets import paths
from ztfluigi.model.config.alerts import AlertConfig
from ztfluigi.model.ids import ccd_and_quadrant
from ztfluigi.services import candidates, coverage
from ztfluigi.tasks.alert_context import Candidates

PUBLIC = 1
"""Programme whose history every packet may show."""
NO_CLASSIFIER = "none"
"""rbversion of a detection that no classifier has seen."""


def past(seen: Candidates, programid: int, config: AlertConfig) -> tuple[list, list]:
    """(earlier detections, upper limits) of every candidate, as `prv_candidates` fields: those of the public programme and of `programid`."""
    span = seen.jd - config.history_days, seen.jd
    found = candidates.history(seen.ra, seen.dec, *span, radius_arcsec=config.match_radius_arcsec)
    limits = coverage.covering_limits(seen.ra, seen.dec, *span, detections=found)
    return ([[row | {"pdiffimfilename": archived(row["pdiffimfilename"])} for row in shown(rows, programid)] for rows in found],
            [[row | {"pdiffimfilename": archived_of(row), "rbversion": NO_CLASSIFIER} for row in shown(rows, programid)] for rows in limits])


def shown(rows: Sequence[Mapping], programid: int) -> list[Mapping]:
    """Those of the public programme and of the packet's own."""
    return [row for row in rows if row["programid"] in (PUBLIC, programid)]


def archived(filename: str) -> str:
    """Archive path of a difference image, as history records give it."""
    name = paths.ScienceName.parse(filename)
    return f"/ztf/{paths.science(name.raw, name.qid, name.suffix)}.fz"


def archived_of(limit: Mapping) -> str:
    """The same of a non-detection's row."""
    ccdid, qid = ccd_and_quadrant(limit["rcid"])
    name = paths.RawName(limit["exposure"], limit["field"], limit["filter"], ccdid, "o")
    return f"/ztf/{paths.science(name, qid, 'scimrefdiffimg.fits.fz')}"
