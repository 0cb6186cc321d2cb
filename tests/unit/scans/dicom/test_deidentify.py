"""De-identification: what must go is gone, what must stay is untouched, and the last look misses nothing.

Judges that are not ours: the table of PS3.15 as dicom-anonymizer keeps it, pydicom's CID 7050,
dciodvfy and dcmdump.
"""

import hashlib
import hmac
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicomanonymizer.dicom_anonymization_databases import dicomfields_2026c as table
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from judges import judge
from nm_files import NM, poisson, write_nm
from PIL import Image
from pydicom import Dataset, FileDataset
from pydicom.datadict import DicomDictionary, dictionary_VR, tag_for_keyword
from pydicom.encaps import encapsulate
from pydicom.sr.codedict import codes
from pydicom.tag import Tag
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, SecondaryCaptureImageStorage

from rbs.degradation.thinning import Thinning
from rbs.errors import ScanError
from rbs.scans.dicom import deidentify as module
from rbs.scans.dicom.deidentify import LONGEST_SHIFT, METHODS, Deidentified, Pseudonyms, deidentify
from rbs.scans.dicom.deidentify_check import survivors
from rbs.scans.dicom.deidentify_rules import CODED, EMPTIED, KEPT, PHRASES, TERMS, WORDS, meaning_of
from rbs.scans.dicom.reader import read_nm
from rbs.scans.dicom.writer import Derivation, encoded, write_restored_nm, write_thinned_nm
from rbs.scans.scan import View

KEY = Pseudonyms(bytes(range(32)))
DETECTORS = "DetectorInformationSequence"
Plant = Callable[[Dataset], object]


def cleaned(path: Path, key: Pseudonyms = KEY) -> Dataset:
    """The de-identified object as a reader of its file sees it; nothing removed may be left in it."""
    done = deidentify(path, key)
    content = encoded(done.dataset)
    assert survivors(content, done) == []
    target = path.with_name(f"{path.stem}_clean.dcm")
    target.write_bytes(content)
    return pydicom.dcmread(target)


def header_bytes(ds: Dataset) -> bytes:
    """The file of a data set without its pixels, in lower case."""
    content = encoded(ds)
    return content.replace(ds.PixelData, b"").lower()


def private(
    group: int, creator: str, vr: str, value: object, element: int = 0x40
) -> Callable[[Dataset], None]:
    def plant(ds: Dataset) -> None:
        ds.private_block(group, creator, create=True).add_new(element, vr, value)

    return plant


def planted(path: Path, *plants: Plant, **changes: object) -> Path:
    write_nm(path, poisson(), **changes)
    ds = pydicom.dcmread(path)
    for plant in plants:
        plant(ds)
    ds.save_as(path)
    return path


# ---- the rules against the standard


def test_what_stays_is_what_the_profile_with_its_options_lets_stay() -> None:
    """Whatever stays of what PS3.15 E.1-1 lists is a date, a UID, emptied, cleaned or kept by an option."""
    listed = {tuple(tag) for tag in table.ALL_TAGS if len(tag) == 2}
    assert len(listed) > 600
    kept = KEPT | CODED | EMPTIED | TERMS.keys() | WORDS.keys() | PHRASES.keys() | {"PatientAge"}
    tags = {name: Tag(tag_for_keyword(name) or 0) for name in kept}
    assert 0 not in tags.values(), "a keyword is misspelt"
    named = {name for name, tag in tags.items() if (tag.group, tag.element) in listed}
    by_form = {name for name in named & KEPT if dictionary_VR(tags[name]) in ("DA", "DT", "TM", "UI")}
    characteristics = {"PatientAge", "PatientSex", "PatientSize", "PatientWeight"}  # 113108
    references = {"SourceImageSequence", "ReferencedImageSequence"}  # their UIDs are replaced
    descriptors = {"SeriesDescription", "DerivationDescription", "ImageComments"}  # 113105
    assert named - by_form - characteristics - references - EMPTIED == descriptors
    assert descriptors <= PHRASES.keys()


def test_what_is_kept_as_a_number_can_hold_no_text() -> None:
    vrs = {dictionary_VR(tag_for_keyword(name)) for name in KEPT}
    assert vrs <= {"UI", "DA", "DT", "TM", "DS", "IS", "US", "US or SS", "FD", "AT", "SQ"}
    assert {dictionary_VR(tag_for_keyword(name)) for name in CODED} == {"SQ"}


def test_methods_are_coded_as_cid_7050_says() -> None:
    known = {(c.value, c.scheme_designator, c.meaning) for c in codes.cid7050.concepts.values()}
    assert len(known) == 13
    assert set(METHODS) <= known


def test_codes_are_known_by_today_s_and_yesterday_s_schemes() -> None:
    assert meaning_of("399321004", "SCT") == meaning_of("G-5215", "SNM3") == "Anterior projection"
    assert meaning_of("4711", "SCT") is None
    assert meaning_of("4711", "99SMITH") is None


# ---- what stays


