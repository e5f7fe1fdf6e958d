"""INFOBITS: one registry of quality bits for each product. Science bits and sentences are ZTF's own, verbatim from its headers."""

from __future__ import annotations

SCIENCE = {
    0: "MEDIAN BACKGROUND LEVEL is >  4000.0 DN",
    1: "ROBUST PIXEL NOISE (RMS) is > 100.0 DN",
    2: "PERCENT OF SATURATED PIXELS is > 50.0%",
    3: 'IMAGE SEEING (FWHM) is > 5.0"',
    4: "MAGLIM FROM PSF CATALOG UNCERTS is < 17.5 mag",
    5: "MAGLIM FROM EMPIRICAL FORMULA is < 17.5 mag",
    6: "NUMBER OF PSF CATALOG SOURCES is < 10",
    7: "NUMBER OF SEXTRACTOR CAT SOURCES is < 20",
    8: "PHOTOMETRIC CALIBRATION NOT POSSIBLE",
    9: "NUMBER OF PHOTOMETRIC CALIBRATORS is < 30",
    10: "NUMBER OF MATCHES FOR PHOTOMETRIC CAL < 5",
    11: "RMS in PHOTCAL RESIDUALS (ZPs) is > 0.2 mag",
    12: "ASTROMETRIC CALIBRATION NOT POSSIBLE",
    13: "PCT OF REF-CAT MATCHES FOR ASTROM is < 0%",
    14: "NUMBER OF MATCHES FOR ASTROM CAL is < 100",
    15: "MIN NUM OF IN-GRID MATCHES FOR ASTROM is < 5",
    16: "REL-PIXEL SCALE OUT OF RANGE: -0.20% - 2.00%",
    17: "PCT CHANGE IN SCAMP CHI-SQUARE is > 0.0%",
    18: "CHI-SQUARE FROM SECOND PASS SCAMP is > 30",
    19: 'MAX IN-GRID MEDIAN ASTROM RESID is > 0.7"',
    20: "PSF CREATION (HENCE PSF-FIT PHOT) NOT POSSIBLE",
    21: "PCT OF DETECTED MATCHES FOR ASTROM is < 50%",
}
"""Bits 0 to 21 of science images, with BITnn cards."""

CLOUDS = 25
"""Bit of bad photometric conditions, set after the fact; it has no BITnn card. The public cut `infobits < 2**25` rejects it."""

DIFFERENCE = {
    0: "IMAGE SUBTRACTION NOT POSSIBLE",
    1: "ROBUST NOISE OVER EXPECTED NOISE is > 2.0",
    2: "WIDTH OF SCORE IMAGE OUT OF RANGE: 0.8 - 1.3",
    3: "ABS MEDIAN OF SCORE IMAGE is > 0.2",
    4: "SCATTER IN FLUX RATIO is > 0.1",
    5: "FLUX RATIO OVER ZERO POINTS OUT OF RANGE: 0.8-1.25",
    6: "NUMBER OF STARS FOR FLUX RATIO is < 10",
    7: "RMS OF RELATIVE REGISTRATION is > 0.5 pix",
    8: "MEAN OF RELATIVE REGISTRATION is > 1.0 pix",
    9: "PERCENT OF UNUSABLE PIXELS is > 50.0%",
    10: "DIFFERENCE IMAGE FWHM is > 5.0 pix",
    11: "DIFFERENCE MAGLIM is < 17.5 mag",
    12: "NUMBER OF EVENTS is > 2000",
    13: "WIDTH OF SCORE IMAGE is > 2.0",
}
"""Bits of difference images, our own."""

REFERENCE = {
    0: "CO-ADDITION NOT POSSIBLE",
    1: "NUMBER OF INPUTS is < 15",
    2: "PERCENT OF PIXELS WITH DEPTH >= 5 is < 50%",
    3: "MEDIAN DEPTH is < 5",
    4: "PERCENT OF PIXELS WITHOUT DATA is > 50%",
    5: "FRACTION OF TRIMMED INPUT PIXELS is > 0.1",
    6: 'SEEING (FWHM) is > 5.0"',
    7: "MAGLIM is < 17.5 mag",
    8: "NUMBER OF PSF CATALOG SOURCES is < 10",
    9: "NUMBER OF SEXTRACTOR CAT SOURCES is < 20",
    10: "RMS in PHOTCAL RESIDUALS (ZPs) is > 0.2 mag",
    11: "PSF CREATION NOT POSSIBLE",
}
"""Bits of reference images, our own."""

BIAS = {
    0: "ABS MEDIAN OF BIAS is > 20.0 DN",
    1: "READ NOISE OVER EXPECTED OUT OF RANGE: 0.5 - 2.0",
    2: "FRACTION OF NOISY PIXELS is > 0.01",
    3: "FRACTION OF TRIMMED SAMPLES is > 0.05",
    4: "ABS SHIFT FROM PREVIOUS BIAS is > 2.0 DN",
    5: "SCATTER ABOUT PREVIOUS BIAS is > 5.0 DN",
}
"""Bits of bias images, our own."""

FLAT = {
    0: "LAMP LEVEL OUT OF RANGE: 1000 - 50000 DN",
    1: "RELATIVE RANGE OF LAMP LEVELS is > 0.5",
    2: "FRACTION OF NOISY PIXELS is > 0.01",
    3: "FRACTION OF TRIMMED SAMPLES is > 0.05",
    4: "FRACTION OF DEAD PIXELS is > 0.2",
    5: "MIX OF LEDS IS NOT THAT OF THE FILTER",
    6: "GRADIENT AGAINST PREVIOUS FLAT is > 0.025",
    7: "SCATTER ABOUT PREVIOUS FLAT is > 0.02",
    8: "GRADIENT AGAINST PREVIOUS FLAT is > 0.25",
}
"""Bits of high-frequency flats, our own; nightly gradients of up to 2.5 % are known (paper 3.4.2)."""

LOW_FLAT = {
    0: "FRACTION OF CELLS WITH STARS is < 0.7",
    1: "RANGE OF THE MAP is > 0.2",
    2: "SCATTER OF CELLS ABOUT THE MAP is > 0.01 mag",
}
"""Bits of low-frequency flats, our own."""

PRODUCTS = {"science": SCIENCE, "difference": DIFFERENCE, "reference": REFERENCE, "bias": BIAS, "flat": FLAT, "low_flat": LOW_FLAT}


def bit_cards(product: str) -> list[tuple[str, int, str]]:
    """FITS cards BITnn of a product (a key of PRODUCTS): (keyword, bit number, sentence)."""
    return [(f"BIT{n:02d}", n, sentence) for n, sentence in PRODUCTS[product].items()]


def explain(product: str, infobits: int) -> list[str]:
    """Sentences of the bits that are set, in order of the bits."""
    known = PRODUCTS[product] | ({CLOUDS: "PHOTOMETRIC CONDITIONS ARE BAD"} if product == "science" else {})
    return [known.get(n, f"UNKNOWN BIT {n}") for n in range(int(infobits).bit_length()) if infobits >> n & 1]
