"""Differences of real pixels: packets' stamp pairs against IPAC's own differences, frames of one field, epochs of other seeing, a real sky."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from itertools import permutations
from pathlib import Path

import fastavro
import numpy as np
from astropy.io import fits

from benchmarks.meter import figure
from benchmarks.truth import CONFIG, pairs, width
from ztfluigi.algorithms import background, detection, events, features, psf, psf_photometry
from ztfluigi.algorithms.catalogue import measure_quadrant
from ztfluigi.algorithms.noise import pixel_sigma
from ztfluigi.algorithms.resample import kernel_table
from ztfluigi.algorithms.subtract import subtract
from ztfluigi.algorithms.zogy import TileGrid, proper_difference
from ztfluigi.model.columns import PSFCAT, dtype_of
from ztfluigi.model.images import Calibrated, Coadd
from ztfluigi.model.maskbits import SOURCE, Mask
from ztfluigi.model.psf import PsfModel
from ztfluigi.model.wcs import TpvWcs

STAMP = 63
MIDDLE = STAMP // 2
PACKETS = ("alerts_20181129_f0248_f0296_v3.1.avro", "alerts_20231018_drb.avro", "alerts_20231018_drb_1.avro", "alerts_20231018_drb_2.avro")
FWHMS = np.arange(1.6, 4.3, 0.2)
BRIGHT_SNR = 10.0
RISE_NOISE_E, RISE_SATURATION = 12.0, 6e4
SKY_SNR = 5.0, 40.0


def measure(data: Path) -> None:
    """Print the figures of the four sets."""
    _stamps(data / "ztf-alerts")
    _rise(data / "images-lt-rise")
    _decam(data / "images-decam-diff")
    _injected(data / "ztf-sciimg")


# -- packets -----------------------------------------------------------------------------------------------------------------------

def _stamps(folder: Path) -> None:
    """Our difference of each stamp pair beside IPAC's: noise of the sky and under static light, flux of the candidate, other peaks."""
    rows, found = [], []
    for candidate, science, template, difference in _whole_packets(folder):
        ours = _pair(science, template)
        if ours is None:
            continue
        sign = 1.0 if candidate["isdiffpos"] in ("t", "1") else -1.0
        rows.append(_beside(candidate, sign, ours, sign * difference))
        found.append(_features(candidate, difference))
    table = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    for name, unit in (("sky_noise", "ratio"), ("static_noise", "ratio"), ("flux", "ratio")):
        values = table[name][np.isfinite(table[name])]
        figure(f"real.stamps_{name}", np.median(values), unit, len(values), 1.0)
    figure("real.stamps_flux_scatter", width(table["flux"][np.isfinite(table["flux"])]), "ratio", len(rows), None)
    for name in ("peaks", "peaks_ipac", "dipoles", "dipoles_ipac"):
        figure(f"real.stamps_{name}", np.mean(table[name]), "events/stamp", len(rows), None)
    _agreement(found)


def _whole_packets(folder: Path) -> Iterator[tuple[dict, np.ndarray, np.ndarray, np.ndarray]]:
    """(candidate, science, template, difference) of the packets whose stamps are whole; difference as the packet has it."""
    for name in PACKETS:
        with (folder / name).open("rb") as file:
            for packet in fastavro.reader(file):
                stamps = []
                for kind in ("Science", "Template", "Difference"):
                    with fits.open(BytesIO(gzip.decompress(packet[f"cutout{kind}"]["stampData"]))) as hdus:
                        stamps.append(hdus[0].data.astype(np.float32))
                if all(s.shape == (STAMP, STAMP) and np.isfinite(s).all() for s in stamps):
                    yield packet["candidate"], *stamps


def _moffat(fwhm: float) -> np.ndarray:
    """A pixel-integrated circular Moffat profile of beta 3, 31 x 31, sum 1."""
    offset = (np.arange(31 * 5) - 77) / 5.0
    alpha = fwhm / (2.0 * np.sqrt(2.0 ** (1.0 / 3.0) - 1.0))
    fine = (1.0 + (offset[:, None] ** 2 + offset**2) / alpha**2) ** -3.0
    stamp = fine.reshape(31, 5, 31, 5).sum(axis=(1, 3))
    return stamp / stamp.sum()


MOFFATS = [_moffat(f) for f in FWHMS]