def test_pixels_and_facts_stay(nm_file: Path, tmp_path: Path) -> None:
    source, path = pydicom.dcmread(nm_file), tmp_path / "a.dcm"
    shutil.copy(nm_file, path)
    clean = cleaned(path)
    assert clean.PixelData == source.PixelData
    for name in (
        *(
            "CountsAccumulated",
            "PixelSpacing",
            "ScanVelocity",
            "ActualFrameDuration",
            "ImageType",
            "SOPClassUID",
        ),
        *("PatientSex", "PatientAge", "PatientSize", "PatientWeight", "StudyTime", "AcquisitionTime"),
        *("EnergyWindowInformationSequence", "RadiopharmaceuticalInformationSequence", DETECTORS),
    ):
        assert clean[name] == source[name], name
    before, after = read_nm(nm_file), read_nm(path.with_name("a_clean.dcm"))
    np.testing.assert_array_equal(after.counts, before.counts)
    assert (after.views, after.velocity, after.spacing_mm) == (
        before.views,
        before.velocity,
        before.spacing_mm,
    )
    assert clean.PatientIdentityRemoved == "YES"
    assert clean.LongitudinalTemporalInformationModified == "MODIFIED"
    assert [item.CodeValue for item in clean.DeidentificationMethodCodeSequence] == [m[0] for m in METHODS]


def compress(ds: FileDataset, stream: bytes) -> None:
    ds.PixelData = encapsulate([stream])
    ds["PixelData"].is_undefined_length = True
    ds.file_meta.TransferSyntaxUID = JPEG2000Lossless


def test_compressed_pixels_are_written_plainly(tmp_path: Path) -> None:
    """A compressed stream has room for comments, as JPEG 2000's."""
    stream, pixels = BytesIO(), poisson()[0].astype("u2")
    Image.fromarray(pixels).save(stream, "JPEG2000", irreversible=False, comment="Anderssen")
    assert b"Anderssen" in stream.getvalue()
    path = planted(tmp_path / "a.dcm", lambda ds: compress(ds, stream.getvalue()))
    clean = cleaned(path)
    assert clean.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert clean.PixelData == pixels.astype("<u2").tobytes()


def test_overlays_in_unused_bits_are_gone(tmp_path: Path) -> None:
    """Old cameras drew text into the bits above those of the counts."""
    counts = poisson()
    drawn = counts.astype("<u2") | np.uint16(0x8000)
    path = write_nm(tmp_path / "a.dcm", counts, BitsStored=12, HighBit=11, PixelData=drawn.tobytes())
    assert cleaned(path).PixelData == counts.astype("<u2").tobytes()


def test_eight_bits(tmp_path: Path) -> None:
    counts = np.minimum(poisson(rows=33, columns=31), 255)
    path = write_nm(
        tmp_path / "a.dcm",
        counts,
        BitsAllocated=8,
        BitsStored=8,
        HighBit=7,
        PixelData=counts.astype("u1").tobytes() + b"\0",
    )
    assert cleaned(path).PixelData == counts.astype("u1").tobytes() + b"\0"


def test_own_objects_are_still_known(acquired, nm_file: Path, tmp_path: Path) -> None:
    scan = read_nm(nm_file)
    fast = scan.with_counts(Thinning(0.5)(scan.counts, np.random.default_rng(0)), velocity=80.0)
    said = "50 % of the counts of a 40 cm/min scan, kept by binomial thinning, seed 0"
    write_thinned_nm(tmp_path / "t.dcm", fast, scan, description=said, uid_seed="t")
    clean = cleaned(tmp_path / "t.dcm")
    assert clean.DerivationDescription == said
    assert clean.SeriesDescription == "thinned SIMULATED"
    assert clean.CodingSchemeIdentificationSequence[0].CodingSchemeDesignator == "99RBS"
    np.testing.assert_array_equal(
        read_nm(tmp_path / "t_clean.dcm").counts, fast.counts
    )  # DERIVED, yet accepted

    restored = scan.with_counts(scan.counts * 1.9, velocity=20.0)
    by = Derivation("NAFNet secret_ward.safetensors", "0.1.0", "5a" * 32)  # may begin with a digit
    write_restored_nm(tmp_path / "r.dcm", restored, scan, derivation=by)
    source, clean = pydicom.dcmread(tmp_path / "r.dcm"), cleaned(tmp_path / "r.dcm")
    assert clean.RealWorldValueMappingSequence == source.RealWorldValueMappingSequence
    assert clean.ImageComments == source.ImageComments == "Research use only. Not for diagnostic use."
    assert clean.ContentQualification == "RESEARCH"
    assert f"weights sha256 {'5a' * 32}; pixel value = 1000 x counts" in clean.DerivationDescription
    assert b"secret_ward" not in header_bytes(clean)
    assert clean.SourceImageSequence[0].ReferencedSOPInstanceUID == KEY.uid(scan.provenance.sop_instance_uid)
    with pytest.raises(ScanError, match="derived"):
        read_nm(tmp_path / "r_clean.dcm")


