"""Tracks of aircraft and satellites: lines found by a fast Radon transform of the binned image, proven on the pixels (paper 3.5)."""

from __future__ import annotations

import numpy as np
from numba import njit
from scipy.ndimage import uniform_filter

from ztfluigi.model.config.detector import ArtifactConfig
from ztfluigi.model.images import Background
from ztfluigi.model.maskbits import UNUSABLE, Mask

TRACK, SATURATED = int(Mask.TRACK), int(Mask.SATURATED)
#: Side of the cells the lines are sought in [pix], and of the box their local mean is taken over [cells].
CELL, LOCAL = 4, 15
CENTRE = 0.5 * (CELL - 1)
#: Residuals count up to this many sigmas per pixel and per cell: a star is no more than a piece of a track.
PIXEL_CLIP, CELL_CLIP = 3.0, 5.0
#: Shortest piece of a line the transform looks at: 2^SHORTEST cells.
SHORTEST = 5
#: Profiles are taken this far to each side [pix]; the outer part is the local background.
REACH, OUTER = 20, 13
PLACE = np.arange(-REACH, REACH + 1)
#: Half width of the band whose light proves a track [pix], and lengths of the pieces that must each show it [pix].
BAND, PIECES = 2, (16, 64)
#: Excess of a lit piece [sigma per pixel, times the square root of its length]; least number and fraction of lit pieces; pieces bridged.
LIT, LEAST_LIT, LIT_FRACTION, GAP = 1.7, 6, 0.7, 2
#: A track is even, a line of stars has gaps: of pieces FINE times shorter few have less than DARK of the usual light.
FINE, DARK, DARK_FRACTION = 4, 0.25, 0.15
#: Most pieces in a row without usable pixels (a bleed, a halo) that a track may run through.
BLIND = 16
#: Parallels this far off [pix] show what chance gives there; a lit piece exceeds their spread, a track the best of them, by these factors.
NULL, NULL_SIGMA, ABOVE_NULL = 9, 1.5, 2.0
#: Candidates that may fail the proof before the search ends.
MAX_REJECTED = 3


def mask_tracks(data: np.ndarray, sigma: np.ndarray, mask: np.ndarray, background: Background, *,
                config: ArtifactConfig = ArtifactConfig()) -> tuple[np.ndarray, int]:
    """Set TRACK on a band along each straight track.

    Candidates are maxima of a multi-scale fast Radon transform (Brady 1998; for streaks Nir, Zackay & Ofek 2018) of the image in cells of
    4 x 4 pixels, clipped so that stars count no more than a faint track. A candidate is proven on the pixels: medians of
    short pieces along the line, against both sides, must show light over at least `track_length` with few gaps; a line of stars, a
    galaxy, a halo, one bad column or a saturated column does not. Found tracks are taken out and the search goes on.

    Parameters
    ----------
    data, sigma : float32 (ny, nx) [DN]. mask : uint16; UNUSABLE pixels are ignored. background : of `data`.

    Returns
    -------
    (new mask, tracks).
    """
    found = mask.copy()
    cells = _binned(data, sigma, background.level, mask, np.int64(UNUSABLE))
    cells -= uniform_filter(cells, LOCAL, mode="nearest")
    tracks = rejected = 0
    while tracks < config.max_tracks and rejected < MAX_REJECTED:
        line = _best_line(cells, config.track_sigma)
        if line is None:
            break
        proof = _prove(data, sigma, background.level, mask, line, config.track_length)
        if proof is None:
            rejected += 1
            swap, *band = *line, 1.0
        else:
            tracks += 1
            swap, *band = proof
            (found.T if swap else found)[_band((found.T if swap else found).shape, *band)] |= np.uint16(TRACK)
        erased = cells.T if swap else cells
        # the candidate too: what led to a track found before must not lead there again
        for start, end, offset, slope, width in (band, (*line[1:], 1.0)):
            # cell c is centred on pixel CELL c + CENTRE
            erased[_band(erased.shape, start / CELL - 2, end / CELL + 2, (offset + CENTRE * (slope - 1)) / CELL, slope, width / CELL + 1.5)] = 0
    return found, tracks


