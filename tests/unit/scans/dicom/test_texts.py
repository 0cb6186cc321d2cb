"""Text that is not meant to change keeps its bytes, whatever character set the file states."""

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from nm_files import poisson, write_nm
from pydicom import Dataset
from pydicom.charset import CODES_TO_ENCODINGS, python_encoding
from pydicom.uid import UID, ExplicitVRBigEndian, ImplicitVRLittleEndian

from rbs.errors import ScanError
from rbs.scans.dicom.deidentify import Pseudonyms, deidentify
from rbs.scans.dicom.deidentify_check import survivors
from rbs.scans.dicom.reader import read_nm
from rbs.scans.dicom.writer import (
    Derivation,
    PatientHeader,
    encoded,
    write_deviation_nm,
    write_recovered_nm,
    write_restored_nm,
    write_thinned_nm,
)
from rbs.scans.scan import Scan, View

quick = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
MADE_BY = Derivation("f1", "0.1.0", "ab" * 32)
KEY = Pseudonyms(bytes(32))

CHARACTER_SETS = [name for name in python_encoding if name]
ESCAPES = list(CODES_TO_ENCODINGS)
TEXTS = ("PatientID", "PatientName", "IssuerOfPatientID", "OtherPatientNames", "StudyDescription", "StudyID")
TEXTS += ("AccessionNumber", "ReferringPhysicianName", "PatientComments", "InstitutionAddress")

# Bytes of any kind between the escape sequences that select a character set; a value ends with
# neither a space nor a zero, which are padding.
pieces = st.binary(min_size=1, max_size=6) | st.sampled_from([*ESCAPES, b"\\", b"^", b"=", b"M\xfcller"])
values = st.lists(pieces, min_size=1, max_size=5).map(b"".join)
several = st.lists(st.sampled_from(CHARACTER_SETS), min_size=1, max_size=3)
character_sets = st.sampled_from(CHARACTER_SETS) | st.tuples(several, st.booleans()).map(
    lambda drawn: ["", *drawn[0]] if drawn[1] else drawn[0]
)


def nm_with(path: Path, character_set: str | list[str], inner: str | list[str], value: bytes) -> Path:
    """An NM file whose texts, those of nested items too, all hold `value`.

    Written with placeholders, which are then replaced in the file, so that no library takes part.
    """
    mark = "#" * len(value)
    sets = {"outer": character_set, "inner": inner}
    stated = {name: "\\".join([text] if isinstance(text, str) else text) for name, text in sets.items()}
    request = Dataset()
    request.SpecificCharacterSet = "%" * len(stated["inner"])
    request.RequestedProcedureDescription = request.RequestedProcedureID = mark
    other = Dataset()
    other.PatientID, other.IssuerOfPatientID = mark, mark
    write_nm(
        path,
        np.full((1, 8, 8), 3),
        SpecificCharacterSet="!" * len(stated["outer"]),
        RequestAttributesSequence=[request],
        OtherPatientIDsSequence=[other],
        **dict.fromkeys(TEXTS, mark),
    )
    content = path.read_bytes()
    assert content.count(mark.encode()) == len(TEXTS) + 4
    content = content.replace(b"!" * len(stated["outer"]), stated["outer"].encode())
    content = content.replace(b"%" * len(stated["inner"]), stated["inner"].encode())
    path.write_bytes(content.replace(mark.encode(), value))
    return path


def stored_texts(ds: Dataset) -> list[bytes]:
    """The bytes of the texts of `nm_with`, as pydicom finds them."""
    texts = [ds.get_item(name).value for name in TEXTS]
    request, other = ds.RequestAttributesSequence[0], ds.OtherPatientIDsSequence[0]
    texts += [request.get_item(name).value for name in ("RequestedProcedureDescription",)]
    texts += [request.get_item("RequestedProcedureID").value]
    return texts + [other.get_item(name).value for name in ("PatientID", "IssuerOfPatientID")]


def derived(folder: Path, source: Scan) -> list[Path]:
    """Everything that is written from the header of a scan."""
    folder.mkdir()
    restored = replace(source, counts=source.counts * 1.9, velocity=20.0)
    write_restored_nm(folder / "restored.dcm", restored, source, derivation=MADE_BY)
    write_deviation_nm(folder / "deviation.dcm", restored, source, derivation=MADE_BY)
    write_thinned_nm(folder / "thinned.dcm", source, source, description="x", uid_seed="1")
    return sorted(folder.iterdir())