def test_a_restoration_on_finer_pixels_still_says_so(tmp_path: Path) -> None:
    scan = read_nm(write_nm(tmp_path / "in.dcm", poisson()))
    row, column = scan.spacing_mm
    finer = replace(
        scan,
        counts=np.repeat(np.repeat(scan.counts / 2, 2, axis=1), 2, axis=2),
        spacing_mm=(row / 2, column / 2),
        velocity=20.0,
    )
    by = Derivation("NAFNet secret_ward.safetensors", "0.1.0", "5a" * 32)
    write_restored_nm(tmp_path / "r.dcm", finer, scan, derivation=by)
    source, clean = pydicom.dcmread(tmp_path / "r.dcm"), cleaned(tmp_path / "r.dcm")
    assert clean.SeriesDescription == "restored x2 RESEARCH"
    _, between, said = source.DerivationDescription.partition("x counts; each pixel of ")
    assert "cut into 2 x 2 of" in said
    assert clean.DerivationDescription.endswith(between + said)
    assert "secret_ward" not in clean.DerivationDescription


def test_it_is_idempotent_but_for_the_pseudonyms(tmp_path: Path) -> None:
    clean = cleaned(write_nm(tmp_path / "a.dcm", poisson()))
    again = cleaned(tmp_path / "a_clean.dcm")
    assert again.PatientID != clean.PatientID
    assert {e.tag for e in again} == {e.tag for e in clean}


# ---- identifiers among numbers


def in_detector(keyword: str, value: object) -> Plant:
    return lambda ds: setattr(ds[DETECTORS][0], keyword, value)


PLACES: list[tuple[str, object]] = [
    *(("SeriesNumber", "0447110815"), ("AcquisitionNumber", "447110815"), ("InstanceNumber", "447110815")),
    *(("WindowCenter", "447110815"), ("WindowWidth", ["1", "447110815.5"]), ("RescaleSlope", "1.447110815")),
    *(("RescaleIntercept", "-4.47110815E8"), ("ScanLength", "447110815"), ("TableHeight", "44711.0815")),
    *(("ImagesInAcquisition", "447110815"), ("PatientWeight", "447110815"), ("PatientSize", "0.447110815")),
    *(("ActualFrameDuration", "447110815"), ("CountRate", "447110815"), ("TableTraverse", "447110815")),
    *(("WindowCenter", ["4471", "10815"]), ("StudyTime", "080000.447111"), ("ScanVelocity", "6.447110815")),
    *(("CountsAccumulated", "447110815"), ("LossyImageCompressionRatio", "447110815")),
    ("AcquisitionDateTime", "20260101093000.447111"),
]


@pytest.mark.parametrize(("keyword", "value"), PLACES, ids=[f"{k} {v}" for k, v in PLACES])
@pytest.mark.parametrize("holder", ["PatientID", "AccessionNumber", "OtherPatientIDs", "PatientName"])
def test_identifiers_do_not_stay_as_numbers(tmp_path: Path, keyword: str, value: object, holder: str) -> None:
    identity = {"PatientID": "P7", holder: "K447111" if keyword.endswith("Time") else "44711-0815"}
    clean = cleaned(write_nm(tmp_path / "a.dcm", poisson(), **identity, **{keyword: value}))
    assert not clean.get(keyword)
    done = deidentify(tmp_path / "a.dcm", KEY)
    assert done.actions[keyword] == "emptied"
    assert [note for note in done.notes if keyword in note]
    assert "4711" not in " ".join(done.notes)


def test_identifiers_do_not_stay_as_numbers_of_items(tmp_path: Path) -> None:
    path = planted(tmp_path / "a.dcm", in_detector("FocalDistance", "471108"), PatientID="471108")
    assert cleaned(path).DetectorInformationSequence[0].FocalDistance is None


def test_nor_in_the_seed_of_a_thinning(tmp_path: Path) -> None:
    said = "50 % of the counts of a 40 cm/min scan, kept by binomial thinning, seed 471108"
    path = write_nm(tmp_path / "a.dcm", poisson(), PatientID="471108", DerivationDescription=said)
    assert not cleaned(path).get("DerivationDescription")


def test_short_identifiers_are_everywhere_and_leave_numbers_alone(tmp_path: Path) -> None:
    """And so do those that the pixels prove: the image would be lost, and they tell nothing."""
    counts = poisson()
    same = {"PatientID": "64", "StudyID": "12", "AccessionNumber": str(counts.sum())}
    path = write_nm(tmp_path / "a.dcm", counts, **same)
    clean, source = cleaned(path), pydicom.dcmread(path)
    for keyword in ("Rows", "Columns", "CountsAccumulated", "PixelSpacing", "ScanVelocity", "SeriesNumber"):
        assert clean[keyword].value == source[keyword].value, keyword


@pytest.mark.parametrize(
    ("keyword", "vr", "digits", "kept"),
    [
        ("SeriesNumber", "IS", "8" * 40, None),
        ("ActualFrameDuration", "IS", f"{'300000.0':<40}", 300000),
        ("WindowCenter", "DS", "2.39761638712345678901234567890123456789", 2.397616387),
    ],
)
def test_numbers_of_more_digits_than_the_standard_allows_are_rounded_or_emptied(
    tmp_path: Path, keyword: str, vr: str, digits: str, kept: float | None
) -> None:
    path = planted(tmp_path / "a.dcm", lambda ds: ds.add_new(tag_for_keyword(keyword), "UT", digits))
    tag = Tag(tag_for_keyword(keyword))
    head = tag.group.to_bytes(2, "little") + tag.element.to_bytes(2, "little")
    content = path.read_bytes()
    long, short = (
        head + b"UT\0\0" + (40).to_bytes(4, "little"),
        head + vr.encode() + (40).to_bytes(2, "little"),
    )
    assert content.count(long) == 1
    path.write_bytes(content.replace(long, short))
    assert cleaned(path).get(keyword) == kept


