"""Text of a header: the bytes that were stored, and a reading of them that loses nothing.

Cameras and workstations state one character set and write another, so that text cannot always be
decoded, and what was decoded cannot always be encoded again. Text that nobody means to change is
therefore written as the bytes it was read from (PS3.5 section 6.1.2).
"""

from __future__ import annotations

from pydicom import DataElement, Dataset
from pydicom.charset import convert_encodings, decode_bytes, encode_string
from pydicom.dataelem import RawDataElement
from pydicom.valuerep import CUSTOMIZABLE_CHARSET_VR, TEXT_VR_DELIMS

LOST = "\ufffd"
"""Character that decoders put where bytes have no meaning in the stated character set."""


class StoredText(DataElement):
    """An element of text that knows the bytes it was read from.

    Args:
        element: The element as pydicom decoded it.
        stored: Its bytes.
    """

    def __init__(self, element: DataElement, stored: bytes) -> None:
        super().__init__(element.tag, element.VR, element.value, already_converted=True)
        self.stored, self.read = stored, str(element.value)

    @property
    def unchanged(self) -> bool:
        """True while it holds what was read."""
        return str(self.value) == self.read


class _Encoded(bytes):
    """Bytes that pydicom writes as they are, names of persons too."""

    def encode(self, _: object) -> bytes:
        """The bytes."""
        return self


def keep_stored(ds: Dataset, raw: DataElement | RawDataElement) -> None:
    """Keep the bytes of an element of `ds` that was just decoded, if they are text.

    Args:
        ds: The data set.
        raw: The element before it was decoded.
    """
    element = ds[raw.tag]
    if isinstance(raw, RawDataElement) and raw.value and element.VR in CUSTOMIZABLE_CHARSET_VR:
        ds[raw.tag] = StoredText(element, raw.value)


def put_stored(ds: Dataset) -> None:
    """Make `ds` write the stored bytes of all text that was not changed, at any depth."""
    for element in list(ds):
        if element.VR == "SQ":
            for item in element.value:
                put_stored(item)
        elif isinstance(element, StoredText) and element.unchanged:
            value = _Encoded(element.stored)
            ds[element.tag] = DataElement(element.tag, element.VR, value, already_converted=True)


def text_of(ds: Dataset, keyword: str) -> str:
    """The text of an attribute; empty without one. Different bytes stay different texts.

    What is no text in the stated character set is read as Latin-1: with the replacement characters
    of a decoder, two patients might have one Patient ID.
    """
    element = ds.get(keyword) and ds[keyword]
    if isinstance(element, StoredText) and element.unchanged and LOST in element.read:
        return element.stored.decode("latin-1").strip("\0 ")
    return str(ds.get(keyword) or "")


def can_be_written(text: str, ds: Dataset) -> bool:
    """True for text that the character set of `ds` holds wholly, and that was decoded wholly."""
    encodings = convert_encodings(ds.get("SpecificCharacterSet"))
    return (
        LOST not in text and decode_bytes(encode_string(text, encodings), encodings, TEXT_VR_DELIMS) == text
    )
