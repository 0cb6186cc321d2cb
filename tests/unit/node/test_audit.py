"""The audit log: what is in it, what is not, and what happens where it cannot be written."""

from __future__ import annotations

import errno
import json
import os
import re
import stat
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rbs.errors import DiskFullError, OutputError, RbsError
from rbs.node.audit import Audit

UID = "1.2.826.0.1.3680043.8.498.1234"


@dataclass(frozen=True)
class Log:
    file: Path
    site_key_file: Path


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path / "log" / "audit.jsonl", tmp_path / "site.key")


def lines(log: Log) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.file.read_text().splitlines()]


def test_a_line_holds_the_time_the_event_and_what_is_known(log: Log) -> None:
    audit = Audit(log)
    audit.record("received", peer="CAMERA", address="10.0.0.7", uid=UID, size=1024, seconds=0.12345)
    (line,) = lines(log)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("time"))
    assert re.fullmatch(r"[0-9a-f]{64}", line.pop("uid"))
    assert line == {
        "event": "received",
        "peer": "CAMERA",
        "address": "10.0.0.7",
        "size": 1024,
        "seconds": 0.123,
    }


def test_uids_are_pseudonyms_that_need_the_key(log: Log, tmp_path: Path) -> None:
    Audit(log).record("received", uid=UID, study=UID)
    Audit(log).record("sent", uid=UID)
    other = Log(tmp_path / "other.jsonl", tmp_path / "other.key")
    Audit(other).record("sent", uid=UID)
    first, second = lines(log)
    assert first["uid"] == first["study"] == second["uid"] != lines(other)[0]["uid"]
    assert UID not in log.file.read_text()


def test_the_key_is_made_once_for_its_owner_alone(log: Log) -> None:
    Audit(log)
    key = log.site_key_file.read_bytes()
    assert stat.S_IMODE(log.site_key_file.stat().st_mode) == 0o600
    Audit(log)
    assert log.site_key_file.read_bytes() == key
    log.site_key_file.chmod(0o644)
    with pytest.raises(OutputError, match=r"site\.key: others may read this key; run `chmod 600"):
        Audit(log)


def test_other_facts_than_those_allowed_are_no_arguments(log: Log) -> None:
    with pytest.raises(TypeError):
        Audit(log).record("received", patient="Meier^Anna")  # type: ignore[call-arg]


def test_what_a_peer_calls_itself_can_break_no_line(log: Log) -> None:
    Audit(log).record("association refused", peer='X"\n{"event": "sent"}\x1b' + 100 * "A")
    (line,) = lines(log)
    assert len(line["peer"]) <= 64
    assert "\\n" in line["peer"]


def test_a_renamed_log_is_begun_anew(log: Log) -> None:
    audit = Audit(log)
    audit.record("started")
    log.file.rename(log.file.with_suffix(".1"))
    audit.record("stopped")
    assert [line["event"] for line in lines(log)] == ["stopped"]
    log.file.unlink()
    audit.record("sent")
    assert [line["event"] for line in lines(log)] == ["sent"]


def test_a_line_that_a_crash_broke_off_does_not_swallow_the_next(log: Log) -> None:
    Audit(log).record("started")
    with log.file.open("a") as file:
        file.write('{"time": "2026')
    Audit(log).record("stopped")
    whole, broken, after = log.file.read_text().splitlines()
    assert (json.loads(whole)["event"], json.loads(after)["event"]) == ("started", "stopped")
    assert broken == '{"time": "2026'


def test_threads_and_processes_share_a_log(log: Log) -> None:
    audits = [Audit(log), Audit(log)]
    threads = [
        threading.Thread(target=lambda audit=audit: [audit.record("sent", count=n) for n in range(20)])
        for audit in audits * 2
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(line["count"] for line in lines(log)) == sorted(4 * list(range(20)))


def full(*_: Any) -> int:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_scan_is_not_received_without_its_line(
    log: Log, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    audit = Audit(log)
    monkeypatch.setattr(os, "write", full)
    with pytest.raises(DiskFullError, match=r"audit\.jsonl: it cannot be written"):
        audit.record("received", uid=UID)
    audit.record("sent", destination="pacs")  # has happened already: told elsewhere
    assert '"destination": "pacs"' in caplog.text
    monkeypatch.undo()
    audit.record("received", uid=UID)
    assert [line["event"] for line in lines(log)] == ["received"]


def test_half_a_line_on_a_full_disk_is_ended_by_the_next(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    audit = Audit(log)
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, line: write(descriptor, line[:9]))
    with pytest.raises(DiskFullError):
        audit.record("received", uid=UID)
    monkeypatch.undo()
    audit.record("received", uid=UID)
    assert json.loads(log.file.read_text().splitlines()[1])["event"] == "received"


def test_without_settings_nothing_is_written(tmp_path: Path) -> None:
    Audit(None).record("received", uid=UID)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_told_at_start(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("a file")
    with pytest.raises(RbsError, match=r"audit\.jsonl: it cannot be read or written"):
        Audit(Log(tmp_path / "log" / "audit.jsonl", tmp_path / "site.key"))