def test_a_name_spelt_by_numbers_is_found(tmp_path: Path) -> None:
    spelt = list(np.frombuffer(b"Secret^Name ", "<u2"))
    path = write_nm(tmp_path / "a.dcm", poisson(), NumberOfEnergyWindows=spelt)
    assert cleaned(path).NumberOfEnergyWindows is None  # one number at most
    done = deidentify(write_nm(tmp_path / "b.dcm", poisson(), EnergyWindowVector=spelt), KEY)
    assert survivors(encoded(done.dataset), done) == ["PatientName"]


def test_the_last_look_finds_an_identifier_among_numbers(tmp_path: Path) -> None:
    done = deidentify(write_nm(tmp_path / "a.dcm", poisson(), PatientID="4711"), KEY)
    done.dataset.SeriesNumber = 4711
    assert survivors(encoded(done.dataset), done) == ["SeriesNumber"]


# ---- pseudonyms, UIDs and dates


def test_the_key_decides() -> None:
    identity = ("id", "4711", "")
    digest = hmac.new(bytes(range(32)), b"patient\0id\x004711\0", hashlib.sha256).digest()
    assert KEY.patient(*identity) == f"P{int.from_bytes(digest, 'big') % 10**16:016d}"
    other = Pseudonyms(bytes(32))
    assert other.patient(*identity) != KEY.patient(*identity)
    assert other.uid("1.2.3") != KEY.uid("1.2.3") == Pseudonyms(bytes(range(32))).uid("1.2.3")
    shifts = {KEY.days("id", str(number), "") for number in range(500)}
    assert min(shifts) >= 1
    assert max(shifts) <= LONGEST_SHIFT
    assert len(shifts) > 400


def test_files_of_a_patient_belong_together(tmp_path: Path) -> None:
    study = "1.2.3.4"
    first = write_nm(tmp_path / "a.dcm", poisson(), study=study, PatientID=" p7 ")
    reference = Dataset()
    reference.ReferencedSOPClassUID = NM
    reference.ReferencedSOPInstanceUID = pydicom.dcmread(first).SOPInstanceUID
    series = Dataset()
    series.SeriesInstanceUID, series.ReferencedInstanceSequence = (
        pydicom.dcmread(first).SeriesInstanceUID,
        [reference],
    )
    second = write_nm(
        tmp_path / "b.dcm",
        poisson(),
        study=study,
        PatientID="P7",
        PatientName="Married^Jane",
        StudyDate="20240602",
        SourceImageSequence=[reference],
        ReferencedSeriesSequence=[series],
    )
    a, b = cleaned(first), cleaned(second)
    assert a.PatientID == b.PatientID == str(a.PatientName).rstrip("^")
    assert re.fullmatch(r"P\d{16}", a.PatientID)
    assert a.StudyInstanceUID == b.StudyInstanceUID != study
    assert (
        b.SourceImageSequence[0].ReferencedSOPInstanceUID
        == a.SOPInstanceUID
        == a.file_meta.MediaStorageSOPInstanceUID
    )
    assert b.SourceImageSequence[0].ReferencedSOPClassUID == NM
    assert b.ReferencedSeriesSequence[0].SeriesInstanceUID == a.SeriesInstanceUID
    assert (
        b.ReferencedSeriesSequence[0].ReferencedInstanceSequence[0].ReferencedSOPInstanceUID
        == a.SOPInstanceUID
    )
    between = datetime.strptime(b.StudyDate, "%Y%m%d") - datetime.strptime(a.StudyDate, "%Y%m%d")
    assert between == datetime(2024, 6, 2) - datetime(2024, 1, 2)
    c = cleaned(
        write_nm(tmp_path / "c.dcm", poisson(), study=study, PatientID="P7", IssuerOfPatientID="elsewhere")
    )
    assert c.PatientID != a.PatientID


def test_dates_and_times_within_a_file(tmp_path: Path) -> None:
    tracer = Dataset()
    tracer.RadiopharmaceuticalStartTime = "071500"
    tracer.RadiopharmaceuticalStartDateTime = "20240102071500.5+0100"
    tracer.RadiopharmaceuticalStopDateTime = "202401"
    path = write_nm(
        tmp_path / "a.dcm",
        poisson(),
        SeriesDate="20231231",
        RadiopharmaceuticalInformationSequence=[tracer],
        AcquisitionDateTime="2024010210",
    )
    clean, days = cleaned(path), timedelta(KEY.days("id", "p7", ""))
    study = datetime(2024, 1, 2) - days
    assert clean.StudyDate == f"{study:%Y%m%d}"
    assert clean.SeriesDate == f"{study - timedelta(2):%Y%m%d}"
    assert clean.StudyTime == "101500"
    assert clean.AcquisitionDateTime == f"{study:%Y%m%d}10"
    tracer = clean.RadiopharmaceuticalInformationSequence[0]
    assert tracer.RadiopharmaceuticalStartDateTime == f"{study:%Y%m%d}071500.5+0100"
    assert tracer.RadiopharmaceuticalStartTime == "071500"
    assert tracer.RadiopharmaceuticalStopDateTime == f"{datetime(2024, 1, 1) - days:%Y%m}"


