"""Records of DICOM files, by which an index pairs, splits and checks scans without their pixels.

Every file is read once, by two processes, and what was found is kept beside the manifest, a line of
JSON a file, written as the file is read. An interrupted or repeated run goes on from there.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import logging
import multiprocessing
import signal
import sys
import threading
from base64 import b64decode, b64encode
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom import Dataset
from pydicom.valuerep import DA, TM
from tqdm import tqdm

from rbs.data import residuals
from rbs.data.manifest import SEXES
from rbs.data.residuals import Sketch, sketch_of
from rbs.errors import RbsError, printable
from rbs.scans import acceptance as fit
from rbs.scans import counts, facts
from rbs.scans.acceptance import too_few_counts
from rbs.scans.dicom import files as find
from rbs.scans.dicom import pixels as dicom_pixels
from rbs.scans.dicom import reader as dicom
from rbs.scans.dicom import views as dicom_views
from rbs.scans.dicom.files import is_restored
from rbs.scans.dicom.pixels import stored_pixels
from rbs.scans.dicom.reader import read_nm
from rbs.scans.scan import Provenance, Scan, View
from rbs.utils.files import naming, require_regular, whole_file
from rbs.utils.version import VERSION

IN_FLIGHT = 4
"""Files a process is given ahead: it need not wait, and an interrupted run soon ends."""

_DERIVATION = ("DerivationCodeSequence", "DerivationDescription", "SourceImageSequence")
_WHOLE_BODY = ("ScanVelocity", "ScanLength", "WholeBodyTechnique")

# The reader's remedies name options that an index has not.
_REMEDIES = {
    "--view": "name the view of a one-view file with --anterior PATTERN or --posterior PATTERN",
    "--energy-window": "export the window of the 140 keV peak alone",
    "give no view": "narrow --anterior and --posterior to files that do not say, or correct its header",
}

_LOG = logging.getLogger("rbs")


@dataclass(frozen=True)
class FileRecord:
    """A readable file of raw counts, as training would read it.

    Attributes:
        file: The file.
        patient_id: Patient ID; empty without one.
        person: What cannot differ between two files of one patient, if stated: sex, hash of birth
            date.
        study: Study Instance UID.
        instance: SOP Instance UID, empty without one.
        views: One view a frame.
        view_rule: The rule that named them.
        shape: Rows and columns.
        spacing_mm: Row and column spacing, mm.
        velocity: Bed velocity, cm/min; None where the file does not say.
        duration_s: Acquisition time, s; None where the file does not say.
        started: Start of the acquisition; None where the file does not say.
        age_y: Age, years; None where unknown, as all that follow.
        sex: "F", "M" or "O".
        height_cm: Height, cm.
        weight_kg: Weight, kg.
        sketches: Counts of each view in short.
        derivation: What the header says of a simulated scan's making, as DICOM JSON.
    """

    file: Path
    patient_id: str
    person: tuple[str, str]
    study: str
    instance: str
    views: tuple[View, ...]
    view_rule: str
    shape: tuple[int, int]
    spacing_mm: tuple[float, float]
    velocity: float | None
    duration_s: float | None
    started: datetime | None
    age_y: float | None
    sex: str | None
    height_cm: float | None
    weight_kg: float | None
    sketches: tuple[Sketch, ...] = field(repr=False, compare=False)
    derivation: dict[str, Any] = field(repr=False, compare=False)

    @property
    def view_stated(self) -> bool:
        """True if the user named its view."""
        return self.view_rule == "option"

    def scan(self) -> Scan:
        """The counts again, with what the header says of their making.

        Raises:
            ScanError: The file has changed or cannot be read any more.
        """
        with dicom.blaming(self.file):
            stored, _ = dicom.decoded(self.file)
            counts = stored_pixels(stored, self.file)
            header = Dataset.from_json(self.derivation)
        provenance = Provenance(path=self.file, sop_instance_uid=self.instance or None, header=header)
        return Scan(counts, self.views, self.spacing_mm, provenance=provenance)


@dataclass(frozen=True)
class Refusal:
    """A file that is not indexed.

    Attributes:
        file: The file.
        reason: Why not, as a clause.
        remedy: What to do about it, as a clause.
        lasting: Whether it holds as long as the file does not change.
    """

    file: Path
    reason: str
    remedy: str
    lasting: bool = True


Note = FileRecord | Refusal
_Job = tuple[Path, View | None]


def read_notes(
    files: Sequence[Path], views: Mapping[Path, View], cache: Path, *, workers: int, progress: bool
) -> tuple[list[Note], int]:
    """Records of files, read now or noted by an earlier run of the same rules.

    Args:
        files: The files.
        views: The views of those whose headers may not say.
        cache: Where notes are kept.
        workers: Processes; 1 reads in this one.
        progress: Whether to show a progress bar.

    Returns:
        A note a file, in their order, and how many files were read.

    Raises:
        OutputError: The notes cannot be written.
    """
    known = _load(cache)
    notes: dict[Path, Note] = {}
    lines: list[str] = []
    for file in files:
        digest, note, line = known.get((str(file.absolute()), views.get(file, "")), _NOTHING)
        if note is not None and digest == _content(file):
            notes[file] = note
            lines.append(line)
    with whole_file(cache, overwrite=True) as path, path.open("w", encoding="utf-8") as out:
        out.write(json.dumps({"rules": rules()}) + "\n")
        out.writelines(lines)
    jobs = [(file, views.get(file)) for file in files if file not in notes]
    with (
        cache.open("a", encoding="utf-8") as out,
        tqdm(total=len(jobs), desc="reading", unit="file", disable=None if progress else True) as bar,
    ):
        for note, digest in _read_all(jobs, min(workers, len(jobs))):
            notes[note.file] = note
            if digest and not (isinstance(note, Refusal) and not note.lasting):
                with naming(cache):
                    out.write(_line(digest, views.get(note.file), note))
                    out.flush()
            bar.update()
    return [notes[file] for file in files], len(jobs)


def take_note(file: Path, view: View | None = None) -> Note:
    """Read a file as training does and note what it holds, or why it cannot be used.

    Args:
        file: The file.
        view: What it shows, if its header does not say.
    """
    try:
        if is_restored(file):
            return Refusal(file, "rbs wrote it as a restoration", "nothing: only acquired scans are wanted")
        with _quiet():  # what matters of it is told of all files at the end
            scan = read_nm(file, views=None if view is None else (view,))
        if fault := next(too_few_counts(scan, [f"the {view} view" for view in scan.views]), None):
            return Refusal(file, fault, "acquire or export it again")
        return _describe(file, scan)
    except RbsError as error:
        remedy = error.remedy or "leave it out"
        remedy = next((other for option, other in _REMEDIES.items() if option in remedy), remedy)
        lasting = not isinstance(error.__cause__, OSError | MemoryError)
        return Refusal(file, error.fault, remedy, lasting)
    except Exception as error:  # a damaged header surfaces in pydicom as nearly any exception there is
        return Refusal(file, f"its header is damaged ({dicom.first_line(error)})", "export it again")


def rules() -> str:
    """A hash of the code that reads and notes: notes of other code are worth nothing."""
    code = hashlib.sha256(f"{VERSION} {pydicom.__version__}".encode())
    own = residuals, sys.modules[__name__]
    for module in (counts, dicom, dicom_pixels, dicom_views, facts, find, fit, *own):
        code.update(inspect.getsource(module).encode())
    return code.hexdigest()


def _describe(file: Path, scan: Scan) -> Note:
    header: Any = scan.provenance.header
    kind = str(header.get("ImageType") or "").upper().replace(" ", "")
    if "WHOLEBODY" not in kind and not any(header.get(keyword) for keyword in _WHOLE_BODY):
        return Refusal(
            file,
            "nothing says that it is a whole-body scan (ImageType, ScanVelocity, ScanLength)",
            "nothing, if it is a spot view; or else write its line into the manifest yourself",
        )
    sex = str(header.get("PatientSex") or "").strip().upper()
    born = str(header.get("PatientBirthDate") or "").strip()
    code = {keyword: header[keyword] for keyword in _DERIVATION if keyword in header}
    derivation = Dataset()
    derivation.update({element.tag: element for element in code.values()})
    return FileRecord(
        file=file,
        patient_id=scan.patient_id.strip(),
        person=(sex if sex in ("F", "M") else "", _short_hash(born)),
        study=str(header.get("StudyInstanceUID") or ""),
        instance=scan.provenance.sop_instance_uid or "",
        views=scan.views,
        view_rule=scan.provenance.view_rule or "",
        shape=scan.shape,
        spacing_mm=scan.spacing_mm,
        velocity=scan.velocity,
        duration_s=scan.duration_s,
        started=_started(header),
        age_y=facts.years_of(str(header.get("PatientAge") or "")),
        sex=sex if sex in SEXES else None,
        height_cm=_number(header.get("PatientSize"), 100),
        weight_kg=_number(header.get("PatientWeight"), 1),
        sketches=tuple(map(sketch_of, scan.counts)),
        derivation=derivation.to_json_dict(),
    )


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16] if text else ""


def _started(header: Dataset) -> datetime | None:
    for kind in ("Acquisition", "Series"):
        date = header.get(f"{kind}Date") or header.get("StudyDate")
        try:
            day, time = DA(str(date or "")), TM(str(header.get(f"{kind}Time") or ""))
        except ValueError:
            continue
        if day is not None and time is not None:
            return datetime.combine(day, time).replace(microsecond=0)
    return None


def _number(value: Any, factor: float) -> float | None:
    """As `positive_number`, without the last digits of a multiplication."""
    number = dicom.positive_number(value, factor)
    return None if number is None else round(number, 4)


@contextmanager
def _quiet() -> Iterator[None]:
    level = _LOG.level
    _LOG.setLevel(logging.ERROR)
    try:
        yield
    finally:
        _LOG.setLevel(level)


_Noted = tuple[Note, str]
"""A note and the hash of the content it is about."""


def _take(note: Callable[[Path, View | None], Note], job: _Job) -> _Noted:
    # The hash comes first: a file that changes while it is read does not fit it the next time.
    digest = _content(job[0])
    return note(*job), digest


def _read_all(jobs: Sequence[_Job], workers: int) -> Iterator[_Noted]:
    """Notes as they come. A file that kills the process reading it is refused; the others go on."""
    if workers <= 1:
        yield from (_take(take_note, job) for job in jobs)
        return
    waiting = deque(jobs)
    while waiting:
        flying: dict[Future[_Noted], _Job] = {}
        try:
            with _processes(workers) as pool:
                while waiting or flying:
                    while waiting and len(flying) < IN_FLIGHT * workers:
                        flying[_submit(pool, waiting[0])] = waiting[0]
                        waiting.popleft()
                    for done in wait(flying, return_when=FIRST_COMPLETED).done:
                        noted = done.result()
                        del flying[done]
                        yield noted
        except BrokenProcessPool:
            yield from map(_read_alone, flying.values())


def _read_alone(job: _Job) -> _Noted:
    try:
        with _processes(1) as pool:
            return _submit(pool, job).result()
    except BrokenProcessPool:
        fault = "the process that read it died (out of memory, or a damaged file)"
        refusal = Refusal(job[0], fault, "try again with --workers 1, or export it again", lasting=False)
        return refusal, ""


def _processes(number: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(number, mp_context=multiprocessing.get_context("spawn"))


def _submit(pool: ProcessPoolExecutor, job: _Job) -> Future[_Noted]:
    """Submit a file; processes start here and inherit that an interrupt is for the parent."""
    if threading.current_thread() is not threading.main_thread():
        return pool.submit(_take, take_note, job)
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        return pool.submit(_take, take_note, job)
    finally:
        signal.signal(signal.SIGINT, handler)


_Key = tuple[str, str]
"""A file and the view that was stated of it."""
_Known = tuple[str, Note | None, str]
"""Hash of the content, note and line of a file."""
_NOTHING: _Known = ("", None, "")


def _content(file: Path) -> str:
    """Hash of what a file holds; empty for one that cannot be read, or is too large to be."""
    try:
        require_regular(file)
        if file.stat().st_size > dicom.LARGEST_FILE:
            return ""
        with file.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except (OSError, RbsError):
        return ""


def _load(cache: Path) -> dict[_Key, _Known]:
    """Notes of earlier runs; those of other rules, and damaged ones, are left out."""
    try:
        lines = cache.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return {}
    except OSError:
        lines = []
    try:
        if json.loads(lines[0])["rules"] != rules():
            return {}
    except (*_DAMAGE, IndexError):
        _LOG.warning("%s: it is damaged; all files are read again", printable(cache))
        return {}
    known: dict[_Key, _Known] = {}
    damaged = 0
    for line in lines[1:]:
        try:
            key, found = _parse(line)
            known[key] = found
        except _DAMAGE:
            damaged += 1
    if damaged:
        _LOG.warning("%s: damaged lines: %d; their files are read again", printable(cache), damaged)
    return known


_DAMAGE = (ValueError, KeyError, TypeError, AttributeError, RecursionError)


def _line(digest: str, view: View | None, note: Note) -> str:
    values: dict[str, Any] = {f.name: getattr(note, f.name) for f in fields(note)}
    values["file"] = str(note.file.absolute())
    if isinstance(note, FileRecord):
        values["started"] = note.started and note.started.isoformat()
        values["sketches"] = [
            (sketch.digest, b64encode(sketch.periodogram.tobytes()).decode(), sketch.independent)
            for sketch in note.sketches
        ]
    text = json.dumps({"content": digest, "view": view or "", "note": values})
    return f"{_sum(text)} {text}\n"


def _sum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _parse(line: str) -> tuple[_Key, _Known]:
    """Note of a line. Its hash shows that it is as it was written, to the last digit."""
    digest, _, text = line.partition(" ")
    if digest != _sum(text):
        raise ValueError("a damaged line")
    entry = json.loads(text)
    values = entry["note"]
    key = values["file"], entry["view"]
    values["file"] = Path(values["file"])
    if "reason" in values:
        return key, (entry["content"], Refusal(**values), f"{line}\n")
    for name in ("person", "shape", "spacing_mm"):
        values[name] = tuple(values[name])
    values["views"] = tuple(View(name) for name in values["views"])
    values["started"] = values["started"] and datetime.fromisoformat(values["started"])
    values["sketches"] = tuple(
        Sketch(of_sums, np.frombuffer(b64decode(periodogram), np.int8), independent)
        for of_sums, periodogram, independent in values["sketches"]
    )
    return key, (entry["content"], FileRecord(**values), f"{line}\n")
