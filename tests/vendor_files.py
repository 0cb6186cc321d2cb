"""Whole-body scans as cameras and workstations write them, and what a reader must make of each.

Every quirk is a small file made with pydicom, Pillow and CharLS alone; nothing of rbs takes part.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import jpeg_ls
import numpy as np
import pydicom
from nm_files import poisson, write_nm
from PIL import Image
from pydicom import Dataset, FileDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    JPEG2000,
    UID,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    MediaStorageDirectoryStorage,
    RLELossless,
    SecondaryCaptureImageStorage,
)
from scipy.ndimage import gaussian_filter

Change = Callable[[FileDataset], object]
Many = dict[str, object]

NAMES = ("anterior", "posterior")
TWO = poisson(2, rows=64, columns=48)
"""Counts of both views; no pixel exceeds 255."""

ONE = TWO[:1]


@dataclass(frozen=True)
class Quirk:
    """A file and what a reader must make of it.

    Attributes:
        changes: What is done to a plain file, one after the other.
        counts: The counts of the plain file.
        views: The views it names; none leaves the view codes empty.
        options: Options of `read_nm`.
        refused: Pattern of the fault, if it must be refused, and of the remedy.
        read: The counts to be read; those of the plain file where None.
        scan: Attributes of the scan to be read.
        rule: The rule that must name the views.
        encode: Writes the file: transfer syntax, preamble.
    """

    changes: tuple[Change, ...] = ()
    counts: np.ndarray = field(default_factory=lambda: TWO)
    views: tuple[str, ...] = NAMES
    options: Many = field(default_factory=dict)
    refused: tuple[str, str] | None = None
    read: np.ndarray | None = None
    scan: Many = field(default_factory=dict)
    rule: str = "ViewCodeSequence"
    encode: Callable[[FileDataset, Path], object] = lambda ds, path: ds.save_as(path)

    def write(self, path: Path) -> Path:
        """Make the file."""
        views = self.views or ("",) * len(self.counts)
        ds = pydicom.dcmread(write_nm(path, self.counts, views=views))
        ds.PatientSize, ds.PatientWeight = "1.27", "25.1"
        ds.PixelSpacing = ["2.4", "2.2"]
        for change in self.changes:
            change(ds)
        self.encode(ds, path)
        return path


def put(**attributes: object) -> Change:
    """Set attributes; None deletes."""

    def change(ds: FileDataset) -> None:
        for name, value in attributes.items():
            if value is not None:
                setattr(ds, name, value)
            elif name in ds:
                delattr(ds, name)

    return change


# ---- views
def like_ge(ds: FileDataset) -> None:
    """GE Millennium: one view a file, signed, nothing said of detectors and energy windows."""
    put(SOPClassUID=SecondaryCaptureImageStorage, PixelRepresentation=1, FrameIncrementPointer=None)(ds)
    put(EnergyWindowVector=None, EnergyWindowInformationSequence=None)(ds)
    put(DetectorVector=None, DetectorInformationSequence=None)(ds)


def like_xeleris(ds: FileDataset) -> None:
    """Siemens Symbia by way of Xeleris: view codes empty, both heads turned alike, unknown values zero."""
    for item in ds.DetectorInformationSequence:
        item.ViewCodeSequence, item.StartAngle = [Dataset()], "0"
        item.ImageOrientationPatient, item.ImagePositionPatient = [1, 0, 0, 0, 0, -1], [0, 0, 0]
        item.CollimatorGridName = "4711"
    tracer = Dataset()
    tracer.RadionuclideTotalDose = "0"
    put(PatientSize="0", PatientWeight="0.0", RadiopharmaceuticalInformationSequence=[tracer])(ds)


def view_code(frame: int, value: str, scheme: str, meaning: str) -> Change:
    def change(ds: FileDataset) -> None:
        code = Dataset()
        code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, scheme, meaning
        ds.DetectorInformationSequence[frame].ViewCodeSequence = [code]

    return change


def private_text(value: object, vr: str = "LO") -> Change:
    return lambda ds: ds.private_block(0x0011, "CAMERA", create=True).add_new(0x10, vr, value)


def text_in_detector(frame: int, text: str) -> Change:
    return lambda ds: private_text(text)(ds.DetectorInformationSequence[frame])


def angles(*degrees: str) -> Change:
    def change(ds: FileDataset) -> None:
        for item, angle in zip(ds.DetectorInformationSequence, degrees, strict=True):
            item.StartAngle = angle

    return change


def many_private_groups(ds: FileDataset) -> None:
    """GE and Siemens alike: names, tables, sequences and pictures in private groups of every kind."""
    ge = ds.private_block(0x0009, "GEMS_GENIE_1", create=True)
    ge.add_new(0x40, "PN", "Secret^Name")
    ge.add_new(0x41, "UN", bytes(range(256)) * 16)
    ge.add_new(0x42, "SQ", [Dataset(), Dataset()])
    ds.private_block(0x0033, "SIEMENS MED NM", create=True).add_new(0x10, "FD", [1.0, float("nan")])
    ds.private_block(0x7FE3, "SIEMENS MED NM", create=True).add_new(0x14, "OB", b"\x00" * 999 + b"\x01")
    ds.add_new((0x0011, 0x0001), "LO", "no one's block")


# ---- energy windows
def two_windows(ds: FileDataset) -> None:
    """140 keV first, scatter after it."""
    scatter = Dataset()
    scatter.EnergyWindowName = "scatter"
    limits = Dataset()
    limits.EnergyWindowLowerLimit, limits.EnergyWindowUpperLimit = "90", "120"
    scatter.EnergyWindowRangeSequence = [limits]
    ds.EnergyWindowInformationSequence = [*ds.EnergyWindowInformationSequence, scatter]
    put(NumberOfFrames=4, NumberOfEnergyWindows=2)(ds)
    put(EnergyWindowVector=[1, 1, 2, 2], DetectorVector=[1, 2, 1, 2])(ds)
    pixels(lambda p: np.concatenate([p, SCATTER]))(ds)


SCATTER = poisson(2, seed=5, rows=64, columns=48, level=8)


# ---- pixels
def pixels(change: Callable[[np.ndarray], np.ndarray], kind: str = "<u2", **header: object) -> Change:
    """Replace the 16-bit pixels and what the header says of their bits; CountsAccumulated stays."""

    def how(ds: FileDataset) -> None:
        data = change(np.frombuffer(ds.PixelData, "<u2").reshape(-1, ds.Rows, ds.Columns)).astype(kind)
        bits = 8 * data.dtype.itemsize
        put(BitsAllocated=bits, BitsStored=bits, HighBit=bits - 1)(ds)
        put(PixelRepresentation=int(data.dtype.kind == "i"), **header)(ds)
        ds.PixelData = data.tobytes()

    return how


TWELVE: Many = {"BitsStored": 12, "HighBit": 11}


def rubbish_above_twelve(p: np.ndarray) -> np.ndarray:
    return p | (np.arange(p.size) % 3 == 0).reshape(p.shape) * 0xA000


def packed(syntax: UID, encode: Callable[[np.ndarray], bytes]) -> Change:
    """Frame by frame compressed pixels, without a table of offsets."""

    def how(ds: FileDataset) -> None:
        frames = np.frombuffer(ds.PixelData, "<u2").reshape(-1, ds.Rows, ds.Columns)
        ds.PixelData = encapsulate([encode(frame) for frame in frames], has_bot=False)
        ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True
        ds.file_meta.TransferSyntaxUID = syntax

    return how


def jpeg(frame: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(frame.astype(np.uint8)).save(file, "JPEG")
    return file.getvalue()


def jpeg_2000(frame: np.ndarray, irreversible: bool = False) -> bytes:
    file = io.BytesIO()
    layers = {"quality_mode": "rates", "quality_layers": [6]} if irreversible else {}
    Image.fromarray(frame).save(file, "JPEG2000", no_jp2=True, irreversible=irreversible, **layers)
    return file.getvalue()


def jpeg_ls_stream(frame: np.ndarray, error: int = 0) -> bytes:
    rows, columns = frame.shape
    size = {"rows": rows, "columns": columns, "samples_per_pixel": 1, "bits_allocated": 16, "bits_stored": 16}
    return bytes(
        jpeg_ls.encode_pixel_data(
            frame.tobytes(), error, **size, photometric_interpretation="MONOCHROME2", planar_configuration=0
        )
    )


def jpeg_lossless(frame: np.ndarray, predictor: int = 1, dropped: int = 0) -> bytes:
    """JPEG Lossless after ITU-T T.81, annex H; every category has a code of five bits."""
    x = frame.astype(int) >> dropped
    bits = ""
    for (row, column), value in np.ndenumerate(x):
        a, b, c = x[row, column - 1], x[row - 1, column], x[row - 1, column - 1]
        guesses = (0, a, b, c, a + b - c, a + (b - c >> 1), b + (a - c >> 1), a + b >> 1)
        guess = guesses[predictor] if row and column else b if row else a if column else 1 << 15 - dropped
        difference = (value - guess + 32767) % 65536 - 32767
        category = int(abs(difference)).bit_length()
        bits += f"{category:05b}"
        if 0 < category < 16:
            bits += (
                f"{(difference if difference > 0 else difference - 1) & ((1 << category) - 1):0{category}b}"
            )
    bits += "1" * (-len(bits) % 8)
    data = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0")
    size = struct.pack(">BHHBBBB", 16, *frame.shape, 1, 1, 0x11, 0)
    table = bytes([0, 0, 0, 0, 0, 17, *[0] * 11, *range(17)])
    scan = bytes([1, 1, 0, predictor, 0, dropped])
    segments = ((0xC3, size), (0xC4, table), (0xDA, scan))
    markers = b"".join(struct.pack(">BBH", 0xFF, kind, len(part) + 2) + part for kind, part in segments)
    return b"\xff\xd8" + markers + data + b"\xff\xd9"


def run_lengths(ds: FileDataset) -> None:
    ds.compress(RLELossless, generate_instance_uid=False)


def stored_as(syntax: UID) -> Callable[[FileDataset, Path], None]:
    def encode(ds: FileDataset, path: Path) -> None:
        ds.file_meta.TransferSyntaxUID = syntax
        implicit, little = syntax == ImplicitVRLittleEndian, syntax != ExplicitVRBigEndian
        pydicom.dcmwrite(path, ds, implicit_vr=implicit, little_endian=little, force_encoding=True)

    return encode


def without_preamble(implicit: bool, little: bool = True) -> Callable[[FileDataset, Path], None]:
    def encode(ds: FileDataset, path: Path) -> None:
        plain = Dataset()
        plain.update(ds)
        plain.save_as(path, implicit_vr=implicit, little_endian=little)

    return encode


def big_endian_bytes(ds: FileDataset) -> None:
    kind = "u2" if ds.BitsAllocated == 16 else "u1"
    data = np.frombuffer(ds.PixelData, f"<{kind}").astype(f">{kind}").tobytes()
    ds.PixelData = data if kind == "u2" else np.frombuffer(data, "<u2").astype(">u2").tobytes()
    ds["PixelData"].VR = "OW"  # eight bits in words, so bytes change places, too


def directory(ds: FileDataset, path: Path) -> None:
    """A DICOMDIR as a CD has it at its root."""
    index = Dataset()
    index.file_meta = pydicom.dataset.FileMetaDataset()
    index.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    index.file_meta.MediaStorageSOPClassUID = MediaStorageDirectoryStorage
    index.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    index.FileSetID, index.DirectoryRecordSequence = "CD", []
    pydicom.dcmwrite(path, index, enforce_file_format=True)


def overlay(ds: FileDataset) -> None:
    """The retired way: an overlay in bit 15 of the pixels themselves."""
    ds.add_new((0x6000, 0x0010), "US", ds.Rows)
    ds.add_new((0x6000, 0x0011), "US", ds.Columns)
    ds.add_new((0x6000, 0x0100), "US", 16)
    ds.add_new((0x6000, 0x0102), "US", 15)


def image_type(kind: str, *, value_1: str = "ORIGINAL", value_4: str = "EMISSION") -> Change:
    return put(ImageType=[value_1, "PRIMARY", kind, value_4])


RAW = "export the original, uncompressed raw counts"
PLAIN = "export it uncompressed"
NAME_TWO = "--view anterior --view posterior"
BACK_FIRST = NAMES[::-1]
UNNAMED: Many = {"views": ()}
LOSSY = ("lossy or cannot be decoded", PLAIN)

QUIRKS: dict[str, Quirk] = {
    # ---- which frame shows which view
    "two frames, coded views": Quirk(scan={"velocity": 40.0, "spacing_mm": (2.4, 2.2), "duration_s": 300.0}),
    "posterior first": Quirk(views=BACK_FIRST),
    "detector vector 2, 1": Quirk((put(DetectorVector=[2, 1]),), scan={"views": BACK_FIRST}),
    "one view a file, coded": Quirk(counts=ONE, views=("posterior",), scan={"views": ("posterior",)}),
    "one view a file, nothing said of it": Quirk(
        (like_ge,), ONE, ("",), refused=("nothing in the header says which view", "--view anterior or")
    ),
    "one view a file, named by the user": Quirk(
        (like_ge,), ONE, ("",), {"views": ("anterior",)}, rule="option", scan={"views": ("anterior",)}
    ),
    "one view a file, named in ImageID": Quirk(
        (like_ge, put(ImageID="WB_POST 1")), ONE, ("",), rule="ImageID", scan={"views": ("posterior",)}
    ),
    "one view a file, named in SeriesDescription": Quirk(
        (like_ge, put(ImageID="ANT/POST", SeriesDescription="Bone 3h post injection ANT")),
        ONE,
        ("",),
        rule="SeriesDescription",
        scan={"views": ("anterior",)},
    ),
    "NumberOfFrames missing": Quirk((put(NumberOfFrames=None),), ONE, ("anterior",)),
    "view codes empty, orientations equal": Quirk(
        (like_xeleris,), views=(), refused=("nothing in the header says", NAME_TWO)
    ),
    "view codes empty, orientations equal, named by the user": Quirk(
        (like_xeleris,), views=(), options={"views": NAMES}, rule="option", scan={"views": NAMES}
    ),
    "view codes of SNOMED-RT": Quirk(
        (view_code(0, "G-5216", "SRT", "x"),), views=(), scan={"views": BACK_FIRST}
    ),
    "view codes of the camera's own, with a meaning": Quirk(
        (view_code(0, "17", "99CAM", "POSTERIOR"),),
        views=(),
        scan={"views": BACK_FIRST},
        rule="ViewCodeSequence meaning",
    ),
    "views in private names": Quirk(
        (private_text(["Post_WB", "Ant_WB"]),),
        views=(),
        scan={"views": BACK_FIRST},
        rule="private name (0011,1010)",
    ),
    "view in a private name of a detector": Quirk(
        (text_in_detector(1, "WB ANT"),), views=(), scan={"views": BACK_FIRST}, rule="detector text"
    ),
    "views by start angle alone": Quirk(
        (angles("1.5", "180"),), views=(), scan={"views": BACK_FIRST}, rule="StartAngle"
    ),
    "three frames": Quirk(
        (pixels(lambda p: p[[0, 1, 0]], NumberOfFrames=3),), refused=("3 frames", "one or two views")
    ),
    # ---- facts
    "dose, size and weight 0": Quirk((like_xeleris, view_code(0, "399321004", "SCT", "a")), views=()),
    "velocity missing": Quirk((put(ScanVelocity=None),), scan={"velocity": None}),
    "velocity 0, duration 0": Quirk(
        (put(ScanVelocity="0", ActualFrameDuration="0"),), scan={"velocity": None, "duration_s": None}
    ),
    "velocity stated by the user": Quirk(
        (put(ScanVelocity=""),), options={"velocity": 40.0}, scan={"velocity": 40.0}
    ),
    "spacing missing": Quirk(
        (put(PixelSpacing=None),), refused=("pixel spacing is missing", "PixelSpacing attribute")
    ),
    "spacing 0": Quirk((put(PixelSpacing=["0", "0"]),), refused=("pixel spacing is missing", "PixelSpacing")),
    "one spacing": Quirk((put(PixelSpacing="2.4"),), refused=("pixel spacing is missing", "PixelSpacing")),
    "512 rows and columns": Quirk(counts=poisson(1, rows=512, columns=512), views=("anterior",)),
    "odd rows and columns": Quirk(counts=poisson(1, rows=101, columns=57), views=("anterior",)),
    "RescaleSlope, which NM has not": Quirk((put(RescaleSlope="2", RescaleIntercept="0"),)),
    "private groups": Quirk((many_private_groups,)),
    "a name beyond ASCII": Quirk((put(SpecificCharacterSet="ISO_IR 192", PatientName="Müller^Zoë=山田"),)),
    # ---- kinds of images
    "STATIC": Quirk((image_type("STATIC"),)),
    "WHOLEBODY in one word": Quirk((image_type("WHOLEBODY"),)),
    "ImageType missing": Quirk((put(ImageType=None),)),
    "secondary capture of modality NM": Quirk((put(SOPClassUID=SecondaryCaptureImageStorage),)),
    "tomography": Quirk((image_type("TOMO"),), refused=("image type is TOMO", "whole-body scan")),
    "dynamic": Quirk((image_type("DYNAMIC"),), refused=("image type is DYNAMIC", "whole-body scan")),
    "transmission": Quirk(
        (image_type("STATIC", value_4="TRANSMISSION"),), refused=("transmission", "emission scan")
    ),
    "derived": Quirk((image_type("WHOLE BODY", value_1="DERIVED"),), refused=("derived image", RAW)),
    "computed tomography": Quirk(
        (put(SOPClassUID=CTImageStorage, Modality="CT"),), refused=("CT Image Storage", "Nuclear Medicine")
    ),
    "no class at all": Quirk(
        (put(SOPClassUID=None, Modality=None),), refused=("no stated class", "Nuclear Medicine")
    ),
    "DICOMDIR": Quirk(encode=directory, refused=("DICOMDIR", "name the folder it stands in")),
    "inverted": Quirk((put(PhotometricInterpretation="MONOCHROME1"),), refused=("MONOCHROME1", RAW)),
    "palette": Quirk((put(PhotometricInterpretation="PALETTE COLOR"),), refused=("PALETTE COLOR", RAW)),
    "colour": Quirk((put(SamplesPerPixel=3),), refused=("colour", RAW)),
    # ---- energy windows
    "several energy windows": Quirk(
        (two_windows,), refused=(r"2 energy windows \(1, 2\)", "--energy-window")
    ),
    "several energy windows, the first chosen": Quirk((two_windows,), options={"energy_window": 1}),
    "several energy windows, the second chosen": Quirk(
        (two_windows,), options={"energy_window": 2}, read=SCATTER
    ),
    "several energy windows, one chosen that is not there": Quirk(
        (two_windows,), options={"energy_window": 3}, refused=(r"\(1, 2\), not 3", "--energy-window")
    ),
    "several energy windows, unstated which frame": Quirk(
        (two_windows, put(EnergyWindowVector=None)), refused=("2 energy windows", RAW)
    ),
    # ---- bits
    "8 bits": Quirk((pixels(lambda p: p, "u1"),)),
    "8 bits, a picture": Quirk(
        (pixels(lambda p: p * (255 / p.max()), "u1"),), refused=("times its mean", RAW)
    ),
    "8 bits, big-endian words": Quirk(
        (pixels(lambda p: p, "u1"), big_endian_bytes), encode=stored_as(ExplicitVRBigEndian)
    ),
    "12 of 16 bits": Quirk((pixels(lambda p: p, **TWELVE),)),
    "12 of 16 bits, rubbish above, their sum stated": Quirk((pixels(rubbish_above_twelve, **TWELVE),)),
    "12 of 16 bits, rubbish above, no sum stated": Quirk(
        (pixels(rubbish_above_twelve, **TWELVE, CountsAccumulated=None),), refused=("lowest 12 bits", RAW)
    ),
    "12 of 16 bits, an overlay above": Quirk(
        (overlay, pixels(lambda p: p | (p > 9) * 0x8000, **TWELVE, CountsAccumulated=None))
    ),
    "12 of 16 bits, the upper ones": Quirk(
        (pixels(lambda p: p << 4, BitsStored=12, HighBit=15),), refused=("lowest 12 bits", RAW)
    ),
    "fewer bits stated than used": Quirk(
        (pixels(lambda p: p, BitsStored=6, HighBit=5),), refused=("lowest 6 bits", RAW)
    ),
    "32 bits": Quirk((pixels(lambda p: p, "<u4"),)),
    "signed": Quirk((pixels(lambda p: p, "<i2"),)),
    "signed, 12 of 16 bits": Quirk((pixels(lambda p: p, "<i2", **TWELVE),)),
    "signed, with negatives": Quirk((pixels(lambda p: p - 1.0, "<i2"),), refused=("negative", RAW)),
    # ---- counts that are none
    "doubled": Quirk((pixels(lambda p: 2 * p),), refused=("smoothed or rescaled", RAW)),
    "smoothed": Quirk(
        (pixels(lambda p: gaussian_filter(p, (0, 1, 1))),), refused=("smoothed or rescaled", RAW)
    ),
    "an empty frame": Quirk(
        (pixels(lambda p: p * np.array([1, 0], np.uint16)[:, None, None]),),
        refused=("frame 2 holds no counts", "again"),
    ),
    "no pixels": Quirk((put(PixelData=None),), refused=("no pixels", "again")),
    "short pixels": Quirk(
        (lambda ds: setattr(ds, "PixelData", ds.PixelData[:-2]),), refused=("instead of 12288", "again")
    ),
    "a frame too few stated": Quirk((put(NumberOfFrames=1),), refused=("instead of 6144", "again")),
    "rows that are no number": Quirk(
        (lambda ds: ds.add_new("Rows", "LO", "many"),), refused=("its Rows is no whole number", "again")
    ),
    "no rows": Quirk((put(Rows=None),), refused=(r"\(2, 0, 48\)", "again")),
    "more pixels than a memory holds": Quirk(
        (run_lengths, put(Rows=65535, Columns=65535)), refused=("more than a whole-body scan", "whole-body")
    ),
    # ---- transfer syntaxes
    "implicit": Quirk(encode=stored_as(ImplicitVRLittleEndian)),
    "big-endian": Quirk((big_endian_bytes,), encode=stored_as(ExplicitVRBigEndian)),
    "deflated": Quirk(encode=stored_as(DeflatedExplicitVRLittleEndian)),
    "no preamble, implicit": Quirk(encode=without_preamble(implicit=True)),
    "no preamble, explicit": Quirk(encode=without_preamble(implicit=False)),
    "no preamble, big-endian": Quirk(
        (big_endian_bytes,), encode=without_preamble(implicit=False, little=False)
    ),
    "RLE": Quirk((run_lengths,)),
    "JPEG-LS": Quirk((packed(JPEGLSLossless, jpeg_ls_stream),)),
    "JPEG 2000": Quirk((packed(JPEG2000Lossless, jpeg_2000),)),
    "JPEG-LS, a frame too few stated": Quirk(
        (packed(JPEGLSLossless, jpeg_ls_stream), put(NumberOfFrames=1)),
        refused=("2 compressed frames instead of 1", "again"),
    ),
    "JPEG 2000, other rows stated": Quirk(
        (packed(JPEG2000Lossless, jpeg_2000), put(Rows=48, Columns=64)),
        refused=("48 x 64 pixels, the compressed frame 64 x 48", "again"),
    ),
    "lossy: JPEG": Quirk((packed(JPEGBaseline8Bit, jpeg),), refused=LOSSY),
    "lossy: JPEG, 12 bits": Quirk((packed(JPEGExtended12Bit, jpeg),), refused=LOSSY),
    "lossy: JPEG 2000": Quirk((packed(JPEG2000, lambda f: jpeg_2000(f, True)),), refused=LOSSY),
    "lossy: JPEG-LS": Quirk((packed(JPEGLSNearLossless, lambda f: jpeg_ls_stream(f, 1)),), refused=LOSSY),
    "lossy: JPEG 2000 that claims to be lossless": Quirk(
        (packed(JPEG2000Lossless, lambda f: jpeg_2000(f, True)),), refused=("lossily compressed", RAW)
    ),
    "lossy: JPEG-LS that claims to be lossless": Quirk(
        (packed(JPEGLSLossless, lambda f: jpeg_ls_stream(f, 1)),), refused=("lossily compressed", RAW)
    ),
    "lossy once": Quirk((put(LossyImageCompression="01"),), refused=("lossily compressed", RAW)),
    "JPEG Lossless": Quirk((packed(JPEGLossless, lambda f: jpeg_lossless(f, 6)),)),
    "JPEG Lossless, first-order prediction": Quirk((packed(JPEGLosslessSV1, jpeg_lossless),)),
    "lossy: JPEG that claims to be lossless": Quirk(
        (packed(JPEGLosslessSV1, jpeg),), refused=("no JPEG Lossless stream", "again")
    ),
    "lossy: JPEG Lossless without its lowest bit": Quirk(
        (packed(JPEGLosslessSV1, lambda f: jpeg_lossless(f, dropped=1)),), refused=("lossily compressed", RAW)
    ),
    "JPEG Lossless that is cut": Quirk(
        (packed(JPEGLosslessSV1, lambda f: jpeg_lossless(f)[:-500]),), refused=("end early", "again")
    ),
    "GE's private transfer syntax": Quirk(
        (lambda ds: setattr(ds.file_meta, "TransferSyntaxUID", "1.2.840.113619.5.2"),),
        encode=lambda ds, path: ds.save_as(path, implicit_vr=True, little_endian=True, force_encoding=True),
        refused=(r"stored as GE Private Implicit VR Big Endian \(1.2.840.113619.5.2\), which", PLAIN),
    ),
    "HTJ2K, which nothing here decodes": Quirk((packed(HTJ2KLossless, jpeg_2000),), refused=LOSSY),
}