@pytest.mark.parametrize("date", ["20240230", "2024.01.02", "00010101", "SMITH"])
def test_what_is_no_date_is_emptied(tmp_path: Path, monkeypatch, date: str) -> None:
    monkeypatch.setattr(pydicom.config.settings, "writing_validation_mode", pydicom.config.IGNORE)
    assert cleaned(write_nm(tmp_path / "a.dcm", poisson(), SeriesDate=date)).SeriesDate == ""


@pytest.mark.parametrize(
    ("age", "birth", "kept"),
    [
        ("007M", "", "007M"),
        ("012D", "", "012D"),
        ("089Y", "", "089Y"),
        ("090Y", "", "090Y"),
        ("101Y", "", "090Y"),
        ("998M", "", "998M"),  # 83 years
        ("SMIT", "", ""),
        ("", "20230520", "007M"),  # seen on 2024-01-02
        ("", "20180103", "005Y"),
        ("", "19200101", "090Y"),
        ("", "20250101", ""),
        (None, "", None),
    ],
)
def test_ages(tmp_path: Path, monkeypatch, age: str | None, birth: str, kept: str | None) -> None:
    monkeypatch.setattr(pydicom.config.settings, "writing_validation_mode", pydicom.config.IGNORE)
    ages = {} if age is None else {"PatientAge": age}
    path = write_nm(tmp_path / "a.dcm", poisson(), PatientBirthDate=birth, **ages)
    clean = cleaned(path)
    assert clean.get("PatientAge") == kept
    assert clean.PatientBirthDate == ""
    noted = any("above 89" in note for note in deidentify(path, KEY).notes)
    assert noted == (age == "101Y")


def test_without_a_patient_id_the_study_stands_for_the_patient(tmp_path: Path) -> None:
    paths = [
        write_nm(tmp_path / f"{i}.dcm", poisson(), PatientID="", study=f"1.2.{i // 2}") for i in range(3)
    ]
    a, b, c = (cleaned(path).PatientID for path in paths)
    assert a == b != c
    assert "no Patient ID" in deidentify(paths[0], KEY).notes[0]


# ---- what goes

ALIKE = {  # values a hospital's files may well hold; none may survive
    "name": lambda ds: setattr(ds, "PatientName", "Anderssen^Ömer^^Dr."),
    "other names": lambda ds: setattr(ds, "OtherPatientNames", ["Anderssen^O", "Ömer"]),
    "description": lambda ds: setattr(ds, "SeriesDescription", "WB BONE ANT Anderssen"),
    "image id": lambda ds: setattr(ds, "ImageID", "Anderssen ANT"),
    "maker": lambda ds: setattr(ds, "Manufacturer", "GE Anderssen"),
    "window": lambda ds: setattr(ds.EnergyWindowInformationSequence[0], "EnergyWindowName", "Anderssen 140"),
    "collimator": lambda ds: setattr(ds[DETECTORS][0], "CollimatorGridName", "LEHR-Anderssen"),
    "body part": lambda ds: setattr(ds, "BodyPartExamined", "ANDERSSEN"),
    "code": lambda ds: setattr(ds[DETECTORS][0].ViewCodeSequence[0], "CodeMeaning", "Ant Anderssen"),
    "scheme": lambda ds: setattr(ds[DETECTORS][0].ViewCodeSequence[0], "CodingSchemeDesignator", "ANDERSSEN"),
    "own text": lambda ds: setattr(
        ds, "ImageComments", "Research use only. Not for diagnostic use. Anderssen"
    ),
    "overlay": lambda ds: ds.add_new(0x60000022, "LO", "Anderssen"),
    "retired": lambda ds: ds.add_new(0x00104000, "LT", "Anderssen's comments"),
    "curve": lambda ds: ds.add_new(0x50002500, "LO", "Anderssen"),
    "unknown": lambda ds: ds.add_new(0x00080FF1, "UN", b"Anderssen "),
    "trailing padding": lambda ds: ds.add_new(0xFFFCFFFC, "OB", b"Anderssen\0"),
    "private name": private(0x0009, "GEMS_GENIE_1", "PN", "Anderssen^Ömer"),
    "private bytes": private(0x0033, "ACME", "OB", b"\1\2\3Anderssen\0\xff"),
    "private creator": private(0x0033, "ANDERSSEN 1.0", "LO", "x"),
}


@pytest.mark.parametrize("plant", ALIKE.values(), ids=ALIKE)
def test_a_planted_name_does_not_survive(tmp_path: Path, plant) -> None:
    path = planted(tmp_path / "a.dcm", lambda ds: setattr(ds, "SpecificCharacterSet", "ISO_IR 192"), plant)
    assert b"anderssen" in path.read_bytes().lower()
    done = deidentify(path, KEY)
    assert any("anderssen" in text.lower() for _, text in done.removed)  # so that the last look knows it
    clean = cleaned(path)
    assert b"anderssen" not in header_bytes(clean)
    assert "Ömer".encode() not in encoded(clean)
    assert not any(element.tag.is_private for element in clean.iterall())
    assert all("Anderssen" not in action for pair in done.actions.items() for action in pair)


