"""The real ZTF science image, photometered once for every test that looks at it."""

from __future__ import annotations

import numpy as np
import pytest


@pytest.fixture(scope="session")
def real_ztf(shared_data) -> dict:
    """Data without sky, sigma, rms and mask of the 2020 r-band quadrant, its PSF and catalogue (gain 6.0, read noise 9.0: its header)."""
    import fitsio
    import sep

    from ztfluigi.algorithms.detection import detect
    from ztfluigi.algorithms.psf import build_psf
    from ztfluigi.algorithms.psf_photometry import fit_catalogue
    from ztfluigi.model.maskbits import UNUSABLE

    stem = str(shared_data / "ztf-sciimg" / "ztf_20200924431759_000655_zr_c13_o_q3_")
    image = fitsio.read(stem + "sciimg.fits.fz").astype(np.float32)
    mask = fitsio.read(stem + "mskimg.fits.fz").astype(np.uint16)
    sky = sep.Background(image, mask=(mask & UNUSABLE) > 0, bw=64, bh=64)
    data, rms = image - sky.back(dtype=np.float32), sky.rms(dtype=np.float32)
    sigma = np.sqrt(np.maximum(image, 0) / 6.0 + 2.25).astype(np.float32)
    found = detect(data, rms, mask, gain=6.0)
    psf, metrics = build_psf(data, sigma, mask, found)
    psfcat, residual = fit_catalogue(data, sigma, mask, found, psf, None)
    return {"data": data, "sigma": sigma, "rms": rms, "mask": mask, "psf": psf, "metrics": metrics, "psfcat": psfcat, "residual": residual}
