"""What past images say of the places of one quadrant's candidates: earlier detections, upper limits and forced photometry (paper 4.1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from targets import paths
from ztfluigi.model.config.alerts import AlertConfig
from ztfluigi.model.ids import ccd_and_quadrant
from ztfluigi.services import candidates, classifiers, coverage
from ztfluigi.tasks import alert_forced
from ztfluigi.tasks.alert_context import Candidates

PUBLIC = 1
"""Programme whose history every packet may show."""


@dataclass(frozen=True)
class History:
    """For each candidate `prv_candidates` fields of earlier detections and of upper limits, and `fp_hists` fields of forced photometry."""

    detections: list[list[dict]]
    limits: list[list[dict]]
    forced: list[list[dict]]


def past(seen: Candidates, programid: int, config: AlertConfig) -> History:
    """What images of the public programme and of `programid` say; what others say no packet of this one may show."""
    programs = (PUBLIC, programid)
    span = seen.jd - config.history_days, seen.jd
    found = candidates.history(seen.ra, seen.dec, *span, radius_arcsec=config.match_radius_arcsec)
    limits = coverage.covering_limits(seen.ra, seen.dec, *span, detections=found)
    photometry = alert_forced.photometry(seen.ra, seen.dec, seen.jd - config.forced_days, seen.jd, programs)
    detections = [[row | {"pdiffimfilename": archived(row["pdiffimfilename"])} for row in rows if row["programid"] in programs] for rows in found]
    unseen = [[limit(row, exact) for row in rows if row["programid"] in programs]
              for rows, exact in zip(limits, photometry.limits, strict=True)]
    return History(detections, unseen, photometry.rows)


def limit(row: Mapping, exact: Mapping[int, float | None]) -> dict:
    """A non-detection; its limit is that of the forced photometry of its very place, or without that the one of the cell about it."""
    own = {"diffmaglim": exact[row["pid"]]} if row["pid"] in exact else {}
    return row | {"pdiffimfilename": archived_of(row), "rbversion": classifiers.versions()["rbversion"]} | own


def archived(filename: str) -> str:
    """Archive path of a difference image, as history records give it."""
    name = paths.ScienceName.parse(filename)
    return f"/ztf/{paths.science(name.raw, name.qid, name.suffix)}.fz"


def archived_of(limit: Mapping) -> str:
    """The same of a non-detection's row."""
    ccdid, qid = ccd_and_quadrant(limit["rcid"])
    name = paths.RawName(limit["exposure"], limit["field"], limit["filter"], ccdid, "o")
    return f"/ztf/{paths.science(name, qid, 'scimrefdiffimg.fits.fz')}"