def test_private_sequences_and_file_meta_are_not_carried_over(tmp_path: Path) -> None:
    inner = Dataset()
    private(0x0009, "GEMS_GENIE_1", "PN", "Anderssen^Jane")(inner)
    inner.PatientName = "Anderssen^Jane"
    path = planted(
        tmp_path / "a.dcm",
        private(0x0011, "ACME", "SQ", [inner]),
        lambda ds: setattr(ds[DETECTORS][0], "DetectorID", "Anderssen"),
        lambda ds: ds[DETECTORS][0].update(inner),
        lambda ds: setattr(ds, "preamble", b"Anderssen".ljust(128)),
        lambda ds: setattr(ds.file_meta, "SourceApplicationEntityTitle", "ANDERSSEN"),
    )
    clean = cleaned(path)
    assert b"anderssen" not in header_bytes(clean)
    actions = deidentify(path, KEY).actions
    assert actions["(0011,1040)"] == actions[f"{DETECTORS} > (0009,1040)"] == "removed"
    assert actions[f"{DETECTORS} > DetectorID"] == actions[f"{DETECTORS} > PatientName"] == "removed"


def test_private_elements_of_implicit_files(tmp_path: Path) -> None:
    """There they have no type: bytes of which nobody says that they are a name."""
    path = planted(tmp_path / "a.dcm", private(0x0009, "ACME OWN", "PN", "Anderssen^Jane"))
    ds = pydicom.dcmread(path)
    ds.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
    pydicom.dcmwrite(path, ds, implicit_vr=True, little_endian=True, enforce_file_format=True)
    assert b"anderssen" not in header_bytes(cleaned(path))
    assert ("(0009,1040)", "Anderssen^Jane") in deidentify(path, KEY).removed