def _best_line(cells: np.ndarray, threshold: float):
    """The most significant piece of a line: (swap, start, end, offset, slope), pixels: v = offset + slope u for start <= u <= end.

    u is x and v is y, exchanged when `swap`. None when nothing exceeds the threshold.
    """
    # cells are mostly noise and faint stars, whose spread with the clip is what lines are judged against
    variance = float(np.mean(np.minimum(np.abs(cells), CELL_CLIP) ** 2))
    best, where = threshold * np.sqrt(max(variance, 0.25)), None
    for swap in (False, True):
        along = np.ascontiguousarray(cells if swap else cells.T)
        for sign in (1, -1):
            value, stage, block, shift, place = _radon_best(np.ascontiguousarray(along[:, ::sign]), SHORTEST)
            if value > best:
                length = along.shape[1]
                first, last = (place, place + shift) if sign > 0 else (length - 1 - place, length - 1 - place - shift)
                best, where = value, (swap, block << stage, (block + 1 << stage) - 1, first, last)
    if where is None:
        return None
    swap, u0, u1, v0, v1 = where
    slope = (v1 - v0) / max(u1 - u0, 1)
    u0, u1, v0 = CELL * u0 + CENTRE, CELL * u1 + CENTRE, CELL * v0 + CENTRE
    return swap, u0, u1, v0 - slope * u0, slope


@njit(cache=True, nogil=True)
def _binned(data, sigma, level, mask, unusable):
    """Sum of clipped residuals over the root of the number of usable pixels, in cells; float32, clipped, 0 where half is unusable."""
    rows, columns = data.shape[0] // CELL, data.shape[1] // CELL
    out = np.zeros((rows, columns), np.float32)
    total, count = np.empty(columns, np.float32), np.empty(columns, np.int32)
    clip = np.float32(PIXEL_CLIP)
    for r in range(rows):
        total[:] = 0
        count[:] = 0
        for y in range(r * CELL, (r + 1) * CELL):
            for c in range(columns):
                for x in range(c * CELL, (c + 1) * CELL):
                    if not mask[y, x] & unusable:
                        residual = (data[y, x] - level[y, x]) / sigma[y, x]
                        total[c] += min(max(residual, -clip), clip)
                        count[c] += 1
        for c in range(columns):
            if 2 * count[c] >= CELL * CELL:
                out[r, c] = min(max(total[c] / np.sqrt(np.float32(count[c])), np.float32(-CELL_CLIP)), np.float32(CELL_CLIP))
    return out