def _pair(science: np.ndarray, template: np.ndarray):
    """(D, S, P_D, noise, static light) of a stamp pair, PSFs and flux ratio from its own static sources; None where there are none."""
    noise, images = [], []
    for stamp in (science, template):
        level = float(np.median(stamp))
        noise.append(max(1.4826 * float(np.median(np.abs(stamp - level))), 1e-3))
        images.append(stamp - np.float32(level))
    rows, cols = np.mgrid[:STAMP, :STAMP]
    away = np.hypot(rows - MIDDLE, cols - MIDDLE) > 7.0
    static = away & (images[1] > max(BRIGHT_SNR * noise[1], 3.0 * noise[0]))
    if np.count_nonzero(static) < 9:
        return None
    ratio = float(np.sum(images[0][static]) / np.sum(images[1][static]))
    if not 0.3 < ratio < 3.0:
        return None
    images[1] *= np.float32(ratio)
    variances = [np.full((STAMP, STAMP), n**2, np.float32) for n in (noise[0], ratio * noise[1])]
    tiles = TileGrid.covering((STAMP, STAMP), STAMP)
    near = away & (rows > 3) & (rows < STAMP - 4) & (cols > 3) & (cols < STAMP - 4)
    made = {}

    def loss(pair):
        if pair not in made:
            first, second = (MOFFATS[k] for k in pair)
            made[pair] = proper_difference(*images, *variances, lambda j, i: (first, second), tiles=tiles, astrometric_rms=(0.0, 0.0))
        return float(np.mean(np.minimum(np.abs(made[pair][1][near]), 10.0)))

    # Every second width first, then the neighbours of the best pair.
    first, second = min(((i, j) for i in range(0, len(FWHMS), 2) for j in range(0, len(FWHMS), 2)), key=loss)
    best = min(((i, j) for i in range(first - 1, first + 2) for j in range(second - 1, second + 2) if 0 <= min(i, j) and max(i, j) < len(FWHMS)),
               key=loss)
    data, score, _, _, psfs = made[best]
    return data, score, psfs[0, 0], float(np.hypot(noise[0], ratio * noise[1])), static


def _beside(candidate: dict, sign: float, ours, ipac: np.ndarray) -> dict:
    """Our difference over IPAC's: noise, flux of the candidate; peaks above 5 of any sign elsewhere in both, and pairs of both signs."""
    data, score, stamp, noise, static = ours
    rows, cols = np.mgrid[:STAMP, :STAMP]
    away = np.hypot(rows - MIDDLE, cols - MIDDLE) > 7.0
    blank = away & ~static
    flux = features.fit_psf(data, np.full(data.shape, noise, np.float32), np.zeros(data.shape, bool), stamp[None], np.zeros(1, int),
                            np.array([MIDDLE]), np.array([MIDDLE]), np.array([sign]), 4.5, 1.5, kernel_table(4))[0][0]
    expected = 10.0 ** (-0.4 * (candidate["magpsf"] - candidate["magzpsci"])) if candidate["magzpsci"] else np.nan
    out = {"sky_noise": width(data[blank]) / width(ipac[blank]), "static_noise": _rms(data[static]) / _rms(ipac[static]),
           "flux": flux / expected}
    # IPAC's stamp under the same matched filter: its own P_D is not in the packet.
    filtered = np.fft.irfft2(np.fft.rfft2(ipac) * np.conj(np.fft.rfft2(np.roll(np.pad(stamp, 19), (-31, -31), (0, 1)))), s=(STAMP, STAMP))
    for name, image in (("", score), ("_ipac", (filtered / width(filtered[blank])).astype(np.float32))):
        x, y, signs = events.find_peaks(image.astype(np.float32), 5.0, 2)
        off = np.hypot(x - MIDDLE, y - MIDDLE) > 7.0
        x, y, signs = x[off], y[off], signs[off]
        out["peaks" + name] = len(x)
        i, j = pairs(x[signs > 0], y[signs > 0], x[signs < 0], y[signs < 0], 4.0)
        out["dipoles" + name] = len(i)
    return out


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.minimum(values.astype(float) ** 2, np.percentile(values.astype(float) ** 2, 95)))))


