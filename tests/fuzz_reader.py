"""Damaged files through the reader: each must be read to true counts, or refused in a sentence.

    python tests/fuzz_reader.py --files 20000

Takes every form of file in `vendor_files` that is read, damages it (bits, bytes, lengths, tags,
value representations, elements, geometry, nesting, foreign elements), and demands of each result:

* `read_nm` gives a scan or an `RbsError` that names the file, a fault and a remedy, and not the
  patient; it takes less than 10 s and no more than 2 GiB, and nothing else happens.
* A scan holds no wrong counts. They are those of the intact file; or else the damage changed the
  stored pixels themselves, their shape, sign or encoding, to others as valid, and pydicom alone,
  and dcmtk where it can read the file, find the same; and where CountsAccumulated survived, the
  reader has warned that they disagree with it. (Pixels that changed places, and any in a file that
  states no sum, nobody can tell.)
* Whatever was read can be reported, and is restored or refused with an `RbsError`. A restored
  file holds the Patient ID and the name of its source, byte for byte.
* It is de-identified, or refused with an `RbsError`; the name is not in what comes out.
"""

from __future__ import annotations

import io
import logging
import shutil
import struct
import subprocess
import sys
import tempfile
import warnings
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import fuzzing
import numpy as np
import pydicom
from fuzzing import Damaged, Wrong, blind
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLossless,
    JPEGLosslessSV1,
)
from pydicom.valuerep import CUSTOMIZABLE_CHARSET_VR
from vendor_files import QUIRKS

from rbs.clinic.checks import check
from rbs.errors import RbsError
from rbs.scans.dicom.deidentify import Pseudonyms, deidentify
from rbs.scans.dicom.deidentify_check import survivors
from rbs.scans.dicom.reader import blaming, read_nm
from rbs.scans.dicom.writer import Derivation, encoded, write_restored_nm
from rbs.scans.scan import Scan

UNDEFINED = 0xFFFFFFFF
LONG = {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"UC", b"UN", b"UR", b"UT", b"SV", b"UV"}
SHORT = b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US zz".split()
VRS = [*sorted(LONG), *SHORT, b"\0\0"]
GEOMETRY = {
    **dict.fromkeys((0x00280010, 0x00280011, 0x00280100, 0x00280101, 0x00280102, 0x00280103), "number"),
    **dict.fromkeys((0x00280002, 0x00280009, 0x00540010, 0x00540011, 0x00540020, 0x00540021), "number"),
    **dict.fromkeys((0x00280008, 0x00280030, 0x00180070, 0x00181300, 0x00181242, 0x00280004), "text"),
    **dict.fromkeys((0x00080008, 0x00080016, 0x00080060, 0x00020010, 0x00080005), "text"),
}
TEXTS = [*b"0 1 2 3 4 -1 1e999 nan inf 1\\2\\3 2,4\\2,4 99999999999999999999".split(), b""]
TEXTS += [
    b"9" * 400,
    b"\\" * 40,
    b"1_0",
    b"20240230",
    b"M\xfcller^J\xf6rg=\xe5\xb1\xb1",
    b"\x1b[31m\r\n",
    b"Secret" * 999,
]
TEXTS += [b"\xff\xfe", b"\0" * 4, b"ISO 2022 IR 87", b"1.2.840.10008.1.2.1.99", b"\x1b$B\x1b("]

FOREIGN = [0x00080005, 0x00090010, 0x00091001, 0x00100020, 0x00101000, 0x00100010, 0x00180050, 0x00181302]
FOREIGN += [0x00200011, 0x00281052, 0x00281053, 0x00290010, 0x00291010, 0x50000022, 0x60000022, 0x00081140]
KEY = Pseudonyms(bytes(32))


@dataclass(frozen=True)
class Element:
    """Where an element of a file stands.

    Attributes:
        tag: Group and element.
        start: First byte of the tag.
        length: First byte of the length.
        size: Bytes of the length, 2 or 4.
        value: First byte of the value.
        end: First byte after it.
        order: Byte order of its numbers, "<" or ">".
    """

    tag: int
    start: int
    length: int
    size: int
    value: int
    end: int
    order: str


def elements(data: bytes, place: int, implicit: bool, order: str = "<") -> Iterator[Element]:
    """Walk through a data set, and into its sequences, until something cannot be understood."""
    while place + 8 <= len(data):
        group, number = struct.unpack_from(f"{order}HH", data, place)
        vr, size, at = data[place + 4 : place + 6], 4, place + 4
        item = group == 0xFFFE
        if not (implicit or item):
            size, at = (4, place + 8) if vr in LONG else (2, place + 6)
        if at + size > len(data):
            return
        (length,) = struct.unpack_from(f"{order}{'I' if size == 4 else 'H'}", data, at)
        value = at + size
        inside = item or length == UNDEFINED or vr == b"SQ"
        end = value if inside else value + length
        yield Element(group << 16 | number, place, at, size, value, min(end, len(data)), order)
        place = end


