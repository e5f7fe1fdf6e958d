"""The 16-bit mask of science images: one registry of bits, names and sentences (ZTF mskimg, fact sheet science.md 2)."""

from __future__ import annotations

from enum import IntFlag


class Mask(IntFlag):
    """Bit values of the mask image, `uint16`."""

    TRACK = 1 << 0
    SEX_SOURCE = 1 << 1
    LOW_RESPONSE = 1 << 2
    HIGH_RESPONSE = 1 << 3
    NOISY = 1 << 4
    GHOST = 1 << 5
    SPILLAGE = 1 << 6
    SPIKE = 1 << 7
    SATURATED = 1 << 8
    DEAD = 1 << 9
    NAN = 1 << 10
    PSF_SOURCE = 1 << 11
    HALO = 1 << 12


#: Sentence of each bit as the BITnn card of the mask header carries it.
SENTENCES = {
    Mask.TRACK: "AIRCRAFT/SATELLITE TRACK",
    Mask.SEX_SOURCE: "CONTAINS SEXTRACTOR DETECTION",
    Mask.LOW_RESPONSE: "LOW RESPONSIVITY",
    Mask.HIGH_RESPONSE: "HIGH RESPONSIVITY",
    Mask.NOISY: "NOISY",
    Mask.GHOST: "GHOST FROM BRIGHT SOURCE",
    Mask.SPILLAGE: "POSSIBLE GHOST FROM CHARGE SPILLAGE",
    Mask.SPIKE: "PIXEL SPIKE (POSSIBLE RAD HIT)",
    Mask.SATURATED: "SATURATED",
    Mask.DEAD: "DEAD (UNRESPONSIVE)",
    Mask.NAN: "NAN (not a number)",
    Mask.PSF_SOURCE: "CONTAINS PSF-EXTRACTED SOURCE POSITION",
    Mask.HALO: "HALO FROM BRIGHT SOURCE",
}

#: Any of these bits makes a pixel unusable (ZTF's recommended template, 6141).
UNUSABLE = 6141
#: Pixels that belong to a source, no defect.
SOURCE = int(Mask.SEX_SOURCE | Mask.PSF_SOURCE)


def bit_cards() -> list[tuple[str, int, str]]:
    """FITS cards BIT00..BIT15: (keyword, bit number, sentence)."""
    named = {flag.bit_length() - 1: text for flag, text in SENTENCES.items()}
    return [(f"BIT{n:02d}", n, named.get(n, "RESERVED FOR FUTURE USE")) for n in range(16)]
