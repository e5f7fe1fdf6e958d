"""An open time-domain survey system: raw camera files in, calibrated images, catalogues, references, differences and alerts out."""

__version__ = "0.1.0"