def parts(data: bytes) -> tuple[bytes, bytes, list[Element], bool]:
    """What stands before the data set, the data set (inflated), its elements, and whether it was deflated."""
    start = data.index(b"DICM") + 4 if data[128:132] == b"DICM" else 0
    meta = [e for e in elements(data, start, False) if e.tag >> 16 == 2] if start else []
    meta = meta[: next((i for i, e in enumerate(meta[1:], 1) if e.start != meta[i - 1].end), len(meta))]
    end = meta[-1].end if meta else 0
    syntax = next((data[e.value : e.end].strip(b"\0") for e in meta if e.tag == 0x00020010), b"")
    deflated = syntax == b"1.2.840.10008.1.2.1.99"
    body = zlib.decompress(data[end:], -zlib.MAX_WBITS) if deflated else data[end:]
    order = ">" if syntax == b"1.2.840.10008.1.2.2" or body[:1] == b"\0" else "<"
    implicit = syntax == b"1.2.840.10008.1.2" or (not syntax and not body[4:6].isalpha())
    return data[:end], body, list(elements(body, 0, implicit, order)), deflated


def damaged(intact: bytes, rng: np.random.Generator) -> tuple[bytes, str]:
    """One to three faults put into a file, and their names."""
    if rng.random() < 0.3:  # anywhere, blindly
        data, names = bytearray(intact), []
        for _ in range(rng.integers(1, 4)):
            names.append(blind(data, rng))
        return bytes(data), "+".join(names)
    before, body, found, deflated = parts(intact)
    data, names = bytearray(body), []
    for _ in range(1 if rng.random() < 0.7 else 2):
        # The places of the second fault are those of the intact file: it may hit anything.
        names.append(_aimed(data, found, rng))
    if deflated:
        packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        return before + packer.compress(bytes(data)) + packer.flush(), "+".join(names)
    return before + bytes(data), "+".join(names)