def _features(candidate: dict, image: np.ndarray) -> dict:
    """Our features of the packet's own difference stamp (a source is positive in it) beside the packet's numbers."""
    # Stamps are cut about the rounded position.
    x, y = np.array([MIDDLE + candidate["xpos"] - np.rint(candidate["xpos"])]), np.array([MIDDLE + candidate["ypos"] - np.rint(candidate["ypos"])])
    sign, sigma = np.ones(1), np.full(image.shape, width(image.ravel()), np.float32)
    negative, _, ratio = features.stamp_counts(image, np.zeros(image.shape, bool), x, y, sign)
    core = 2.35 / 2.3548
    major, minor = features.windowed_axes(image, x, y, sign, core)
    flux = features.apertures(image, sigma, x, y, sign, events.APERTURE_RADIUS)[0][0]
    zero = candidate["magzpsci"] or np.nan
    ours = {"nneg": negative[0], "sumrat": ratio[0], "aimage": major[0], "bimage": minor[0], "elong": major[0] / minor[0],
            "fwhm": features.gaussian_fwhm(image, x, y, sign, features.WIDTHS, 7.0)[0],
            "magap": zero - 2.5 * np.log10(flux) if flux > 0 else np.nan, "sky": features.local_sky(image, x, y)[0]}
    return {name: (float(value), candidate[name] if candidate[name] is not None else np.nan) for name, value in ours.items()}


def _agreement(found: list[dict]) -> None:
    """Per feature the share of the packets that agree, and the median difference, ours less the packet's."""
    near = {"nneg": 0.0, "sumrat": 0.003, "aimage": 0.1, "bimage": 0.1, "elong": 0.1, "fwhm": 0.3, "magap": 0.05, "sky": 0.5}
    for name, tolerance in near.items():
        ours, theirs = np.array([row[name] for row in found], float).T
        offset = (ours - theirs)[np.isfinite(ours - theirs)]
        figure(f"real.feature_{name}", np.mean(np.abs(offset) <= tolerance), "fraction", len(offset), None)
        figure(f"real.feature_{name}_offset", np.median(offset), "as the feature", len(offset), None)


# -- frames ------------------------------------------------------------------------------------------------------------------------

def _measured(image: Calibrated) -> tuple[np.ndarray, PsfModel, np.ndarray]:
    """(background-free image, PSF, PSF catalogue)."""
    sky = background.estimate(image.data, image.mask, config=CONFIG["background"])
    clean = image.data - sky.level
    found = detection.detect(clean, sky.rms, image.mask, gain=image.gain, config=CONFIG["detection"])
    model, _ = psf.build_psf(clean, image.sigma, image.mask, found, config=replace(CONFIG["psf"], degree=1, min_snr=20.0))
    cat, _ = psf_photometry.fit_catalogue(clean, image.sigma, image.mask, found, model, image.wcs, config=CONFIG["psf_photometry"])
    return clean, model, cat


def _as_coadd(image: Calibrated, clean: np.ndarray, model: PsfModel) -> Coadd:
    return Coadd(clean.astype(np.float32), image.sigma, np.ones(clean.shape, np.int16), image.mask, image.wcs, 25.0, image.gain, image.saturate,
                 psf=model)


def _rise(folder: Path) -> None:
    """False events of each ordered pair of four frames of one field, in which next to nothing changed."""
    frames = [_rise_frame(path) for path in sorted(folder.glob("*.fits.gz"))]
    raw, kept, widths = [], [], []
    for (one, (_, model, cat)), (other, (clean, other_model, other_cat)) in permutations(frames, 2):
        aligned, other_cat = _aligned(other, cat, other_cat, one.wcs)
        made = subtract(one, model, 25.0, _as_coadd(aligned, clean, other_model), psfcat_sci=cat, psfcat_ref=other_cat,
                        config=replace(CONFIG["difference"], match_radius_pix=4.0))
        found = events.extract(made, wcs=one.wcs, psfcat_ref=other_cat, reference_magzp=25.0, config=CONFIG["events"])
        raw.append(len(found))
        kept.append(np.count_nonzero(events.light_filter(found, config=CONFIG["event_filter"]) == ""))
        widths.append(width(made.scorr[made.scorr != 0]))
    figure("real.rise_events", np.mean(raw), "events/pair", len(raw), None)
    figure("real.rise_false", np.mean(kept), "events/pair", len(kept), None)
    figure("real.rise_score_width", np.median(widths), "sigma", len(widths), 1.03)


