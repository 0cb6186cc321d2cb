"""The queue of a node: an SQLite file that any process may leave at any moment.

Every transition is one transaction that names the state it starts from, and commits to the disk
before it returns. Whoever comes late finds another state and changes nothing.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from rbs.errors import DiskFullError, RbsError

FILE = "queue.sqlite"
VERSION = 1
TRIES = 3
"""Times that a scan may end the process that works on it."""


class State(StrEnum):
    """Where a scan is."""

    RECEIVED = "received"
    WAITING = "waiting for a view"
    READY = "ready"
    RESTORING = "restoring"
    RESTORED = "restored"  # and not yet at all destinations
    SENT = "sent"
    REFUSED = "refused"
    DROPPED = "dropped"


OPEN = (State.RECEIVED, State.WAITING, State.READY, State.RESTORING)
"""States of scans that are not restored yet."""


class KnownUidError(RbsError):
    """Other content under an SOP Instance UID that is in the queue."""


def other_content(id: int) -> KnownUidError:
    """The error of a scan whose UID is that of another one, with that number."""
    return KnownUidError(
        f"another scan with its SOP Instance UID was received before, as number {id}",
        remedy=f"to replace that one, run `rbs node drop {id}` and send again",
    )


@dataclass(frozen=True)
class Entry:
    """A scan.

    Attributes:
        id: Its number.
        uid: Its SOP Instance UID.
        study: Its Study Instance UID.
        path: The file as received; the spool folder itself where it was deleted.
        sha256: Of the content.
        size: Bytes.
        origin: AE title of the sender, or "folder".
        received: Time, in seconds since 1970.
        changed: Time of the last transition.
        state: Where it is.
        reason: Why it was refused or waits; warnings of one that was restored.
        deadline: Time at which it waits no longer.
        attempts: Times that work on it was begun without an end.
        partner: Number of the scan of the opposite view.
        view: The view it shows, where it shows one.
        output: The restored file.
        seconds: Time to restore it.
        name: Name of the file in a folder that is watched.
    """

    id: int
    uid: str
    study: str
    path: Path
    sha256: str
    size: int
    origin: str
    received: float
    changed: float
    state: State
    reason: str
    deadline: float | None
    attempts: int
    partner: int | None
    view: str | None
    output: Path | None
    seconds: float | None
    name: str = ""


@dataclass(frozen=True)
class Delivery:
    """A file on its way to a destination.

    Attributes:
        id: Its number.
        entry: Number of the scan.
        destination: Name of the destination.
        path: The file.
        attempts: Failed attempts.
        created: Time, in seconds since 1970.
        due: Time of the next attempt.
        state: "pending", "sent" or "failed" (given up).
        error: Of the last attempt.
    """

    id: int
    entry: int
    destination: str
    path: Path
    attempts: int
    created: float
    due: float
    state: str
    error: str


@dataclass(frozen=True)
class Restoration:
    """What was made of a scan.

    Attributes:
        files: The restored scan, and its standard deviation where that was asked for.
        seconds: Time to make them.
        warnings: What to look at before using them.
    """

    files: tuple[Path, ...]
    seconds: float
    warnings: tuple[str, ...] = ()


_SCHEMA = """
CREATE TABLE scan (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    uid TEXT NOT NULL UNIQUE, study TEXT NOT NULL, path TEXT NOT NULL, sha256 TEXT NOT NULL,
    size INTEGER NOT NULL, origin TEXT NOT NULL, received REAL NOT NULL, changed REAL NOT NULL,
    state TEXT NOT NULL, reason TEXT NOT NULL DEFAULT '', deadline REAL, attempts INTEGER NOT NULL DEFAULT 0,
    partner INTEGER, view TEXT, output TEXT, output_size INTEGER NOT NULL DEFAULT 0,
    seconds REAL, acquisition TEXT, name BLOB NOT NULL DEFAULT '');
CREATE INDEX scan_state ON scan (state);
CREATE INDEX scan_study ON scan (study);
CREATE INDEX scan_sha256 ON scan (sha256);
CREATE TABLE delivery (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    entry INTEGER NOT NULL REFERENCES scan (id) ON DELETE CASCADE, study TEXT NOT NULL,
    destination TEXT NOT NULL, path TEXT NOT NULL, attempts INTEGER NOT NULL DEFAULT 0,
    created REAL NOT NULL, due REAL NOT NULL, state TEXT NOT NULL DEFAULT 'pending',
    error TEXT NOT NULL DEFAULT '');
