"""Contents of a de-identified file: everything that is not listed here is removed.

DICOM PS3.15 annex E lists what to remove: some 650 attributes in the edition 2026c, more with every
edition, and private elements cannot be listed. This is the other way round: the attributes that
whole-body work needs, and for each what its value may be. What is unknown is therefore removed, not
kept. No free text is kept: texts consist of the words below, codes stand in DICOM's dictionaries,
the rest is numbers, dates and UIDs.
"""

from __future__ import annotations

import re
from functools import lru_cache
from itertools import permutations, product

from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from rbs.scans.dicom.reader import MOST_CUT, RECOVERED, THINNED, WHOLE_BODY, cut_code
from rbs.scans.dicom.writer import DEVIATION, RESTORED


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


KEPT = _names(
    """
    SOPClassUID SOPInstanceUID InstanceCreationDate InstanceCreationTime StudyInstanceUID StudyDate
    StudyTime SeriesInstanceUID SeriesDate SeriesTime SeriesNumber FrameOfReferenceUID PatientSize
    PatientWeight InstanceNumber ContentDate ContentTime AcquisitionNumber AcquisitionDate AcquisitionTime
    AcquisitionDateTime ImagesInAcquisition LossyImageCompressionRatio SourceImageSequence
    ReferencedImageSequence ReferencedSeriesSequence ReferencedInstanceSequence RelatedSeriesSequence
    ReferencedSOPClassUID ReferencedSOPInstanceUID ReferencedFrameNumber SamplesPerPixel Rows Columns
    BitsAllocated BitsStored HighBit PixelRepresentation PixelSpacing PixelAspectRatio
    SmallestImagePixelValue LargestImagePixelValue SmallestPixelValueInSeries LargestPixelValueInSeries
    PixelPaddingValue WindowCenter WindowWidth RescaleSlope RescaleIntercept NumberOfFrames
    FrameIncrementPointer EnergyWindowVector NumberOfEnergyWindows DetectorVector NumberOfDetectors
    CountsAccumulated ActualFrameDuration CountRate TableHeight TableTraverse ScanVelocity ScanLength
    SpatialResolution EnergyWindowInformationSequence EnergyWindowRangeSequence EnergyWindowLowerLimit
    EnergyWindowUpperLimit RadiopharmaceuticalInformationSequence RadiopharmaceuticalStartTime
    RadiopharmaceuticalStopTime RadiopharmaceuticalStartDateTime RadiopharmaceuticalStopDateTime
    RadiopharmaceuticalVolume RadionuclideTotalDose RadionuclideHalfLife CalibrationDataSequence
    EnergyWindowNumber SyringeCounts ResidualSyringeCounts DetectorInformationSequence FieldOfViewDimensions
    FocalDistance XFocusCenter YFocusCenter ZoomCenter ZoomFactor CenterOfRotationOffset GantryDetectorTilt
    DistanceSourceToDetector StartAngle RadialPosition ImageOrientationPatient ImagePositionPatient
    RealWorldValueMappingSequence RealWorldValueFirstValueMapped RealWorldValueLastValueMapped
    RealWorldValueIntercept RealWorldValueSlope
    """
)
"""Kept at any depth if the value is what the data dictionary promises: numbers and times as they
are, dates shifted, UIDs replaced, sequences item by item."""

CODED = _names(
    """
    DerivationCodeSequence PurposeOfReferenceCodeSequence AnatomicRegionSequence
    PrimaryAnatomicStructureSequence ViewCodeSequence ViewModifierCodeSequence RadionuclideCodeSequence
    RadiopharmaceuticalCodeSequence AdministrationRouteCodeSequence PatientOrientationCodeSequence
    PatientOrientationModifierCodeSequence PatientGantryRelationshipCodeSequence MeasurementUnitsCodeSequence
    """
)
"""Sequences of codes: known codes stay, with the meaning the dictionary gives them."""

MAY_BE_EMPTY = _names(
    "RadionuclideCodeSequence PatientOrientationCodeSequence PatientGantryRelationshipCodeSequence"
)
"""Those of them that stay without an item too (type 2)."""

EMPTIED = _names(
    """
    PatientBirthDate ReferringPhysicianName StudyID AccessionNumber PositionReferenceIndicator
    """
)
"""Emptied, since an object without them would not conform (type 2)."""

_YES_NO = ("YES", "NO")
_AXES = (("A", "P", ""), ("L", "R", ""), ("H", "F", ""))
TERMS = {
    keyword: frozenset(terms)
    for keyword, terms in {
        "ImageType": {"ORIGINAL", "DERIVED", "PRIMARY", "SECONDARY", "EMISSION", *WHOLE_BODY} - {""},
        "Modality": ("NM",),
        "PatientSex": ("M", "F", "O"),
        "PatientPosition": ("HFS", "HFP", "HFDR", "HFDL", "FFS", "FFP", "FFDR", "FFDL"),
        "PatientOrientation": {"".join(axes) for order in permutations(_AXES) for axes in product(*order)}
        - {""},
        "BodyPartExamined": ("WHOLEBODY", "WHOLE BODY", "SKELETON", "BONE"),
        "Laterality": ("L", "R"),
        "PhotometricInterpretation": ("MONOCHROME1", "MONOCHROME2"),
        "PresentationLUTShape": ("IDENTITY", "INVERSE"),
        "VOILUTFunction": ("LINEAR", "LINEAR_EXACT", "SIGMOID"),
        "LossyImageCompression": ("00", "01"),
        "LossyImageCompressionMethod": ("ISO_10918_1", "ISO_14495_1", "ISO_15444_1"),
        "BurnedInAnnotation": ("NO",),
        "QualityControlImage": _YES_NO,
        "SyntheticData": _YES_NO,
        "SpatialLocationsPreserved": (*_YES_NO, "REORIENTED_ONLY"),
        "ContentQualification": ("PRODUCT", "RESEARCH", "SERVICE"),
        "AcquisitionTerminationCondition": ("CNTS", "DENS", "MANU", "OVFL", "TIME", "TRIG"),
        "CorrectedImage": _names("UNIF COR NCO DECY ATTN SCAT DTIM NRGY LIN MOTN CLN"),
        "WholeBodyTechnique": ("1PS", "2PS", "PCN", "MSP"),
        "CollimatorType": ("PARA", "FANB", "CONE", "PINH", "DIVG", "CVGB", "NONE", "UNKN"),
        "FieldOfViewShape": ("RECTANGLE", "ROUND", "HEXAGONAL"),
    }.items()
}
"""Terms of coded strings (PS3.3); any other is emptied."""

