"""The state of a node: what waits and what is wrong, as a page."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from statistics import median
from string import Template
from typing import Self

from rbs.errors import printable
from rbs.node.queue import Delivery, Entry, Queue, State
from rbs.node.settings import MIB, Settings
from rbs.utils.version import VERSION
from rbs.utils.words import counted

LATE_S = 3600
"""Seconds after which a scan that is not yet with all destinations is a reason to look."""

SHOWN = 200
"""Most scans in a table."""

COLUMNS = ("number", "state", "from", "age", "seconds", "remark")

LATEST = 20
"""Scans shown of those that are done."""

_PAGE = Path(__file__).with_name("status.html")
_TILES = {State.RESTORED: "restored, to be sent"}
_DONE = (State.SENT, State.DROPPED)


@dataclass(frozen=True)
class Status:
    """The queue at one moment.

    Attributes:
        now: Time, in seconds since 1970.
        counts: Scans by state.
        refused: Refused scans, the latest first.
        open: Scans that are neither done nor refused, in order of arrival.
        done: The latest scans that were sent or dropped.
        seconds: Time to restore each scan that is kept, sorted.
        deliveries: Deliveries of all scans that are kept.
        size: Bytes of the spool's scans.
    """

    now: float
    counts: dict[State, int]
    refused: list[Entry]
    open: list[Entry]
    done: list[Entry]
    seconds: list[float]
    deliveries: list[Delivery]
    size: int

    @classmethod
    def of(cls, queue: Queue) -> Self:
        """Read it.

        Raises:
            RbsError: The queue cannot be read.
        """
        entries = queue.entries()
        unfinished = [entry for entry in entries if entry.state not in (*_DONE, State.REFUSED)]
        return cls(
            now=queue.clock(),
            counts=queue.counts(),
            refused=[entry for entry in entries if entry.state == State.REFUSED][::-1],
            open=unfinished,
            done=[entry for entry in entries if entry.state in _DONE][: -LATEST - 1 : -1],
            seconds=sorted(entry.seconds for entry in entries if entry.seconds is not None),
            deliveries=queue.deliveries(),
            size=queue.bytes_held(),
        )

    @property
    def waited_s(self) -> float:
        """Seconds since the oldest scan came that is not yet with all destinations."""
        return max((self.now - entry.received for entry in self.open), default=0.0)

    @property
    def failed(self) -> list[Delivery]:
        """Deliveries that were given up."""
        return [delivery for delivery in self.deliveries if delivery.state == "failed"]

    def destinations(self) -> dict[tuple[str, str], int]:
        """Deliveries by destination and state, in order of the destinations' names."""
        return dict(sorted(Counter((one.destination, one.state) for one in self.deliveries).items()))

    def problems(self, settings: Settings) -> list[str]:
        """Reasons for a person to look, as sentences without a full stop."""
        found = []
        free = shutil.disk_usage(settings.spool).free // MIB
        if free < settings.limits.reserve_mib:
            found.append(f"the disk of the spool has {free} MiB left: nothing is received")
        if self.size >= settings.limits.spool_mib * MIB:
            found.append(f"the spool is full ({self.size // MIB} MiB): nothing is received")
        if self.waited_s > LATE_S:
            oldest = self.open[0]
            why = self._cells(oldest)[-1] or str(oldest.state)
            found.append(f"scan {oldest.id} has been on its way for {age(self.waited_s)} ({why})")
        if self.failed:
            number = counted(len(self.failed), "file")
            found.append(f"{number} could not be sent: `rbs node retry` or `rbs node drop`")
        return found

    def page(self, problems: list[str]) -> str:
        """The state as a page that loads nothing and reloads itself."""
        refused = f", but {counted(len(self.refused), 'scan')} refused" if self.refused else ""
        verdict = escape("; ".join(problems) if problems else f"all is well{refused}")
        tiles = "".join(
            f'<div class="{"none" if not number else "some"} {state.name.lower()}">'
            f"<b>{number}</b>{_TILES.get(state, state)}</div>"
            for state, number in self.counts.items()
        )
        tables = [
            self._rows("Refused", "look at the reason, then retry or drop", self.refused),
            self._rows("On the way", "in order of arrival", self.open),
            self._ways(),
            self._rows("Done", f"the latest {LATEST}", self.done),
        ]
        held = f"{self.size / MIB:.0f} MiB held"
        if self.seconds:
            held += f"; restored in {median(self.seconds):.1f} s (median)"
        return Template(_PAGE.read_text(encoding="utf-8")).substitute(
            kind="bad" if problems else "good",
            verdict=verdict[0].upper() + verdict[1:],
            tiles=tiles,
            tables="".join(filter(None, tables)) or "<p>No scan has come yet.</p>",
            held=held,
            version=escape(VERSION),
        )

    def _cells(self, entry: Entry) -> tuple[str, ...]:
        """The cells of `COLUMNS`."""
        seconds = "" if entry.seconds is None else f"{entry.seconds:.1f}"
        remark = entry.reason
        if entry.state == State.RESTORED:
            own = [one for one in self.deliveries if one.entry == entry.id and one.state != "sent"]
            told = (f"to {one.destination}: {one.error or 'next'}" for one in own)
            remark = "; ".join(dict.fromkeys([*told, *filter(None, [remark])]))
        waited = age(self.now - entry.received)
        return str(entry.id), str(entry.state), entry.origin, waited, seconds, remark

    def _rows(self, title: str, remark: str, entries: list[Entry]) -> str:
        left = len(entries) - SHOWN
        more = f"<p>and {counted(left, 'scan')} more</p>" if left > 0 else ""
        head = f"{title} <small>{remark}</small>"
        return _html(head, COLUMNS, [self._cells(entry) for entry in entries[:SHOWN]], "scans") + more

    def _ways(self) -> str:
        rows = []
        for name in dict.fromkeys(one.destination for one in self.deliveries):
            own = [one for one in self.deliveries if one.destination == name]
            number = Counter(one.state for one in own)
            errors = [one.error for one in own if one.state != "sent" and one.error]
            row = (name, *(str(number[state]) for state in ("sent", "pending", "failed")))
            rows.append((*row, *(errors[-1:] or [""])))
        return _html("Destinations", ("name", "sent", "waiting", "given up", "last error"), rows)


def _html(title: str, head: Sequence[str], rows: Sequence[Sequence[str]], kind: str = "") -> str:
    """A table with its title; nothing where it has no rows."""
    heads = "".join(f"<th>{name}</th>" for name in head)
    cells = ("".join(f"<td>{escape(printable(cell))}</td>" for cell in row) for row in rows)
    body = "".join(f"<tr>{row}</tr>" for row in cells)
    return f"<h2>{title}</h2><table class='{kind}'><tr>{heads}</tr>{body}</table>" if rows else ""


def age(seconds: float) -> str:
    """A time span in its largest unit: "12 s", "5 min", "3 h", "2 d"."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"