@quick
@given(character_sets, character_sets, values)
@example("ISO_IR 192", "ISO_IR 192", b"M\xdc-4711")
@example("ISO_IR 192", "ISO_IR 192", b"M\xfcller^J\xf6rg")
@example("ISO_IR 100", "ISO_IR 100", b"Mueller\x1b(B")
@example(["", "ISO 2022 IR 87"], "ISO_IR 100", b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B")
@example("GB18030", "GBK", b"\x81\\\x81\\1")
@example("ISO 2022 IR 87", "ISO_IR 6", b"^")
def test_the_bytes_of_text_are_carried_over(
    character_set: str | list[str], inner: str | list[str], value: bytes
) -> None:
    padded = value + b" " * (len(value) % 2)
    with tempfile.TemporaryDirectory() as folder:
        path = nm_with(Path(folder, "a.dcm"), character_set, inner, value)
        try:
            source = read_nm(path, require_raw=False)
        except ScanError as error:
            # pydicom cannot decode an empty part of a name where JIS X 0208 is the first character set.
            if "ISO 2022 IR" in str(character_set) and b"^" in value and "PatientName" in error.fault:
                return
            raise
        files = derived(Path(folder, "out"), source)
        assert len(files) == 3
        for file in files:
            ds = pydicom.dcmread(file)
            assert stored_texts(ds) == [padded] * (len(TEXTS) + 4), file.name
            before = pydicom.dcmread(path)
            assert ds.SpecificCharacterSet == before.SpecificCharacterSet
            # What is added is readable in every character set.
            assert ds.ContributingEquipmentSequence[0].Manufacturer == "rbs"


@quick
@given(character_sets, character_sets, values)
@example("ISO_IR 192", "ISO_IR 192", b"M\xdc-4711")
def test_nothing_of_it_survives_de_identification(
    character_set: str | list[str], inner: str | list[str], value: bytes
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        done = deidentify(nm_with(Path(folder, "a.dcm"), character_set, inner, value), KEY)
        content = encoded(done.dataset)
    assert survivors(content, done) == []
    if len(value) > 3 and value.strip(b"\0 ").isalnum():
        assert value not in content.replace(done.dataset.PixelData, b"")


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_the_bytes_are_carried_over_from_every_encoding(tmp_path: Path, syntax: UID) -> None:
    path, mark = tmp_path / "a.dcm", "######"
    write_nm(path, np.full((1, 8, 8), 3), SpecificCharacterSet="ISO_IR 192", **dict.fromkeys(TEXTS, mark))
    ds = pydicom.dcmread(path)
    ds.file_meta.TransferSyntaxUID = syntax
    if syntax == ExplicitVRBigEndian:
        ds.PixelData = np.frombuffer(ds.PixelData, "<u2").astype(">u2").tobytes()
    implicit, little = syntax.is_implicit_VR, syntax.is_little_endian
    pydicom.dcmwrite(path, ds, implicit_vr=implicit, little_endian=little, force_encoding=True)
    path.write_bytes(path.read_bytes().replace(mark.encode(), b"M\xfcll\xe9r"))
    for file in derived(tmp_path / "out", read_nm(path, require_raw=False)):
        ds = pydicom.dcmread(file)
        assert [ds.get_item(name).value for name in TEXTS] == [b"M\xfcll\xe9r"] * len(TEXTS)


def test_patients_whose_ids_cannot_be_decoded_stay_two(tmp_path: Path) -> None:
    first, second = (
        nm_with(tmp_path / f"{number}.dcm", "ISO_IR 192", "ISO_IR 192", value)
        for number, value in enumerate([b"M\xdc-4711", b"M\xc4-4711"])
    )
    assert read_nm(first, require_raw=False).patient_id == "MÜ-4711"
    assert read_nm(second, require_raw=False).patient_id == "MÄ-4711"
    assert deidentify(first, KEY).dataset.PatientID != deidentify(second, KEY).dataset.PatientID


@pytest.mark.parametrize(
    ("character_set", "value", "described"),
    [
        ("ISO_IR 100", "Ganzk\xf6rper".encode("latin-1"), "Ganzkörper"),
        ("ISO_IR 192", "Ganzk\xf6rper".encode("latin-1"), "Whole body"),
        ("ISO_IR 192", "全身".encode(), "全身"),
    ],
)
def test_a_series_is_described_in_its_character_set_or_anew(
    character_set: str, value: bytes, described: str, tmp_path: Path
) -> None:
    path = write_nm(
        tmp_path / "a.dcm", poisson(), SpecificCharacterSet=character_set, SeriesDescription="#" * len(value)
    )
    path.write_bytes(path.read_bytes().replace(b"#" * len(value), value))
    derived(tmp_path / "out", read_nm(path))
    ds = pydicom.dcmread(tmp_path / "out" / "restored.dcm")
    assert ds.SeriesDescription == f"{described} restored RESEARCH"


def test_text_that_is_changed_is_written_as_it_was_changed(tmp_path: Path) -> None:
    source = read_nm(nm_with(tmp_path / "a.dcm", "ISO_IR 192", "ISO_IR 192", b"M\xfc"))
    header = source.provenance.header
    assert header is not None
    header.PatientID = "other"
    derived(tmp_path / "out", source)
    ds = pydicom.dcmread(tmp_path / "out" / "restored.dcm")
    assert ds.PatientID == "other"
    assert ds.get_item("StudyID").value == b"M\xfc"


def test_patients_of_pictures_keep_their_names(tmp_path: Path) -> None:
    scan = Scan(np.ones((1, 8, 8), np.int32), (View.ANTERIOR,), (2.0, 2.0))
    patient = PatientHeader("Müller 測定")
    write_recovered_nm(
        tmp_path / "a.dcm", scan, patient=patient, study_seed="s", uid_seed="u", description="counts"
    )
    assert pydicom.dcmread(tmp_path / "a.dcm").PatientID == "Müller 測定"
