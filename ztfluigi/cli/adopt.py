"""`ztf adopt`: register public ZTF archive files, so that this survey's tools work on them."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from scipy.spatial import cKDTree

from targets import paths
from targets.codecs import catalog as catalog_codec
from targets.codecs import image as image_codec
from targets.current import registry
from targets.registry import ProductRow
from targets.sealed import Stage
from ztfluigi.cli.demo import checked
from ztfluigi.model.errors import BadInput
from ztfluigi.model.ids import FILTERS, exposure_id, night_id, night_of, processing_id, raw_id, rcid
from ztfluigi.model.maskbits import Mask
from ztfluigi.model.provenance import product_id
from ztfluigi.model.wcs import TpvWcs
from ztfluigi.services.settings import settings
from ztfluigi.tasks import settings as tasks_settings
from ztfluigi.tasks.headers import footprint
from ztfluigi.tasks.science import ADOPTED

ROLES = {"sciimg.fits": "image", "mskimg.fits": "mask"}
"""Suffixes that are taken; the image is required."""
MATCH_PIX = 1.5
"""A source of the archive's mask, which marks whole pixels, is ours within this distance."""


def add_parser(subparsers) -> None:
    parser = subparsers.add_parser("adopt", help="register public ZTF science images and masks; then ask for their SourceCatalog")
    parser.add_argument("--measure", action="store_true", help="also measure them through Luigi and print our answers beside the header's")
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="ztf_..._sciimg.fits and ztf_..._mskimg.fits, fpacked or not")


def run(args) -> int:
    tasks_settings.check()
    groups: dict[tuple, dict[str, Path]] = {}
    for path in args.files:
        name, role = identify(path)
        groups.setdefault((name.raw, name.qid), {})[role] = path
    for (raw, qid), files in groups.items():
        row = adopt(raw, qid, files)
        print(f"adopted {raw.stem}_q{qid}: ask for it with\n  luigi --module ztfluigi.tasks SourceCatalog --exposure {row.exposure} "
              f"--ccdid {row.ccdid} --qid {row.qid} --local-scheduler")
        if args.measure:
            checked([Path(sys.executable).parent / "luigi", "--module", "ztfluigi.tasks", "SourceCatalog", "--exposure", row.exposure,
                     "--ccdid", row.ccdid, "--qid", row.qid, "--local-scheduler"], f"SourceCatalog {row.key}")
            print("\n".join(beside(row)))
    return 0


def beside(row: ProductRow) -> list[str]:
    """Our measurements of an adopted image beside the archive's: header values, and positions against bit 11 of its mask."""
    root = settings().root
    ours = registry().current("SourceCatalog", row.key)
    files = {entry["role"]: root / entry["path"] for entry in [*row.files, *ours.files]}
    lines = [f"{'':10s} {'ours':>9s} {'archive':>9s}"]
    for key in ("SEEING", "MAGLIM", *(f"APCOR{n}" for n in range(1, 7))):
        if row.numbers.get(key) is not None:
            lines.append(f"{key:10s} {ours.numbers.get(key, float('nan')):9.3f} {row.numbers[key]:9.3f}")
    y, x = np.nonzero(image_codec.read_mask(files["mask"])[0] & Mask.PSF_SOURCE)
    table, _ = catalog_codec.read_psfcat(files["psfcat"])
    if len(x) and len(table):
        ours_at, theirs_at = np.column_stack([table["xpos"], table["ypos"]]) - 1.0, np.column_stack([x, y])
        bright = table["snr"] >= 8
        found = cKDTree(ours_at).query(theirs_at)[0] <= MATCH_PIX
        shared = cKDTree(theirs_at).query(ours_at[bright])[0] <= MATCH_PIX
        lines += [f"of {len(x)} PSF-fit sources of the archive we have {100 * found.mean():.1f} %",
                  f"of our {bright.sum()} sources with S/N >= 8 the archive has {100 * shared.mean():.1f} %"]
    return lines


def identify(path: Path) -> tuple[paths.ScienceName, str]:
    """(name, role) of a file; BadInput when it is missing or of a kind that is not taken."""
    if not path.is_file():
        raise BadInput(f"{path} is not there")
    name = paths.ScienceName.parse(path.name.removesuffix(".gz").removesuffix(".fz"))
    if name is None or name.suffix not in ROLES:
        raise BadInput(f"{path.name} is not the name of a file to adopt, expected ztf_<filefracday>_<field>_<filter>_c<CC>_o_q<Q>_"
                       f"{{{','.join(ROLES)}}}, with .fz or .gz")
    return name, ROLES[name.suffix]


def adopt(raw: paths.RawName, qid: int, files: dict[str, Path]) -> ProductRow:
    """Copy the files of one quadrant into the archive and register them as its science image."""
    if "image" not in files:
        raise BadInput(f"{raw.stem}_q{qid}: a mask was given without its sciimg.fits")
    root = settings().root
    stage = Stage(root, {role: paths.science(raw, qid, suffix) for suffix, role in ROLES.items()})
    stage.sweep()
    data, header = image_codec.read_image(files["image"])
    image_codec.write_science(stage["image"], data, header)
    mask = image_codec.read_mask(files["mask"])[0] if "mask" in files else np.zeros(data.shape, np.uint16)
    image_codec.write_mask(stage["mask"], mask, header)
    numbers = {key: value for key, value in header.items() if isinstance(value, (int, float)) and key.isupper()}
    good = data[(mask == 0) & np.isfinite(data)]
    numbers["background_dn"] = float(np.median(good)) if good.size else None
    entries = stage.publish()
    obsjd, wcs = float(header["OBSJD"]), TpvWcs.from_cards(header)
    key = f"{raw.exposure}/{raw.ccdid}/{qid}"
    row = ProductRow("ScienceImage", key, product_id(f"ScienceImage:{key}", "1.0", {}, [entry["sha256"] for entry in entries]),
                     state="sealed" if header.get("STATUS", 1) else "unusable",
                     reason=None if header.get("STATUS", 1) else "STATUS is 0 in its header",
                     infobits=int(header.get("INFOBITS", 0)), night=night_of(raw.exposure), exposure=raw.exposure, field=raw.field,
                     filter=raw.filter, fid=FILTERS[raw.filter], ccdid=raw.ccdid, qid=qid, rcid=rcid(raw.ccdid, qid), jd=obsjd,
                     nid=night_id(obsjd), expid=exposure_id(obsjd), rid=raw_id(obsjd, raw.ccdid, qid), pid=processing_id(obsjd, raw.ccdid, qid),
                     numbers=numbers, files=entries, version=ADOPTED, **footprint(wcs, data.shape))
    return registry().seal(row) if row.state == "sealed" else registry().record(row)
