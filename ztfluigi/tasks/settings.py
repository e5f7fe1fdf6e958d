"""Settings of the product room: the data root, the camera, and every science section of `luigi.cfg`."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from ztfluigi.model.camera import Camera, load_camera
from ztfluigi.model.config.alerts import AlertConfig
from ztfluigi.model.config.broker import BrokerConfig
from ztfluigi.model.config.detector import ArtifactConfig, BackgroundConfig, DetectorConfig, LowFlatConfig, MasterConfig, OverscanConfig, StackConfig
from ztfluigi.model.config.astrometry import AstrometryConfig, DetectionConfig
from ztfluigi.model.config.difference import DifferenceConfig, EventConfig, EventFilterConfig
from ztfluigi.model.config.injection import InjectionConfig
from ztfluigi.model.config.known_orbits import KnownOrbitsConfig
from ztfluigi.model.config.photometry import ApertureConfig, PsfConfig, PsfPhotometryConfig
from ztfluigi.model.config.reference import ReferenceConfig, ReferenceInputsConfig
from ztfluigi.model.config.zero_point import ZeroPointConfig
from ztfluigi.services import database
from ztfluigi.services.settings import check_sections, section, settings

SECTIONS = {
    "overscan": OverscanConfig, "stack": StackConfig, "masters": MasterConfig, "low_flat": LowFlatConfig, "detector": DetectorConfig,
    "background": BackgroundConfig,
    "artifacts": ArtifactConfig, "detection": DetectionConfig, "astrometry": AstrometryConfig, "psf": PsfConfig,
    "psf_photometry": PsfPhotometryConfig, "apertures": ApertureConfig, "zero_point": ZeroPointConfig, "reference_inputs": ReferenceInputsConfig,
    "reference": ReferenceConfig, "difference": DifferenceConfig, "events": EventConfig, "event_filter": EventFilterConfig, "alerts": AlertConfig,
    "kafka": BrokerConfig, "injection": InjectionConfig, "known_orbits": KnownOrbitsConfig,
}
"""Every science section of `luigi.cfg` and the dataclass that documents it."""


@lru_cache
def configuration(name: str):
    """The section's settings, validated."""
    return section(SECTIONS[name], name)


def sections(names) -> dict[str, object]:
    """Several sections by name, as algorithms take them."""
    return {name: configuration(name) for name in names}


@lru_cache
def camera() -> Camera:
    return load_camera(settings().camera)


def root() -> Path:
    return settings().root


def check() -> None:
    """Validate every section and reach the database; raises BadInput or Transient with one sentence."""
    check_sections(SECTIONS)
    camera()
    database.connect()


def forget() -> None:
    """Read the settings afresh (tests change the environment)."""
    configuration.cache_clear()
    camera.cache_clear()
