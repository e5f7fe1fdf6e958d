"""Every product task; `luigi --module ztfluigi.tasks NAME ...` asks for one."""

from ztfluigi.tasks.alert_archive import AlertArchive
from ztfluigi.tasks.alerts import AlertPackets
from ztfluigi.tasks.calibration import BiasImage, CalibrationChoice, CalibrationFrames, FlatImage
from ztfluigi.tasks.delivery import AlertDelivery
from ztfluigi.tasks.difference import DifferenceImage
from ztfluigi.tasks.figures import QuadrantFigure
from ztfluigi.tasks.injection import Injection
from ztfluigi.tasks.known_orbits import KnownOrbits
from ztfluigi.tasks.low_flat import LowFlatInputs, LowFrequencyFlat
from ztfluigi.tasks.night import Exposure, ExposureProducts, Night, NightProducts, Quadrant
from ztfluigi.tasks.raw import IngestCcd, RawCcd, SplitCcd
from ztfluigi.tasks.reference import ReferenceCatalog, ReferenceImage, ReferenceInputs
from ztfluigi.tasks.science import AdoptedImage, CalibratedImage, ScienceImage, SourceCatalog

__all__ = ["AdoptedImage", "AlertArchive", "AlertDelivery", "AlertPackets", "BiasImage", "CalibratedImage", "CalibrationChoice",
           "CalibrationFrames", "DifferenceImage", "Exposure", "ExposureProducts", "FlatImage", "IngestCcd", "Injection", "KnownOrbits",
           "LowFlatInputs", "LowFrequencyFlat", "Night", "NightProducts", "Quadrant", "QuadrantFigure", "RawCcd", "ReferenceCatalog",
           "ReferenceImage", "ReferenceInputs", "ScienceImage", "SourceCatalog", "SplitCcd"]
