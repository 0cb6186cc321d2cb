"""Secret keys in files that only their owner can read."""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path

from rbs.errors import OutputError


def make_key(path: Path) -> None:
    """Write a new key of 32 random bytes, as hexadecimal digits, to a file that is not there yet.

    Raises:
        OutputError: The file exists, or cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Never readable by others, not even for a moment.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(f"{secrets.token_hex(32)}\n")
    except OSError as error:
        fault = f"the key cannot be written ({error.strerror or error})"
        raise OutputError(fault, file=path, remedy="check the folder and its permissions") from error


def read_key(path: Path, remedy: str) -> bytes:
    """The bytes of a key as `make_key` writes it.

    Args:
        path: The file.
        remedy: What to do where it is missing or something else.

    Raises:
        OutputError: It is missing, holds something else, or others may read it.
    """
    try:
        text, mode = path.read_text(encoding="ascii").strip(), path.stat().st_mode
    except (OSError, UnicodeDecodeError) as error:
        raise OutputError("the key is missing or cannot be read", file=path, remedy=remedy) from error
    if not re.fullmatch(r"[0-9a-f]{64}", text):
        fault = "it is no key of 64 hexadecimal digits"
        raise OutputError(fault, file=path, remedy=remedy)
    if mode & 0o077:
        raise OutputError("others may read this key", file=path, remedy=f"run `chmod 600 {path}`")
    return bytes.fromhex(text)