TEXTS = {"AE", "AS", "CS", "DA", "DT", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UI", "UR", "UT"}
TEXT_KEYWORDS = sorted(
    row[4] for tag, row in DicomDictionary.items() if row[0] in TEXTS and row[4] and tag >> 16 > 7
)
KEPT_KEYWORDS = sorted(
    name
    for name in KEPT | TERMS.keys() | WORDS.keys() | PHRASES.keys() | EMPTIED
    if dictionary_VR(tag_for_keyword(name)) in TEXTS
)
SEQUENCES = sorted(row[4] for row in DicomDictionary.values() if row[0] == "SQ" and row[4])
KEPT_SEQUENCES = sorted(CODED | {name for name in KEPT if name.endswith("Sequence")})
PLACES = st.lists(st.sampled_from(SEQUENCES) | st.sampled_from(KEPT_SEQUENCES), max_size=3)
REFUSED = {"ImageType", "Modality", "BurnedInAnnotation", "PhotometricInterpretation", "TransferSyntaxUID"}
LETTERS = st.text("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZäéøñß'-^ ", min_size=5, max_size=16)


@given(
    name=LETTERS,
    keyword=st.sampled_from(TEXT_KEYWORDS) | st.sampled_from(KEPT_KEYWORDS),
    places=PLACES,
    group=st.integers(0x0009, 0x00FF).map(lambda n: n | 1),
)
@example("Anderssen", "CodeMeaning", ["DetectorInformationSequence", "ViewCodeSequence"], 0x0009)
@example("Anderssen", "LUTExplanation", ["RealWorldValueMappingSequence"], 0x0009)
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.filterwarnings("ignore:Invalid value")
def test_no_name_survives_anywhere(
    tmp_path: Path, name: str, keyword: str, places: list[str], group: int
) -> None:
    parts = [part for part in re.findall(r"[^\W_]+", name) if len(part) >= 3]
    assume(parts)
    path = write_nm(tmp_path / "a.dcm", poisson(rows=16, columns=16), SpecificCharacterSet="ISO_IR 192")
    before = header_bytes(deidentify(path, KEY).dataset)
    # Where the letters of the name are in every file, as those of "ant", nothing can be told.
    assume(not any(part.lower().encode() in before for part in parts))
    ds = pydicom.dcmread(path)
    mode, pydicom.config.settings.writing_validation_mode = (
        pydicom.config.settings.writing_validation_mode,
        pydicom.config.IGNORE,
    )
    try:
        item: Dataset = ds
        for place in places:
            if not item.get(place):
                setattr(item, place, [Dataset()])
            item = item[place][0]
        setattr(item, keyword, name)
        block = item.private_block(group, "ACME", create=True)
        block.add_new(1, "LO", name)
        block.add_new(2, "UN", name.encode())
        ds.save_as(path)
    finally:
        pydicom.config.settings.writing_validation_mode = mode
    try:
        done = deidentify(path, KEY)
    except ScanError:
        assert not places
        assert keyword in REFUSED | {"SOPClassUID"}
        return
    after = header_bytes(done.dataset)
    for part in parts:
        assert part.lower().encode() not in after
        assert part.encode() not in after
        assert part.encode("latin-1") not in after
    assert survivors(encoded(done.dataset), done) == []


# ---- views

TEXT_VIEWS = {
    "image id": ({"ImageID": "WB POST"}, ("posterior",)),
    "series": ({"SeriesDescription": "Anderssen ANT 3h"}, ("anterior",)),
}


@pytest.mark.parametrize(("texts", "views"), TEXT_VIEWS.values(), ids=TEXT_VIEWS)
def test_views_named_by_texts_are_coded(tmp_path: Path, texts: dict, views: tuple[str, ...]) -> None:
    path = write_nm(tmp_path / "a.dcm", poisson(), views=("",), **texts)
    cleaned(path)
    scan = read_nm(tmp_path / "a_clean.dcm")
    assert scan.views == views
    assert scan.provenance.view_rule == "ViewCodeSequence"
    assert deidentify(path, KEY).actions[f"{DETECTORS} > ViewCodeSequence"] == "coded from a text"


def test_views_of_private_names_without_detectors(tmp_path: Path) -> None:
    path = write_nm(tmp_path / "a.dcm", poisson(2), views=("", ""), DetectorInformationSequence=None)
    ds = pydicom.dcmread(path)
    private(0x0009, "ACME", "LO", ["POSTERIOR Anderssen", "ANTERIOR Anderssen"])(ds)
    ds.save_as(path)
    cleaned(path)
    scan = read_nm(tmp_path / "a_clean.dcm")
    assert scan.views == (View.POSTERIOR, View.ANTERIOR)
    assert scan.provenance.view_rule == "ViewCodeSequence"


def test_views_of_two_energy_windows(tmp_path: Path) -> None:
    meaning = [Dataset(), Dataset()]
    for item, text in zip(meaning, ("Anterior", "Posterior"), strict=True):
        code = Dataset()
        code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "1", "99ACME", text
        item.ViewCodeSequence = [code]
    path = write_nm(
        tmp_path / "a.dcm",
        poisson(4),
        views=("", "", "", ""),
        EnergyWindowVector=[1, 1, 2, 2],
        NumberOfEnergyWindows=2,
        DetectorVector=[1, 2, 1, 2],
        DetectorInformationSequence=meaning,
    )
    cleaned(path)
    scan = read_nm(tmp_path / "a_clean.dcm", energy_window=2)
    assert scan.views == (View.ANTERIOR, View.POSTERIOR)


def test_a_guess_is_not_made_a_code(tmp_path: Path) -> None:
    path = write_nm(tmp_path / "a.dcm", poisson(), views=("",))
    ds = pydicom.dcmread(path)
    ds[DETECTORS][0].StartAngle = "180"
    ds.save_as(path)
    assert not cleaned(path)[DETECTORS][0].ViewCodeSequence
    assert read_nm(tmp_path / "a_clean.dcm").provenance.view_rule == "StartAngle"


# ---- refusals


def spoil(name: str, value: object) -> Callable[[FileDataset], None]:
    return lambda ds: setattr(ds, name, value)


REFUSALS = {
    "burnt in": (spoil("BurnedInAnnotation", "YES"), "BurnedInAnnotation"),
    "other modality": (spoil("Modality", "OT"), "no Nuclear Medicine image"),
    "no pixels": (lambda ds: ds.pop("PixelData"), "no Nuclear Medicine image"),
    "tomography": (spoil("ImageType", ["ORIGINAL", "PRIMARY", "TOMO", "EMISSION"]), "no whole-body"),
    "capture": (
        lambda ds: (
            setattr(ds, "SOPClassUID", SecondaryCaptureImageStorage),
            setattr(ds, "CountsAccumulated", 1),
        ),
        "nothing was drawn",
    ),
    "no identity": (lambda ds: (ds.pop("PatientID"), ds.pop("StudyInstanceUID")), "nobody can tell"),
    "no instance": (spoil("SOPInstanceUID", ""), "SOP Instance UID"),
    "unknown class": (spoil("SOPClassUID", "1.2.3"), "SOP Class UID"),
    "truncated": (lambda ds: setattr(ds, "PixelData", ds.PixelData[:100]), "truncated"),
    "colour": (spoil("PhotometricInterpretation", "PALETTE COLOR"), "colour"),
}


@pytest.mark.parametrize(("spoil", "fault"), REFUSALS.values(), ids=REFUSALS)
def test_refusals(tmp_path: Path, spoil, fault: str) -> None:
    path = planted(tmp_path / "a.dcm", spoil)
    with pytest.raises(ScanError, match=fault) as refused:
        deidentify(path, KEY)
    assert "Secret" not in str(refused.value)


def test_an_nm_image_stored_as_a_capture_is_taken_if_its_counts_prove_it_untouched(tmp_path: Path) -> None:
    path = planted(tmp_path / "a.dcm", spoil("SOPClassUID", SecondaryCaptureImageStorage))
    assert cleaned(path).SOPClassUID == SecondaryCaptureImageStorage


def test_a_file_that_is_no_dicom(tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_text("Anderssen")
    with pytest.raises(ScanError, match="not a DICOM file"):
        deidentify(tmp_path / "a.dcm", KEY)


# ---- the last look


def looked(tmp_path: Path, **changes: object) -> tuple[bytes, Deidentified]:
    done = deidentify(write_nm(tmp_path / "a.dcm", poisson(), **changes), KEY)
    return encoded(done.dataset), done


def test_the_last_look_sees_a_rule_that_lets_a_name_through(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(module.PHRASES, "SeriesDescription", re.compile("(.*)"))
    content, done = looked(tmp_path, SeriesDescription="for Dr. SECRET")
    assert "PatientName" in survivors(content, done)
    assert "SECRET" not in str(survivors(content, done))


@pytest.mark.parametrize(
    ("where", "value", "found"),
    [
        ("StudyDescription", "secret's scan", ["PatientName"]),
        ("StudyDescription", "xSECRETx", ["PatientName"]),
        ("StudyDescription", "Müller", ["characters beyond ASCII"]),
        ("StudyID", "A-4711-B", ["AccessionNumber"]),
        ("StudyID", "Kim", ["ReferringPhysicianName"]),
        ("StudyID", "Kimono", []),
        ("StudyID", "471", []),
        ("StationName", "ANTERIOR", []),
    ],
)
def test_what_the_last_look_finds(tmp_path: Path, where: str, value: str, found: list[str]) -> None:
    _, done = looked(tmp_path, AccessionNumber="A-4711-B", ReferringPhysicianName="Kim^Jo")
    done.dataset.SpecificCharacterSet = "ISO_IR 100"
    setattr(done.dataset, where, value)
    assert survivors(encoded(done.dataset), done) == found


def test_the_last_look_sees_bytes_outside_the_elements(tmp_path: Path) -> None:
    content, done = looked(tmp_path)
    assert survivors(content, done) == []
    assert survivors(b"Secret" + content[6:], done) == ["bytes outside its elements"]


@pytest.mark.parametrize("name", ["Ante^Poster", "Bone^Ann", "P^Ed", "Kim^Bo", "Lee^One"])
def test_the_last_look_does_not_cry_wolf_over_short_and_common_names(tmp_path: Path, name: str) -> None:
    for number in ("1024", "101500", "20240102", "16", "300000"):
        content, done = looked(
            tmp_path,
            PatientName=name,
            PatientID=number,
            StudyID=number,
            AccessionNumber=number,
            InstitutionName="GE",
        )
        assert survivors(content, done) == []


@pytest.mark.parametrize("kind", ["WHOLE BODY", "WHOLEBODY", "STATIC"])
def test_what_the_reader_takes_for_a_whole_body_scan_stays_one(tmp_path: Path, kind: str) -> None:
    kinds = ["ORIGINAL", "PRIMARY", kind, "EMISSION"]
    assert cleaned(planted(tmp_path / "a.dcm", ImageType=kinds)).ImageType == kinds


# ---- judges and real files


def complaints(path: Path) -> set[str]:
    """What dciodvfy says, but for the Study ID: the profile empties it, and a DICOMDIR would need it."""
    said = subprocess.run([judge("dciodvfy"), str(path)], capture_output=True, check=False).stderr.decode(
        "latin-1"
    )
    return {line for line in said.splitlines() if "needed to build DICOMDIR - Study ID" not in line}


def errors(path: Path) -> set[str]:
    return {line for line in complaints(path) if line.startswith("Error")}


def test_outputs_conform_as_their_inputs_do(nm_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.dcm"
    shutil.copy(nm_file, path)
    cleaned(path)
    assert complaints(tmp_path / "a_clean.dcm") <= complaints(path)
    camera = planted(
        tmp_path / "b.dcm",
        *ALIKE.values(),
        BodyPartExamined="ABDOMEN",
        StudyDescription="Anderssen",
    )
    cleaned(camera)
    assert complaints(tmp_path / "b_clean.dcm") <= complaints(camera)


def test_dcmdump_reads_it(tmp_path: Path) -> None:
    dcmdump = judge("dcmdump")
    cleaned(planted(tmp_path / "a.dcm", *ALIKE.values()))
    dumped = subprocess.run([dcmdump, tmp_path / "a_clean.dcm"], capture_output=True, text=True, check=True)
    assert "113107" in dumped.stdout
    assert "nderssen" not in dumped.stdout + dumped.stderr
    assert not re.search(r"^\([0-9a-f]{3}[13579bdf],", dumped.stdout, re.MULTILINE)


def test_the_public_scan(real_scan: Path, tmp_path: Path) -> None:
    """With GE's private name, which the original still held, though it said PatientIdentityRemoved YES."""
    ds = pydicom.dcmread(real_scan)
    private(0x0009, "GEMS_GENIE_1", "PN", "Anderssen^Jane")(ds)
    ds.ImageID = "ANT WB"
    path = tmp_path / "a.dcm"
    ds.save_as(path)
    clean = cleaned(path)
    assert b"anderssen" not in header_bytes(clean)
    before = read_nm(path)
    after = read_nm(tmp_path / "a_clean.dcm")
    np.testing.assert_array_equal(after.counts, before.counts)
    assert (before.views, before.provenance.view_rule) == (after.views, "ImageID")
    assert after.provenance.view_rule == "ViewCodeSequence"
    assert (after.velocity, after.spacing_mm, after.duration_s) == (
        before.velocity,
        before.spacing_mm,
        before.duration_s,
    )
    assert clean.ManufacturerModelName == "MILLENNIUM MG"
    # Stored as a capture, for which the checker warns of the detector that now holds the view.
    assert errors(tmp_path / "a_clean.dcm") <= errors(path)