CREATE INDEX delivery_entry ON delivery (entry);
CREATE INDEX delivery_state ON delivery (state, destination, study);
"""


_GONE = f"(state = '{State.DROPPED}' OR state = '{State.REFUSED}' AND path = '')"
"""Condition of rows of scans that the node has no longer, and takes in again."""


class Queue:
    """The queue in a spool folder; each thread and each process opens its own connection.

    Args:
        spool: The folder; made where there is none.
        clock: The time, in seconds since 1970.
    """

    def __init__(self, spool: Path, clock: Callable[[], float] = time.time) -> None:
        self.path = spool / FILE
        self.clock = clock
        self._local = threading.local()
        spool.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder = spool.resolve()  # paths inside are kept relative to it, so that it can move
        with self._transaction() as db:
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if version > VERSION:
                raise RbsError("a newer rbs wrote this queue", file=self.path, remedy="install that version")
            if version == 0:
                for statement in _SCHEMA.split(";"):
                    db.execute(statement)
                db.execute(f"PRAGMA user_version = {VERSION}")

    def add(
        self, *, uid: str, study: str, path: Path, sha256: str, size: int, origin: str, name: str = ""
    ) -> Entry | None:
        """Take a scan in.

        Returns:
            Its entry; None if this content is known already under this UID. A scan that was
            dropped, or refused and deleted, is taken in again.

        Raises:
            KnownUidError: There is other content under this UID.
            DiskFullError: There is no room for the entry.
        """
        now = self.clock()
        with self._transaction() as db:
            db.execute(f"DELETE FROM scan WHERE uid = ? AND {_GONE}", (uid,))
            known = db.execute("SELECT id, sha256 FROM scan WHERE uid = ?", (uid,)).fetchone()
            if known and known["sha256"] == sha256:
                return None
            elif known:
                raise other_content(known["id"])
            stored = self._stored(path), os.fsencode(name)
            row = (uid, study, stored[0], sha256, size, origin, now, now, State.RECEIVED, stored[1])
            id = db.execute(
                "INSERT INTO scan (uid, study, path, sha256, size, origin, received, changed, state, name)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                row,
            ).lastrowid
            return self._entries(db, "id = ?", id)[0]

    def find(self, uid: str) -> Entry | None:
        """The scan with an SOP Instance UID, unless it was dropped, or refused and deleted."""
        with self._connection() as db:
            return next(iter(self._entries(db, f"uid = ? AND NOT {_GONE}", uid)), None)

    def get(self, id: int) -> Entry | None:
        """The scan with a number."""
        with self._connection() as db:
            return next(iter(self._entries(db, "id = ?", id)), None)

    def entries(self, *states: State) -> list[Entry]:
        """Scans in these states, or in any, in order of arrival."""
        wanted = states or tuple(State)
        with self._connection() as db:
            return self._entries(db, f"state IN ({_marks(wanted)})", *wanted)

    def counts(self) -> dict[State, int]:
        """Scans by state, with those states that have none."""
        with self._connection() as db:
            found = dict(map(tuple, db.execute("SELECT state, count(*) FROM scan GROUP BY state")))
        return {state: found.get(state, 0) for state in State}

    def deliveries(self, *states: str) -> list[Delivery]:
        """Deliveries in these states, or in any, in order."""
        wanted = states or ("pending", "sent", "failed")
        with self._connection() as db:
            return self._deliveries(db, f"state IN ({_marks(wanted)})", *wanted)

    def bytes_held(self) -> int:
        """Bytes of the files of all scans that were not dropped, received and restored."""
        with self._connection() as db:
            sums = "SELECT ifnull(sum(size + output_size), 0) FROM scan WHERE state != ?"
            return db.execute(sums, (State.DROPPED,)).fetchone()[0]

    def bytes_waiting(self, origin: str) -> int:
        """Bytes of the scans of a sender that are not restored yet."""
        with self._connection() as db:
            sums = f"SELECT ifnull(sum(size), 0) FROM scan WHERE origin = ? AND state IN ({_marks(OPEN)})"
            return db.execute(sums, (origin, *OPEN)).fetchone()[0]

    def surplus_refused(self, most: int) -> Entry | None:
        """A refused scan to delete while refused scans hold more than `most` bytes.

        It is the oldest of the sender that has most there: one that sends bad scans without end
        crowds out no others.
        """
        with self._connection() as db:
            sums = "SELECT origin, sum(size) FROM scan WHERE state = ? GROUP BY origin ORDER BY 2"
            senders = db.execute(sums, (State.REFUSED,)).fetchall()
            if sum(size for _, size in senders) <= most:
                return None
            condition = "state = ? AND origin = ? AND path != '' LIMIT 1"
            return self._entries(db, condition, State.REFUSED, senders[-1][0])[0]

    # The worker.

    def begin(self) -> Entry | None:
        """Begin to examine the next received scan; this counts as an attempt until it ends."""
        with self._transaction() as db:
            found = self._entries(db, "state = ? LIMIT 1", State.RECEIVED)
            return self._attempt(db, found[0], State.RECEIVED) if found else None

    def examined(self, id: int, *, acquisition: str, view: str | None, deadline: float) -> State | None:
        """File a received scan by what it shows.

        A scan of one view waits for the opposite one of its acquisition. Where the acquisition has
        other scans, none waits any longer: exactly one that waits, of the opposite view, is its
        partner, and otherwise each is restored alone, as more than one of a view would fit.

        Args:
            id: Its number.
            acquisition: Key that the views of an acquisition share.
            view: What it shows; None for a scan of two views.
            deadline: Until when it may wait.

        Returns:
            Its new state; None if it is no longer in the state RECEIVED.
        """
        with self._transaction() as db:
            others = []
            if view:
                condition = "acquisition = ? AND view IS NOT NULL AND id != ? AND state != ?"
                others = self._entries(db, condition, acquisition, id, State.DROPPED)
            pair = len(others) == 1 and others[0].state == State.WAITING and others[0].view != view
            state = State.WAITING if view and not others else State.READY
            db.execute("UPDATE scan SET acquisition = ?, view = ? WHERE id = ?", (acquisition, view, id))
            own = {"partner": others[0].id} if pair else {"deadline": deadline} if not others else {}
            if not self._move(db, id, State.RECEIVED, state, **{"attempts": 0, "deadline": None, **own}):
                return None
            for other in others:
                partner = id if pair else None
                self._move(db, other.id, State.WAITING, State.READY, deadline=None, partner=partner)
            return state

    def claim(self) -> list[Entry]:
        """Begin to restore the next scan, or the two views of the next acquisition.

        Scans whose deadline has passed wait no longer. A scan that is ready waits until earlier
        ones of its study are restored.
        """
        now = self.clock()
        with self._transaction() as db:
            for late in self._entries(db, "state = ? AND deadline <= ?", State.WAITING, now):
                reason = f"its other view did not come within {now - late.changed:.0f} s: restored alone"
                self._move(db, late.id, State.WAITING, State.READY, deadline=None, reason=reason)
            first = (
                "state = ? AND NOT EXISTS (SELECT 1 FROM scan AS earlier"
                f" WHERE earlier.study = scan.study AND earlier.id < scan.id AND state IN ({_marks(OPEN)})"
                ") LIMIT 1"
            )
            found = self._entries(db, first, State.READY, *OPEN)
            if found and found[0].partner:
                found += self._entries(db, "id = ? AND state = ?", found[0].partner, State.READY)
            return [self._attempt(db, entry, State.RESTORING) for entry in found]

    def restored(self, done: Mapping[int, Restoration], destinations: Iterable[str]) -> bool:
        """Enter what was made of scans, which is now on its way to the destinations.

        Args:
            done: Files on the disk by the number of the scan; all are entered or none.
            destinations: Names; without any a scan counts as sent.

        Returns:
            False if one of them is no longer being restored: the files are of no use.
        """
        now, names = self.clock(), list(destinations)
        new = State.RESTORED if names else State.SENT
        with self._transaction() as db:
            entries = self._entries(db, f"id IN ({_marks(done)}) AND state = ?", *done, State.RESTORING)
            if len(entries) < len(done):
                return False
            for entry in entries:
                own = done[entry.id]
                values = {
                    "output": self._stored(own.files[0]),
                    "output_size": sum(path.stat().st_size for path in own.files),
                    "seconds": own.seconds,
                    "reason": "; ".join(filter(None, [entry.reason, *own.warnings])),
                    "attempts": 0,
                }
                self._move(db, entry.id, State.RESTORING, new, **values)
                for name in names:
                    for path in own.files:
                        db.execute(
                            "INSERT INTO delivery (entry, study, destination, path, created, due)"
                            " VALUES (?, ?, ?, ?, ?, ?)",
                            (entry.id, entry.study, name, self._stored(path), now, now),
                        )
            return True

    def refuse(self, id: int, reason: str, path: Path) -> bool:
        """Enter why a scan is refused, and where its file lies now; False if none works on it."""
        with self._transaction() as db:
            new = {"reason": reason, "path": self._stored(path), "deadline": None}
            return any(
                self._move(db, id, old, State.REFUSED, **new) for old in (State.RECEIVED, State.RESTORING)
            )

    def recover(self, ended: str | None = None) -> int:
        """Take back the scans that a worker left when it ended; only while none runs.

        Args:
            ended: How it ended by itself; None if it was stopped together with the node, which is
                no fault of the scan.

        Returns:
            Scans taken back.
        """
        with self._transaction() as db:
            left = self._entries(db, "attempts > 0 AND state IN (?, ?)", State.RECEIVED, State.RESTORING)
            for entry in left:
                state = State.READY if entry.state == State.RESTORING else State.RECEIVED
                own = {"reason": ended} if ended else {"attempts": entry.attempts - 1}
                self._move(db, entry.id, entry.state, state, **own)
            return len(left)

    # The sender.

    def due(self, now: float | None = None) -> list[Delivery]:
        """Deliveries whose time has come: of each study and destination the first pending one."""
        first = (
            "id IN (SELECT min(id) FROM delivery WHERE state = 'pending' GROUP BY destination, study)"
            " AND due <= ?"
        )
        with self._connection() as db:
            return self._deliveries(db, first, self.clock() if now is None else now)

    def delivered(self, id: int) -> bool:
        """Enter that a destination has a file; False if the delivery was no longer pending."""
        with self._transaction() as db:
            if not self._end(db, id, "sent", ""):
                return False
            db.execute(
                "UPDATE scan SET state = ?, changed = ? WHERE state = ? AND id ="
                " (SELECT entry FROM delivery WHERE id = ?) AND NOT EXISTS"
                " (SELECT 1 FROM delivery WHERE entry = scan.id AND state != 'sent')",
                (State.SENT, self.clock(), State.RESTORED, id),
            )
            return True

    def failed(self, id: int, error: str, due: float) -> bool:
        """Enter a failed attempt and the time of the next one."""
        with self._transaction() as db:
            return self._end(db, id, "pending", error, due)

    def give_up(self, id: int, error: str) -> bool:
        """Enter a failed attempt after which there is no further one."""
        with self._transaction() as db:
            return self._end(db, id, "failed", error)

    # People.

    def retry(self, id: int, path: Path | None = None) -> bool:
        """Begin anew with a refused scan, or with the failed deliveries of a restored one.

        Args:
            id: Number of the scan.
            path: Where the file of a refused scan lies now; where it was by default.

        Returns:
            False if there was nothing to do again.
        """
        now = self.clock()
        with self._transaction() as db:
            for entry in self._entries(db, "id = ? AND state = ? AND path != ''", id, State.REFUSED):
                new = {"reason": "", "attempts": 0, "path": self._stored(path or entry.path)}
                new |= {"partner": None, "acquisition": None, "view": None}
                return self._move(db, id, State.REFUSED, State.RECEIVED, **new)
            again = "UPDATE delivery SET state = 'pending', due = ?, created = ? WHERE entry = ?"
            return db.execute(f"{again} AND state != 'sent'", (now, now, id)).rowcount > 0

    def drop(self, id: int) -> Entry | None:
        """Take a scan out, whatever its state; its files are of no use any longer.

        Returns:
            The scan as it was; None if there is none.
        """
        with self._transaction() as db:
            for entry in self._entries(db, "id = ? AND state != ?", id, State.DROPPED):
                db.execute("DELETE FROM delivery WHERE entry = ?", (id,))
                self._move(db, id, entry.state, State.DROPPED, deadline=None)
                return entry
            return None

    def files(self, id: int) -> list[Path]:
        """All files of a scan."""
        with self._connection() as db:
            found = db.execute(
                "SELECT path FROM scan WHERE id = ? UNION SELECT output FROM scan WHERE id = ?"
                " UNION SELECT path FROM delivery WHERE entry = ?",
                (id, id, id),
            )
            return [self.folder / row[0] for row in found if row[0]]

    def delete_refused(self, id: int, remark: str) -> bool:
        """Enter that the file of a refused scan is deleted; its reason stays, with a remark."""
        with self._transaction() as db:
            for entry in self._entries(db, "id = ? AND state = ?", id, State.REFUSED):
                new = {"path": "", "size": 0, "reason": f"{entry.reason} {remark}"}
                return self._move(db, id, State.REFUSED, State.REFUSED, **new)
            return False

    def old(self, before: float) -> list[Entry]:
        """Scans sent before a time that have files still, and rows of scans that went before it."""
        with self._connection() as db:
            condition = f"changed < ? AND (state = ? AND path != '' OR {_GONE})"
            return self._entries(db, condition, before, State.SENT)

    def forget(self, id: int) -> bool:
        """Forget the files of a scan that was sent, or all about one that is gone."""
        with self._transaction() as db:
            dropped = db.execute(f"DELETE FROM scan WHERE id = ? AND {_GONE}", (id,))
            sent = db.execute(
                "UPDATE scan SET path = '', output = NULL, size = 0, output_size = 0"
                " WHERE id = ? AND state = ? AND path != ''",
                (id, State.SENT),
            )
            if sent.rowcount:
                db.execute("DELETE FROM delivery WHERE entry = ?", (id,))
            return dropped.rowcount + sent.rowcount > 0

    # Rows.

    def _stored(self, path: Path) -> str:
        path = path.parent.resolve() / path.name
        return str(path.relative_to(self.folder) if path.is_relative_to(self.folder) else path)

    def _move(self, db: sqlite3.Connection, id: int, old: State, new: State, **values: Any) -> bool:
        """Bring a scan from a state to another one; False if it is not in the first."""
        values = {"state": new, "changed": self.clock(), **values}
        names = ", ".join(f"{name} = ?" for name in values)
        done = db.execute(f"UPDATE scan SET {names} WHERE id = ? AND state = ?", (*values.values(), id, old))
        return done.rowcount > 0

    def _attempt(self, db: sqlite3.Connection, entry: Entry, new: State) -> Entry:
        self._move(db, entry.id, entry.state, new, attempts=entry.attempts + 1)
        return self._entries(db, "id = ?", entry.id)[0]

    def _end(self, db: sqlite3.Connection, id: int, state: str, error: str, due: float | None = None) -> bool:
        done = db.execute(
            "UPDATE delivery SET state = ?, error = ?, due = ifnull(?, due), attempts = attempts + ?"
            " WHERE id = ? AND state = 'pending'",
            (state, error, due, int(state != "sent"), id),
        )
        return done.rowcount > 0

    def _entries(self, db: sqlite3.Connection, condition: str, *values: Any) -> list[Entry]:
        where, limit, number = condition.partition(" LIMIT ")
        found = db.execute(f"SELECT * FROM scan WHERE {where} ORDER BY id{limit}{number}", values)
        return [_entry(row, self.folder) for row in found]

    def _deliveries(self, db: sqlite3.Connection, condition: str, *values: Any) -> list[Delivery]:
        found = db.execute(f"SELECT * FROM delivery WHERE {condition} ORDER BY id", values)
        return [_delivery(row, self.folder) for row in found]

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        """This thread's connection.

        Raises:
            DiskFullError: There is no room.
            RbsError: The file is damaged, or another process holds it for long.
        """
        try:
            yield self._open()
        except sqlite3.Error as error:
            name = getattr(error, "sqlite_errorname", "")
            if name.startswith(("SQLITE_FULL", "SQLITE_IOERR_WRITE", "SQLITE_IOERR_SHM")):
                fault = "the disk is full; nothing was entered"
                raise DiskFullError(fault, file=self.path, remedy="free some space") from error
            remedy = "check its disk and its permissions"
            raise RbsError(f"the queue cannot be used ({error})", file=self.path, remedy=remedy) from error

    def _open(self) -> sqlite3.Connection:
        if not hasattr(self._local, "db"):
            db = sqlite3.connect(self.path, timeout=30, isolation_level=None)
            db.row_factory = sqlite3.Row
            for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
                db.execute(f"PRAGMA {pragma}")
            self._local.db = db
        return self._local.db

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing of what is done inside, on the disk at the end."""
        with self._connection() as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise


_UNSEEN = ("acquisition", "output_size")


def _entry(row: sqlite3.Row, folder: Path) -> Entry:
    values = {name: row[name] for name in row.keys() if name not in _UNSEEN}  # noqa: SIM118
    output = values["output"] and folder / values["output"]
    told = {"state": State(row["state"]), "path": folder / row["path"], "name": os.fsdecode(row["name"])}
    return Entry(**{**values, **told, "output": output})


def _delivery(row: sqlite3.Row, folder: Path) -> Delivery:
    values = {name: row[name] for name in row.keys() if name != "study"}  # noqa: SIM118
    return Delivery(**{**values, "path": folder / row["path"]})


def _marks(values: Sized) -> str:
    return ", ".join("?" * len(values))