def _rise_frame(path: Path):
    with fits.open(path) as hdus:
        data, header = np.ascontiguousarray(hdus[0].data, np.float32), hdus[0].header
        gain = float(header["GAIN"])
        wcs = TpvWcs((header["CRPIX1"], header["CRPIX2"]), (header["CRVAL1"], header["CRVAL2"]),
                     ((header["CD1_1"], header["CD1_2"]), (header["CD2_1"], header["CD2_2"])))
    mask = np.where(np.isfinite(data) & (data > 0), 0, int(Mask.NAN)).astype(np.uint16)
    mask[data > RISE_SATURATION] |= np.uint16(Mask.SATURATED)
    data[(mask & Mask.NAN) != 0] = np.median(data)
    image = Calibrated(data, pixel_sigma(data, gain, RISE_NOISE_E), mask, gain, RISE_NOISE_E, RISE_SATURATION, wcs)
    return image, _measured(image)


def _aligned(image: Calibrated, cat: np.ndarray, other: np.ndarray, wcs: TpvWcs) -> tuple[Calibrated, np.ndarray]:
    """The second frame and its catalogue with their sky shifted onto the first's: the headers are good to some arcseconds only."""
    cat, bright = (c[np.argsort(-c["flux"])][:60] for c in (cat, other))
    x, y = wcs.pixel(bright["ra"], bright["dec"])
    dx, dy = (np.subtract.outer(a - 1.0, b).ravel() for a, b in ((cat["xpos"], x), (cat["ypos"], y)))
    near = np.hypot(dx, dy) < 80.0
    dx, dy = dx[near], dy[near]
    votes = [np.count_nonzero(np.hypot(dx - u, dy - v) < 2.0) for u, v in zip(dx, dy, strict=True)]
    best = int(np.argmax(votes))
    together = np.hypot(dx - dx[best], dy - dy[best]) < 2.0
    centre = np.array(wcs.crpix) - 1.0
    ra, dec = wcs.sky(*centre)
    moved = wcs.sky(centre[0] + dx[together].mean(), centre[1] + dy[together].mean())
    crval = image.wcs.crval[0] + float(moved[0] - ra), image.wcs.crval[1] + float(moved[1] - dec)
    shifted = replace(image, wcs=replace(image.wcs, crval=crval))
    other = other.copy()
    other["ra"], other["dec"] = shifted.wcs.sky(other["xpos"] - 1.0, other["ypos"] - 1.0)
    return shifted, other


def _decam(folder: Path) -> None:
    """Whiteness of the difference of the first exposures of two epochs: power of high over low frequencies, correlation of neighbours."""
    images = []
    for name in ("DEC-OBS18a", "DEC-OBS04a"):
        with fits.open(folder / f"{name}.mini.fits.gz") as hdus:
            data = np.nan_to_num(hdus[0].data).astype(np.float32)
        noise = 1.4826 * float(np.median(np.abs(data - np.median(data))))
        images.append((data - np.float32(np.median(data)), noise, _star_psf(data - np.median(data), noise)))
    (one, noise, model), (other, other_noise, other_model) = images
    bright = (one > 30 * noise) & (other > 30 * other_noise)
    other, other_noise = other * np.float32(one[bright].sum() / other[bright].sum()), other_noise * one[bright].sum() / other[bright].sum()
    variances = [np.full(one.shape, n**2, np.float32) for n in (noise, other_noise)]
    made = proper_difference(one, other, *variances, lambda j, i: (model, other_model), tiles=TileGrid.covering(one.shape, 256),
                             astrometric_rms=(0.0, 0.0))[0]
    for name, image in (("difference", made), ("input", one)):
        blank = np.where((np.abs(one) < 3 * noise) & (np.abs(other) < 3 * other_noise), np.clip(image, *(5 * noise * np.array([-2, 2]))), 0)
        power = np.abs(np.fft.fft2(blank[16:-16, 16:-16] - blank[16:-16, 16:-16].mean())) ** 2
        frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(224), np.fft.fftfreq(224)))
        high, low = (power[(frequency > a) & (frequency < b)].mean() for a, b in ((0.3, 0.5), (0.03, 0.15)))
        figure(f"real.decam_{name}_power", high / low, "ratio", 1, 1.0 if name == "difference" else None)
        inner = blank[16:-16, 16:-16]
        right = np.mean(inner[:, :-1] * inner[:, 1:]) / np.mean(inner**2)
        figure(f"real.decam_{name}_correlation", right, "lag 1", 1, 0.0 if name == "difference" else None)


