"""`ztf adopt`: register public ZTF archive files, so that this survey's tools work on them."""

from __future__ import annotations

import shutil
from pathlib import Path

from targets import paths
from targets.codecs import image as image_codec
from targets.current import registry
from targets.registry import ProductRow
from targets.sealed import Stage
from ztfluigi.model.errors import BadInput
from ztfluigi.model.ids import exposure_id, night_id, night_of, processing_id, raw_id
from ztfluigi.model.provenance import product_id
from ztfluigi.model.wcs import TpvWcs
from ztfluigi.services.settings import settings
from ztfluigi.tasks import settings as tasks_settings
from ztfluigi.tasks.headers import footprint