_MAKERS = """
    ge gems medical systems healthcare siemens nm ne nuclear medicine philips adac picker marconi elscint
    toshiba canon hitachi shimadzu mediso spectrum dynamics sopha smv trionix ddd digirad hermes xeleris
    rbs inc ltd gmbh israel corporation co
    """
_CAMERAS = """
    millennium mg mpr mps vg infinia hawkeye discovery nm ct 530c 570c 630 640 670 850 860 870 dr czt pro
    es ventri optima starcam symbia t t2 t6 t16 s e ecam cam evo intevo bold excel pinnacle 2 6 16
    brightview x xct forte skylight precedence axis irix prism vertex cardiomd anyscan sc trio veriton
    starguide varicam helix apex dst genesys argus phantom
    """
_COLLIMATORS = """
    lehr lehs leap legp leuhr leuhrs mehr megp meap mehs hegp heap elegp wehr low medium high energy
    """
_TRACERS = """
    tc 99m tc99m 99mtc technetium 99 m mdp hdp hmdp dpd hedp medronate oxidronate hydroxymethylene
    methylene diphosphonate bisphosphonate medronic oxidronic acid
    """
_WINDOWS = """
    tc 99m tc99m 99mtc technetium photopeak peak main window kev 140 141 140kev 10 15 20 5 0 7 126 127 129
    150 154
    """
WORDS = {
    "Manufacturer": _names(_MAKERS),
    "ManufacturerModelName": _names(_MAKERS + _CAMERAS),
    "CollimatorGridName": _names(_COLLIMATORS + " resolution sensitivity all general purpose"),
    "Radiopharmaceutical": _names(_TRACERS),
    "EnergyWindowName": _names(_WINDOWS),
}
"""Words of which a text must wholly consist; any other text is emptied."""

_NUMBER = r"\d+(?:\.\d+)?"
_SPACING = rf"{_NUMBER} x {_NUMBER} mm"
PHRASES = {
    keyword: re.compile(pattern)
    for keyword, pattern in {
        # The texts of rbs's own objects, which say what they are. The name of the weight file is
        # not kept.
        "SeriesDescription": "(restored(?: x2)? RESEARCH|thinned SIMULATED)$",
        "ImageComments": r"^(Research use only\. Not for diagnostic use\.)$",
        "LUTLabel": "^(COUNTS)$",
        "LUTExplanation": rf"^(Counts of a {_NUMBER} cm/min scan)$",
        "DerivationDescription": (
            rf"^({_NUMBER} % of the counts of a {_NUMBER} cm/min scan, (?:kept|left over)"
            r" by binomial thinning, seed -?\d+)$"
            rf"|^(Restored to the counts of a {_NUMBER} cm/min scan by ).*"
            r"(rbs [\d.]+, weights sha256 [0-9a-f]{64}; pixel value = \d+ x counts"
            rf"(?:; each pixel of {_SPACING} cut into 2 x 2 of {_SPACING})?)$"
        ),
    }.items()
}
"""Texts of which only the bracketed parts are kept; without a match the text is removed."""

REQUIRED = {"LUTLabel": "VALUES", "LUTExplanation": "Meaning removed"}
"""Replacement of a text without which the sequence item that holds it would not conform (type
1)."""

SNOMED_RT = ("SRT", "SNM3", "99SDM")
"""Names under which older files give SNOMED's codes of that time."""


def safe_words() -> set[str]:
    """The words that the rules put into a file whatever the patient is called, case folded."""
    phrases = (re.sub(r"\\.|[^\w ]|_", " ", pattern.pattern) for pattern in PHRASES.values())
    texts = [*phrases, *REQUIRED.values(), *(term for terms in TERMS.values() for term in terms)]
    return {word for text in texts for word in words(text)} | {w for known in WORDS.values() for w in known}


def words(text: str) -> list[str]:
    """The runs of letters and digits of a text, in any script, case folded."""
    return re.findall(r"[^\W_]+", text.casefold())


@lru_cache
def meaning_of(value: str, scheme: str) -> str | None:
    """Meaning of a code by the dictionaries of DICOM (in pydicom) or rbs; None if it is unknown."""
    for own in (THINNED, RECOVERED, RESTORED, DEVIATION, *map(cut_code, range(1, MOST_CUT + 1))):
        if (value, scheme) == own[:2]:
            return own[2]
    known = _meanings()
    if scheme in SNOMED_RT:
        # pydicom knows which SNOMED CT code each of them became.
        old = Code(value, "SRT", "")
        new = next((code.value for code in codes.SCT.concepts.values() if code == old), "")
        return known.get((new, "SCT"))
    return known.get((value, scheme))


@lru_cache
def _meanings() -> dict[tuple[str, str], str]:
    schemes = (codes.SCT, codes.DCM, codes.UCUM)
    return {
        (code.value, code.scheme_designator): code.meaning
        for scheme in schemes
        for code in scheme.concepts.values()
    }