def _aimed(data: bytearray, found: list[Element], rng: np.random.Generator) -> str:
    e = found[rng.integers(len(found))]
    names = ["length", "tag", "vr", "twice", "without", "nesting", "value", "foreign", *["geometry"] * 6]
    name = str(rng.choice(names))
    if name == "length":
        top = 2 ** (8 * e.size) - 1
        old = int.from_bytes(data[e.length : e.length + e.size], "little" if e.order == "<" else "big")
        others = [0, 1, old + 1, old + 2, old - 1, old - 2, 2 * old, top, top - 1, top // 2, 1 << 28]
        new = int(rng.choice(np.clip(others, 0, top)))
        data[e.length : e.length + e.size] = new.to_bytes(e.size, "little" if e.order == "<" else "big")
    elif name == "tag":
        other = found[rng.integers(len(found))]
        data[e.start : e.start + 4] = data[other.start : other.start + 4]
    elif name == "vr":
        data[e.start + 4 : e.start + 6] = VRS[rng.integers(len(VRS))]
    elif name == "twice":
        at = found[rng.integers(len(found))].start
        data[at:at] = data[e.start : e.end]
    elif name == "without":
        del data[e.start : e.end]
    elif name == "nesting":
        deep = int(rng.choice([3, 100, 1000, 5000]))
        long = e.order + "HH2sHI" if rng.random() < 0.5 else e.order + "HHI"
        sequence = struct.pack(long, 0x0040, 0x0275, *([b"SQ", 0] if "s" in long else []), UNDEFINED)
        item = struct.pack(f"{e.order}HHI", 0xFFFE, 0xE000, UNDEFINED)
        ends = struct.pack(f"{e.order}HHIHHI", 0xFFFE, 0xE00D, 0, 0xFFFE, 0xE0DD, 0)
        data[e.start : e.start] = (sequence + item) * deep + ends * (deep if rng.random() < 0.5 else 0)
    elif name == "foreign":
        tag, vr = FOREIGN[rng.integers(len(FOREIGN))], VRS[rng.integers(len(VRS))]
        text = TEXTS[rng.integers(len(TEXTS))]
        text += b" " * (len(text) % 2)
        implicit = e.size == 4 and not data[e.start + 4 : e.start + 6].isalpha()
        head = struct.pack(f"{e.order}HH", tag >> 16, tag & 0xFFFF) + (b"" if implicit else vr)
        head += b"\0\0" if vr in LONG and not implicit else b""
        size = "I" if implicit or vr in LONG else "H"
        data[e.start : e.start] = head + struct.pack(f"{e.order}{size}", len(text)) + text
    elif name == "value":
        _replace(data, e, TEXTS[rng.integers(len(TEXTS))])
    else:
        known = [e for e in found if e.tag in GEOMETRY]
        e = known[rng.integers(len(known))]
        if GEOMETRY[e.tag] == "text":
            _replace(data, e, TEXTS[rng.integers(len(TEXTS))])
        else:
            (old,) = struct.unpack_from(f"{e.order}H", data, e.value) if e.value + 2 <= len(data) else (0,)
            new = int(rng.choice([0, 1, 2, 3, 7, 8, 12, 15, 16, 32, 64, old + 1, old * 2, old // 2, 65535]))
            data[e.value : e.value + 2] = struct.pack(f"{e.order}H", min(new, 65535))
        name += f" {e.tag:08x}"
    return name


def _replace(data: bytearray, e: Element, value: bytes) -> None:
    """Another value, with the length that belongs to it."""
    value += b" " * (len(value) % 2)
    data[e.value : e.end] = value
    data[e.length : e.length + e.size] = len(value).to_bytes(e.size, "little" if e.order == "<" else "big")


@dataclass(frozen=True)
class Intact:
    """A file before it was damaged.

    Attributes:
        data: Its bytes.
        options: Options of `read_nm`.
        counts: What must be read.
    """

    data: bytes
    options: dict[str, object]
    counts: np.ndarray


class Warned(logging.Handler):
    """Collects what the reader warns of."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it."""
        self.said.append(record.getMessage())


def judge(path: Path, intact: Intact, warned: Warned, dcmtk: bool) -> str:
    """Read a damaged file and say what came of it.

    Raises:
        Wrong: Something that must not happen.
    """
    warned.said.clear()
    try:
        scan = read_nm(path, **intact.options)
    except RbsError as error:
        if error.file != path or not error.remedy or len(error.fault) > 250 or not error.fault.isprintable():
            raise Wrong(f"a bad refusal: {error!r}") from error
        if "Secret" in str(error):
            raise Wrong(f"the patient's name is shown: {error}") from error
        return "refused"
    if np.array_equal(scan.counts, intact.counts):
        outcome = "read, counts as in the intact file"
    else:
        outcome = _agreed(path, scan, intact, warned, dcmtk)
    if "Secret" in str(check(scan)):
        raise Wrong("the patient's name is shown")
    _de_identified(path)
    target = path.with_name("restored.dcm")
    target.unlink(missing_ok=True)
    try:
        doubled = scan.with_counts(2.0 * scan.counts, velocity=20.0)
        stored = write_restored_nm(target, doubled, scan, derivation=Derivation("f1", "0", "ab" * 32))
    except RbsError:
        return outcome
    lost = abs(stored.counts - 2 * scan.counts.sum(dtype=np.int64))
    if stored.clipped == 0 and lost > 0.05 * scan.counts.size:
        raise Wrong("the restored counts are not those that were written")
    if _patient(target) != _patient(path):
        raise Wrong("the restored file is of another patient")
    return outcome


def _patient(path: Path) -> list[bytes]:
    """Bytes of the Patient ID and the name, where they are text, and of what says how to read them."""
    found = []
    with warnings.catch_warnings(action="ignore"):
        ds = pydicom.dcmread(path, force=True)
        for tag in (0x00080005, 0x00100010, 0x00100020):
            stored = ds.get_item(tag).value if tag in ds else None
            text = tag == 0x00080005 or (tag in ds and ds[tag].VR in CUSTOMIZABLE_CHARSET_VR)
            found.append((stored or b"").strip(b"\0 ") if text and isinstance(stored, bytes | None) else b"")
    return found


def _de_identified(path: Path) -> None:
    try:
        done = deidentify(path, KEY)
        with blaming(path):
            content = encoded(done.dataset)
        if survivors(content, done):
            return
    except RbsError:
        return
    if b"secret" in content.replace(done.dataset.PixelData, b"").lower():
        raise Wrong("the patient's name is in the de-identified file")


def _agreed(path: Path, scan: Scan, intact: Intact, warned: Warned, dcmtk: bool) -> str:
    """Other counts than the intact file's: found by others, too, and announced where that is possible."""
    with warnings.catch_warnings(action="ignore"):
        ds = _by_pydicom(path)
        shape = int(ds.get("NumberOfFrames") or 1), ds.Rows, ds.Columns
        if _what_pixels_rest_on(ds) == _what_pixels_rest_on(_by_pydicom(io.BytesIO(intact.data))):
            raise Wrong("the stored pixels are intact, but other counts were read")
        # pydicom has no decoder of JPEG Lossless: there the sum is the only judge.
        lossless = ds.file_meta.TransferSyntaxUID in (JPEGLossless, JPEGLosslessSV1)
        alone = scan.counts if lossless else ds.pixel_array.reshape(shape).astype(np.int64)
        try:
            stated = ds.get("CountsAccumulated")
        except NotImplementedError:  # pydicom on a type (VR) that damage made unknown
            stated = None
    if not all(any(np.array_equal(frame, other) for other in alone) for frame in scan.counts):
        raise Wrong("pydicom alone reads other counts")
    if isinstance(stated, int) and stated > 0 and stated != alone.sum():
        if not any("CountsAccumulated" in text for text in warned.said) and len(alone) == len(scan.counts):
            raise Wrong(f"the counts sum to {alone.sum()}, not to {stated}, and nobody is told")
        outcome = "read, pixels damaged, warned of by CountsAccumulated"
    else:
        outcome = "read, pixels damaged, their sum the same or unstated"
    if dcmtk and (theirs := _dcmtk(path, ds, shape)) is not None:
        if not np.array_equal(theirs, alone):
            raise Wrong("dcmtk reads other counts")
        outcome += ", dcmtk agrees"
    return outcome


def _by_pydicom(file: Path | io.BytesIO) -> pydicom.FileDataset:
    ds = pydicom.dcmread(file, force=True)
    if "TransferSyntaxUID" not in ds.file_meta:
        implicit, little = ds.original_encoding
        plain = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else plain
    return ds


def _what_pixels_rest_on(ds: pydicom.FileDataset) -> list[object]:
    names = ("PixelData", "NumberOfFrames", "Rows", "Columns", "BitsAllocated", "PixelRepresentation")
    return [ds.file_meta.TransferSyntaxUID, *(ds.get(name) for name in (*names, "EnergyWindowVector"))]


def _dcmtk(path: Path, ds: pydicom.FileDataset, shape: tuple[int, int, int]) -> np.ndarray | None:
    """The uncompressed pixels as dcmtk reads them; None where it cannot."""
    if "PixelData" not in ds or ds["PixelData"].is_undefined_length or ds.get("BitsStored") != 16:
        return None
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        done = subprocess.run(["dcmdump", "-q", "+W", folder, path], capture_output=True)
        files = list(Path(folder).iterdir())
        if done.returncode or len(files) != 1:
            return None
        data = files[0].read_bytes()
    size = int(np.prod(shape))
    if len(data) != 2 * size:
        return None
    return np.frombuffer(data, "<i2" if ds.PixelRepresentation else "<u2").reshape(shape).astype(np.int64)


def intact_files(folder: Path) -> dict[str, Intact]:
    """Every small file that is read, by the name of its quirk."""
    files = {}
    for number, (name, quirk) in enumerate(QUIRKS.items()):
        if quirk.refused is None and quirk.counts.size < 20_000:
            path = quirk.write(folder / f"{number}.dcm")
            counts = quirk.counts if quirk.read is None else quirk.read
            files[name] = Intact(path.read_bytes(), quirk.options, counts)
            path.unlink()
    return files


def fuzz(
    folder: Path, numbers: range, seed: int, keep: Path | None = None, dcmtk: bool | None = None
) -> tuple[Counter[str], list[str]]:
    """Damage and judge files: how many came to what, and what must not have happened."""
    dcmtk = shutil.which("dcmdump") is not None if dcmtk is None else dcmtk
    files = list(intact_files(folder).items())
    logger, warned = logging.getLogger("rbs"), Warned()
    path = folder / "damaged.dcm"

    def damage(rng: np.random.Generator) -> Damaged:
        name, intact = files[rng.integers(len(files))]
        data, faults = damaged(intact.data, rng)
        path.write_bytes(data)
        return Damaged(f"{name}: {faults}", path, lambda: judge(path, intact, warned, dcmtk))

    logger.addHandler(warned)
    logger.propagate = False
    try:
        return fuzzing.judge_all(damage, numbers, seed, keep)
    finally:
        logger.removeHandler(warned)
        logger.propagate = True


if __name__ == "__main__":
    sys.exit(fuzzing.main("Damaged files through the reader.", 20_000, fuzz))