def _star_psf(data: np.ndarray, noise: float) -> np.ndarray:
    """Mean stamp (31 x 31, sum 1) of the isolated stars, centred on whole pixels by Lanczos."""
    x, y, _ = (v[:40] for v in events.find_peaks(data, 30.0 * noise, 8))
    total, table = np.zeros((31, 31)), kernel_table(4)
    for i, j in zip(x, y, strict=True):
        if 20 < i < data.shape[1] - 21 and 20 < j < data.shape[0] - 21 and np.hypot(x - i, y - j)[(x != i) | (y != j)].min(initial=99) > 18:
            cut, grid = data[j - 4:j + 5, i - 4:i + 5].clip(0), np.arange(-4, 5)
            out = np.zeros((31, 31))
            features.shifted(data[j - 19:j + 20, i - 19:i + 20].astype(float), -float((cut.sum(0) * grid).sum() / cut.sum()),
                             -float((cut.sum(1) * grid).sum() / cut.sum()), table, out)
            total += out / max(out.max(), 1e-9)
    total = np.where(np.hypot(*np.mgrid[-15:16, -15:16]) < 14, total, 0.0)
    return np.clip(total, 0.0, None) / np.clip(total, 0.0, None).sum()


# -- a real sky --------------------------------------------------------------------------------------------------------------------

def _injected(folder: Path) -> None:
    """Point sources put into a real image at its own PSF, away from its stars: what the catalogue finds of them, and its flux pull."""
    from targets.codecs import image as image_codec

    stem = "ztf_20200924431759_000655_zr_c13_o_q3"
    data, header = image_codec.read_image(folder / f"{stem}_sciimg.fits.fz")
    mask = image_codec.read_mask(folder / f"{stem}_mskimg.fits.fz")[0] & np.uint16(~SOURCE & 0xFFFF)
    part = np.s_[1000:2024, 1000:2024]
    wcs = TpvWcs.from_cards(header)
    wcs = replace(wcs, crpix=(wcs.crpix[0] - 1000, wcs.crpix[1] - 1000))
    gain, read_noise = float(header["GAIN"]), float(header["READNOI"])
    image = Calibrated(np.ascontiguousarray(data[part]), pixel_sigma(data[part], gain, read_noise), np.ascontiguousarray(mask[part]), gain,
                       read_noise, float(header["SATURATE"]), wcs)
    plain = measure_quadrant(image, zero_point=float(header["MAGZP"]), config=CONFIG)
    rng = np.random.default_rng(5)
    grid = np.arange(24, 1000, 24.0)
    x, y = (v.ravel() + rng.uniform(-4, 4, v.size) for v in np.meshgrid(grid, grid))
    far = pairs_distance(x, y, plain.psfcat) > 10.0
    x, y = x[far], y[far]
    noise = float(plain.metrics["noise_dn"])
    stamp = plain.psf.render(512, 512)
    snr = np.exp(rng.uniform(*np.log(SKY_SNR), len(x)))
    flux = snr * noise / np.sqrt(np.sum(stamp**2))
    image = replace(image, data=image.data.copy())
    for u, v, f in zip(x, y, flux, strict=True):
        i, j = round(u), round(v)
        image.data[j - 12:j + 13, i - 12:i + 13] += rng.poisson(np.clip(f * gain * plain.psf.render(u, v, 25, u - i, v - j), 0, None)) / gain
    image.sigma = pixel_sigma(image.data, gain, read_noise)
    found = measure_quadrant(image, zero_point=float(header["MAGZP"]), config=CONFIG).psfcat
    i, j = pairs(x, y, found["xpos"] - 1.0, found["ypos"] - 1.0, 1.5)
    hit = np.zeros(len(x), bool)
    hit[i] = True
    seven = (snr > 7) & (snr < 10)
    figure("real.sciimg_complete_snr7", hit[seven].mean(), "fraction", seven.sum(), 0.97)
    high = snr[i] > 10
    figure("real.sciimg_pull", width(((found["flux"][j] - flux[i]) / found["sigflux"][j])[high]), "sigma", high.sum(), 1.1)
    offset = np.concatenate([(found["xpos"][j] - 1 - x[i])[snr[i] > 20], (found["ypos"][j] - 1 - y[i])[snr[i] > 20]])
    figure("real.sciimg_position_mas", 1e3 * wcs.pixel_scale_arcsec * width(offset), "mas", len(offset) // 2, 50.0)


def pairs_distance(x: np.ndarray, y: np.ndarray, catalogue: np.ndarray) -> np.ndarray:
    """Distance of each place from the nearest source of a catalogue [pix]."""
    return np.array([np.hypot(catalogue["xpos"] - 1.0 - u, catalogue["ypos"] - 1.0 - v).min() for u, v in zip(x, y, strict=True)])
