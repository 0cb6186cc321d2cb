"""Reading the .wandb file of an offline run: records of W&B's own protocol in LevelDB's log format.

W&B 0.31 reads them with its Go client only. The format: after a header of seven bytes, blocks of 32
kB hold pieces of records: a checksum (4 bytes), a length (2), a kind (1: whole, 2: first, 3:
middle, 4: last).
"""

import json
import struct
from pathlib import Path
from typing import Any

from wandb.proto.wandb_internal_pb2 import Record

_BLOCK, _HEAD = 32768, 7


def records(file: Path) -> list[Record]:
    """All records, in order."""
    data = file.read_bytes()
    assert data.startswith(b":W&B")
    place, body, found = _HEAD, b"", []
    while place + _HEAD <= len(data):
        if _BLOCK - place % _BLOCK < _HEAD:
            place += _BLOCK - place % _BLOCK
            continue
        _, length, kind = struct.unpack_from("<IHB", data, place)
        if kind == 0:
            break
        place += _HEAD
        body = (body if kind in (3, 4) else b"") + data[place : place + length]
        place += length
        if kind in (1, 4):
            found.append(Record.FromString(body))
    return found


def config(found: list[Record]) -> dict[str, Any]:
    """The run's configuration."""
    updates = [u for r in found for u in (*r.run.config.update, *r.config.update)]
    return {update.key: json.loads(update.value_json) for update in updates}


def history(found: list[Record]) -> list[dict[str, Any]]:
    """What was logged, a dictionary each time."""
    return [
        {".".join(i.nested_key) or i.key: json.loads(i.value_json) for i in r.history.item}
        for r in found
        if r.history.item
    ]
