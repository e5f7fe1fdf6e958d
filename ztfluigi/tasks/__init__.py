"""Every product task; `luigi --module ztfluigi.tasks NAME ...` asks for one."""

from ztfluigi.tasks.alerts import AlertPackets
from ztfluigi.tasks.calibration import BiasImage, CalibrationChoice, CalibrationFrames, FlatImage
from ztfluigi.tasks.difference import DifferenceImage
from ztfluigi.tasks.night import Exposure, Night, Quadrant
from ztfluigi.tasks.raw import IngestCcd, RawCcd, SplitCcd
from ztfluigi.tasks.reference import ReferenceCatalog, ReferenceImage, ReferenceInputs
from ztfluigi.tasks.science import AdoptedImage, CalibratedImage, ScienceImage, SourceCatalog

__all__ = ["AdoptedImage", "AlertPackets", "BiasImage", "CalibratedImage", "CalibrationChoice", "CalibrationFrames", "DifferenceImage",
           "Exposure", "FlatImage", "IngestCcd", "Night", "Quadrant", "RawCcd", "ReferenceCatalog", "ReferenceImage", "ReferenceInputs",
           "ScienceImage", "SourceCatalog", "SplitCcd"]