@njit(cache=True, nogil=True, fastmath=True)
def _radon_best(along, shortest):
    """Best sum over the root of its length, of all lines that rise by 0..length-1: (value, stage, block, shift, start).

    along : float32 (n, m), lines run along the first axis; finite. Stage k holds sums over blocks of 2^k: the sum of a block
    with shift s is that of its first half with shift s // 2 and that of its second half, begun (s + 1) // 2 higher.
    """
    n, m = along.shape
    stages = 0
    while 1 << stages < n:
        stages += 1
    size = 1 << stages
    now, then = np.zeros((size, m), np.float32), np.zeros((size, m), np.float32)
    now[:n] = along
    best, best_stage, best_block, best_shift, best_place = np.float32(0.0), 0, 0, 0, 0
    for stage in range(1, stages + 1):
        width = 1 << stage
        half = width >> 1
        root = np.float32(1.0 / np.sqrt(width))
        for block in range(size >> stage):
            if block * width >= n:
                then[block * width:] = 0
                break
            for shift in range(width):
                first, second = now[block * width + shift // 2], now[block * width + half + shift // 2]
                rise = (shift + 1) // 2
                out = then[block * width + shift]
                top = np.float32(0.0)
                inside = max(m - rise, 0)
                for k in range(inside):
                    value = first[k] + second[k + rise]
                    out[k] = value
                    top = max(top, value)
                for k in range(inside, m):
                    out[k] = first[k]
                    top = max(top, first[k])
                if stage >= shortest and top * root > best:
                    best, best_stage, best_block, best_shift = top * root, stage, block, shift
                    best_place = np.argmax(out)
        now, then = then, now
    return best, best_stage, best_block, best_shift, best_place


def _prove(data, sigma, level, mask, line, least_length):
    """(swap, start, end, offset, slope, half width) of the track a candidate leads to; None when it is none."""
    swap, start, end, offset, slope = line
    if swap:
        data, sigma, level, mask = data.T, sigma.T, level.T, mask.T
    length = data.shape[1]
    for piece in PIECES:
        proven = _follow(data, sigma, level, mask, max(int(start), 0), min(int(end) + 1, length), offset, slope, piece)
        if proven is None:
            continue
        first, last, at, rise, profile = proven
        if (last - first) * np.hypot(1.0, rise) < least_length:
            continue
        width = _half_width(profile, rise)
        if width is None:
            continue
        if abs(rise) < 0.02 and _saturated_fraction(mask, first, last, at, rise) > 0.05:
            continue
        return swap, first, last, at, rise, width
    return None


def _follow(data, sigma, level, mask, start, end, offset, slope, piece):
    """Straighten the line, extend it both ways while it is lit: (start, end, offset, slope, mean profile), or None."""
    length = data.shape[1]
    for _ in range(12):
        profiles, middle, _ = _pieces(data, sigma, level, mask, start, end, offset, slope, piece)
        fitted = _straightened(profiles, middle, piece)
        if fitted is None:
            return None
        offset, slope = offset + fitted[0], slope + fitted[1]
        if abs(slope) > 1.3:
            return None
        profiles, middle, seen = _pieces(data, sigma, level, mask, start, end, offset, slope, piece)
        light, null = _light(profiles)
        least = max(LIT / np.sqrt(piece), NULL_SIGMA * np.sqrt(np.mean(np.minimum(np.abs(null), np.percentile(np.abs(null), 90)) ** 2)))
        run = _longest_run(light > least, seen)
        if run is None:
            return None
        # stars beyond the ends are not the track's light
        usual = np.median(light[run[0]:run[1]])
        lit = light > max(least, 0.4 * usual)
        run = _longest_run(lit, seen)
        if run is None:
            return None
        first, last = start + run[0] * piece, min(start + run[1] * piece, end)
        reach = max(2 * (last - first), 4 * piece)
        lower = max(first - reach, 0) if run[0] <= GAP else start
        upper = min(last + reach, length) if run[1] >= len(lit) - GAP else end
        if (lower, upper) == (start, end):
            chance = np.median(null[run[0]:run[1]], axis=0).max()
            if np.count_nonzero(lit[run[0]:run[1]]) < LEAST_LIT or usual < ABOVE_NULL * chance:
                return None
            fine, _, seen = _pieces(data, sigma, level, mask, first, last, offset, slope, piece // FINE)
            if np.mean(_light(fine)[0][seen] < DARK * usual) > DARK_FRACTION:
                return None
            return first, last, offset, slope, profiles[run[0]:run[1]][lit[run[0]:run[1]]].mean(axis=0)
        start, end = lower, upper
    return None


def _straightened(profiles: np.ndarray, middle: np.ndarray, piece: int):
    """(offset, slope) to add so that the pieces' light lies on the line; None when too little of it is seen."""
    excess = profiles - np.median(profiles[:, np.abs(PLACE) >= OUTER], axis=1, keepdims=True)
    least = LIT / np.sqrt(piece)
    bands = np.clip(_bands(excess), 0, 3 * least)
    span = max(middle[-1] - middle[0], 1.0)
    part = (middle - middle[0]) / span
    first, last = _steepest(bands.astype(np.float32), part)
    on_line = first + (last - first) * part
    # centroids near that line, of pieces that show light there
    use = bands[np.arange(len(bands)), np.rint(on_line).astype(int) + len(bands[0]) // 2] > least
    if np.count_nonzero(use) < 3:
        return None
    weight = np.where(np.abs(PLACE - on_line[use, None]) <= BAND + 1, np.clip(excess[use], 0, None), 0) + 1e-9
    shift = (weight * PLACE).sum(axis=1) / weight.sum(axis=1)
    slope, offset = np.polyfit(middle[use] - middle[0], shift, 1)
    return offset - slope * middle[0], slope


@njit(cache=True, nogil=True)
def _steepest(bands, part):
    """The straight path through the pieces' bands that gathers most light: its places at the first and the last piece [pix]."""
    n, width = bands.shape
    half = width // 2
    best, best_first, best_last = np.float32(-1.0), 0, 0
    for first in range(-OUTER, OUTER + 1):
        for last in range(-OUTER, OUTER + 1):
            total = np.float32(0.0)
            for p in range(n):
                total += bands[p, int(np.rint(first + (last - first) * part[p])) + half]
            if total > best:
                best, best_first, best_last = total, first, last
    return best_first, best_last


def _bands(profiles: np.ndarray) -> np.ndarray:
    """Means over the band's width at each place where it fits: (n, 2 REACH + 1 - 2 BAND)."""
    width = 2 * BAND + 1
    sums = np.cumsum(np.pad(profiles, ((0, 0), (1, 0))), axis=1)
    return (sums[:, width:] - sums[:, :-width]) / width


def _light(profiles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean light of each piece in the band above what both sides show [sigma per pixel]: on the line (n,), on parallels to it (n, m)."""
    light = _bands(profiles) - np.maximum(np.median(profiles[:, np.abs(PLACE) >= OUTER], axis=1), 0)[:, None]
    place = PLACE[BAND:-BAND]
    return light[:, place == 0][:, 0], light[:, np.abs(place) >= NULL]


def _longest_run(lit: np.ndarray, seen: np.ndarray):
    """(first, last + 1) of the longest stretch of lit pieces with no more than GAP dark ones in a row; None when too few are lit.

    Pieces that were not seen are not dark; BLIND in a row are too many.
    """
    at = np.flatnonzero(lit)
    if len(at) < 3:
        return None
    dark = np.cumsum(seen & ~lit)[at]
    parts = np.split(at, np.flatnonzero((np.diff(dark) > GAP) | (np.diff(at) > BLIND)) + 1)
    longest = max(parts, key=len)
    if len(longest) < LIT_FRACTION * np.count_nonzero((seen | lit)[longest[0]:longest[-1] + 1]):
        return None
    return longest[0], longest[-1] + 1


def _half_width(profile: np.ndarray, slope: float):
    """Half width of the band to mask [pix], to where the profile sinks into the noise; None for what no track looks like."""
    side = profile[np.abs(PLACE) >= OUTER].mean()
    excess = profile - side
    peak = excess[REACH - BAND:REACH + BAND + 1].max()
    # a broad glow is no track, nor is a single column or row of the detector
    if side > 0.5 * peak:
        return None
    top = REACH - BAND + int(np.argmax(excess[REACH - BAND:REACH + BAND + 1]))
    if abs(slope) < 0.005 and max(excess[top - 1], excess[top + 1]) < 0.25 * peak:
        return None
    dark = np.abs(PLACE)[excess < max(0.1, 0.03 * peak)]
    beyond = dark[dark > BAND]
    return (float(beyond.min()) if len(beyond) else float(OUTER)) + 1.0


@njit(cache=True, nogil=True)
def _saturated_fraction(mask, start, end, offset, slope):
    full = 0
    for u in range(start, end):
        v = int(np.rint(offset + slope * u))
        for w in range(max(v - 3, 0), min(v + 4, mask.shape[0])):
            if mask[w, u] & SATURATED:
                full += 1
                break
    return full / max(end - start, 1)


@njit(cache=True, nogil=True)
def _pieces(data, sigma, level, mask, start, end, offset, slope, piece):
    """Median residual [sigma] across the line, by pieces along it: (n, 2 REACH + 1), 0 where too little is usable; middles (n,) [pix];
    whether the line itself is usable (n,)."""
    n = max((end - start + piece - 1) // piece, 1)
    out, middle, seen = np.zeros((n, 2 * REACH + 1), np.float32), np.empty(n), np.zeros(n, np.bool_)
    values = np.empty(piece, np.float32)
    for p in range(n):
        first, last = start + p * piece, min(start + (p + 1) * piece, end)
        middle[p] = 0.5 * (first + last - 1)
        for k in range(2 * REACH + 1):
            count = 0
            for u in range(first, last):
                v = int(np.floor(offset + slope * u + 0.5)) + k - REACH
                if 0 <= v < data.shape[0] and not mask[v, u] & UNUSABLE:
                    values[count] = (data[v, u] - level[v, u]) / sigma[v, u]
                    count += 1
            if 3 * count >= piece:
                out[p, k] = np.median(values[:count])
                seen[p] |= k == REACH
    return out, middle, seen


@njit(cache=True, nogil=True)
def _band(shape, start, end, offset, slope, half_width):
    """bool `shape`: pixels within `half_width` of the line v = offset + slope u, start <= u <= end."""
    inside = np.zeros(shape, np.bool_)
    across = half_width * np.sqrt(1.0 + slope * slope)
    for u in range(max(int(np.floor(start - half_width)), 0), min(int(np.ceil(end + half_width)) + 1, shape[1])):
        v = offset + slope * u
        for w in range(max(int(np.ceil(v - across)), 0), min(int(np.floor(v + across)) + 1, shape[0])):
            inside[w, u] = True
    return inside
