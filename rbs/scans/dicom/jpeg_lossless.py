"""Decoding JPEG Lossless (process 14, any selection value) of one component: ITU-T T.81, annex H.

The usual lossless form in archives. The decoders of it that Python has are under the GPL or end the
whole process at a damaged stream; this one raises ValueError.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

from rbs.scans.scan import Array

_SOF3, _DHT, _DRI, _SOS = 0xC3, 0xC4, 0xDD, 0xDA
_OTHER_FRAMES = {*range(0xC0, 0xD0)} - {_SOF3, _DHT, 0xC8, 0xCC}
_CHUNK = 2**16
"""Bytes of entropy-coded data for which the symbol at every bit is looked up at a time."""


@dataclass(frozen=True)
class Stream:
    """A parsed stream.

    Attributes:
        rows: Rows of the frame.
        columns: Columns of the frame.
        precision: Bits of a sample.
        predictor: Selection value, 1 to 7.
        point_transform: Low bits that the encoder dropped; 0 if nothing is lost.
        lengths: Code length in bits by the next 16 bits of the stream, 0 where they begin no code.
        categories: Bits of the difference that the code stands for, likewise.
        data: The entropy-coded bytes, without stuffing.
    """

    rows: int
    columns: int
    precision: int
    predictor: int
    point_transform: int
    lengths: Array
    categories: Array
    data: Array


def parse(encoded: bytes) -> Stream:
    """Read the markers of a stream.

    Raises:
        ValueError: It is damaged, of another process, of several components, or has restarts.
    """
    frame: tuple[int, ...] = ()
    tables: dict[int, tuple[Array, Array]] = {}
    place = 2
    try:
        while True:
            while encoded[place : place + 2] == b"\xff\xff":  # fill bytes
                place += 1
            start, marker, length = struct.unpack_from(">BBH", encoded, place)
            segment = encoded[place + 4 : place + 2 + length]
            if start != 0xFF or length < 2 or marker in _OTHER_FRAMES:
                raise ValueError("it is no JPEG Lossless stream")
            place += 2 + length
            if marker == _SOF3:
                frame = struct.unpack_from(">BHHB", segment)
            elif marker == _DHT:
                tables |= _tables(segment)
            elif marker == _DRI and segment != b"\0\0":
                raise ValueError("its stream has restart markers")
            elif marker == _SOS:
                break
        precision, rows, columns, components = frame
        scanned, _, table, predictor, _, approximation = struct.unpack("6B", segment)
        lengths, categories = tables[table >> 4]
    except (struct.error, IndexError, KeyError) as error:
        raise ValueError("its JPEG markers are damaged") from error
    if not (components == scanned == 1 and 2 <= precision <= 16 and 1 <= predictor <= 7):
        raise ValueError("its JPEG stream is of another kind than grey JPEG Lossless")
    end = encoded.rfind(b"\xff\xd9")
    data = encoded[place : end if end >= place else None].replace(b"\xff\0", b"\xff")
    coded = np.frombuffer(data, np.uint8)
    return Stream(rows, columns, precision, predictor, approximation & 15, lengths, categories, coded)


def decode(stream: Stream) -> Array:
    """Samples of a stream, uint16 (rows, columns).

    Raises:
        ValueError: The entropy-coded data are damaged or truncated.
    """
    differences = _differences(stream).reshape(stream.rows, stream.columns)
    samples = np.empty(differences.shape, np.uint16)
    above = np.zeros(0, np.int64)
    for row, difference in enumerate(differences):
        if row == 0:
            here = 2 ** (stream.precision - stream.point_transform - 1) + np.cumsum(difference)
        else:
            here = _row(difference, above, stream.predictor)
        above = here & 0xFFFF
        samples[row] = above
    return samples


def _tables(segment: bytes) -> dict[int, tuple[Array, Array]]:
    """Code lengths and categories of each Huffman table, by the next 16 bits: annex C."""
    tables = {}
    while segment:
        counts, values = segment[1:17], segment[17:]
        lengths, categories = np.zeros(2**16, np.uint8), np.zeros(2**16, np.uint8)
        first, used = 0, 0
        for bits, count in enumerate(counts, start=1):
            for value in values[used : used + count]:
                last = first + (1 << 16 - bits)
                if last > 2**16 or value > 16:
                    raise ValueError("its Huffman table is damaged")
                lengths[first:last], categories[first:last] = bits, value
                first = last
            used += count
        if not used <= len(values):
            raise ValueError("its Huffman table is damaged")
        tables[segment[0] & 15] = lengths, categories
        segment = values[used:]
    return tables


def _differences(stream: Stream) -> Array:
    """Differences from the prediction, int64, one a sample."""
    # The category 16 is the difference 32768 and has no bits of its own.
    extra = np.where(stream.categories == 16, 0, stream.categories)
    steps = np.where(stream.lengths > 0, stream.lengths + extra, 0)
    data = np.concatenate([stream.data, np.zeros(4, np.uint8)]).astype(np.int32)
    triples = data[:-2] << 16 | data[1:-1] << 8 | data[2:]
    places: list[int] = []
    place = 0
    wanted, end = stream.rows * stream.columns, 8 * len(stream.data)
    for first in range(0, len(stream.data), _CHUNK):
        windows = triples[first : first + _CHUNK, None] >> (8 - np.arange(8)) & 0xFFFF
        step_at = steps[windows].ravel().tolist()
        base, stop = 8 * first, min(8 * (first + _CHUNK), end)
        while place < stop and len(places) < wanted:
            step = step_at[place - base]
            if not step:
                raise ValueError("its entropy-coded data are damaged")
            places.append(place)
            place += step
    if len(places) < wanted or place > end:
        raise ValueError("its entropy-coded data end early")
    at = np.array(places, np.int64)

    def window(bit: Array) -> Array:
        return triples[bit >> 3] >> (8 - (bit & 7)) & 0xFFFF

    code = window(at)
    category, bits = stream.categories[code].astype(np.int64), extra[code].astype(np.int64)
    value = window(at + stream.lengths[code]) >> (16 - bits)
    negative = (bits > 0) & (value < 1 << np.maximum(bits - 1, 0))
    value = np.where(negative, value - (1 << bits) + 1, value).astype(np.int64)
    return np.where(category == 16, 32768, value)


def _row(difference: Array, above: Array, predictor: int) -> Array:
    """Samples of a row below the first, modulo 2^16: table H.1."""
    if predictor == 1:
        return above[0] + np.cumsum(difference)
    if predictor == 2:
        return above + difference
    if predictor == 3:
        return np.concatenate([above[:1], above[:-1]]) + difference
    if predictor == 4:
        return above + np.cumsum(difference)
    if predictor == 5:
        slopes = np.concatenate([[0], (above[1:] - above[:-1]) >> 1])
        return above[0] + np.cumsum(difference + slopes)
    row = [int(above[0] + difference[0]) & 0xFFFF]
    corners = above.tolist()
    for column, more in enumerate(difference[1:].tolist(), start=1):
        left, upper, corner = row[-1], corners[column], corners[column - 1]
        guess = upper + ((left - corner) >> 1) if predictor == 6 else (left + upper) >> 1
        row.append(guess + more & 0xFFFF)
    return np.array(row, np.int64)
