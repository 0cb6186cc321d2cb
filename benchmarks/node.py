"""A DICOM node under load: what it loses, doubles and holds in memory, and how long scans take.

    python benchmarks/node.py WORK --phantoms data/phantoms [--only load kills] [--scans 500]
    python benchmarks/node.py WORK --table docs/results/node.csv

Needs dcmtk, whose storescu sends; `full` mounts a tmpfs as root, and `breaks` needs openssl. Every
part starts a node of its own at a free port of 127.0.0.1 and writes WORK/PART.json; a part that has
one is not measured again. A scan that was acknowledged counts as lost unless it came to the
destination or, where it must be refused, lies in the folder of refused scans with its sentence. It
counts as doubled if it came under two SOP Instance UIDs, or twice with different bytes.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import shutil
import socket
import subprocess
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from node_load import LOCAL, MIB, SEED, SENDERS, Archive, NodeProgram, Scan, Senders, scans, storescu, until
from pynetdicom import AE, evt
from pynetdicom.sop_class import NuclearMedicineImageStorage

from rbs.node.queue import State


def settled(node: NodeProgram, seconds: float) -> None:
    """Wait until nothing is left to be done."""
    until(node.idle, seconds)


def result(node: NodeProgram, senders: Senders, made: Iterable[Scan], begun: float) -> dict[str, Any]:
    """What became of the scans."""
    came = node.archive.came
    by_source, by_uid = defaultdict(set), defaultdict(set)
    for one in came:
        by_source[one["source"]].add(one["uid"])
        by_uid[one["uid"]].add(one["sha256"])
    refused = {}
    for entry in node.queue.entries(State.REFUSED):
        if entry.path.with_suffix(".txt").read_text().strip() and entry.path.stat().st_size:
            refused[entry.uid] = entry.reason
    scans_by_uid = {scan.uid: scan for scan in made}
    lost = []
    for uid in senders.acknowledged:
        wanted = scans_by_uid[uid].expected
        found = "delivered" if uid in by_source else "refused" if uid in refused else "stored nowhere"
        if found != wanted:
            lost.append({"uid": uid, "wanted": wanted, "found": found, "reason": refused.get(uid)})
    first = {}
    for one in came:
        first[one["source"]] = min(one["first"], first.get(one["source"], np.inf))
    waited = [first[uid] - at for uid, at in senders.acknowledged.items() if uid in first]
    own = [scan.uid for scan in scans_by_uid.values() if scan.expected == "stored nowhere"]
    known = {entry.uid for entry in node.queue.entries()}
    return {
        "sent": len(scans_by_uid),
        "calls": sum(senders.answers.values()),
        "answers": senders.answers,
        "acknowledged": len(senders.acknowledged),
        "unanswered": len(scans_by_uid) - len(senders.acknowledged) - len(senders.turned_away),
        "turned_away": len(senders.turned_away),
        "wrongly_turned_away": sum(scans_by_uid[u].expected != "turned away" for u in senders.turned_away),
        "refused": len(refused),
        "delivered": len(by_source),
        "own_output_stored": len(known.intersection(own)),
        "lost": lost,
        "doubled": sum(len(uids) > 1 for uids in by_source.values())
        + sum(len(contents) > 1 for contents in by_uid.values()),
        "sent_again": len(came) - len(by_uid),
        "seconds": waited,
        "scans_per_hour": 3600 * len(by_source) / (max(first.values()) - begun) if first else 0,
        "minutes": (time.time() - begun) / 60,
        "kills": node.kills,
        "memory": node.memory,
        "states": {str(state): count for state, count in node.queue.counts().items()},
        "load": os.getloadavg(),
        "cores": len(os.sched_getaffinity(0)),
    }


def idle(work: Path, phantoms: Path, number: int) -> dict[str, Any]:
    """One scan at a time: each is sent when the one before has come back."""
    made = scans(work / "scans", phantoms, number, plain=True)
    archive = Archive(work / "archive")
    with NodeProgram(work, archive).running() as node:
        begun, senders = time.time(), Senders(node.port, [])
        for scan in made:
            senders.acknowledged[scan.uid] = _last_byte(node.port, scan.path)
            until(lambda scan=scan: scan.uid in archive.sources(), 120)
        settled(node, 60)
        return result(node, senders, made, begun)


def _last_byte(port: int, path: Path) -> float:
    """Send a file; the time of its last byte."""
    sent = []
    entity = AE("CAMERA0")
    entity.add_requested_context(NuclearMedicineImageStorage)
    handlers = [(evt.EVT_DATA_SENT, lambda event: sent.append(time.time()))]
    way = entity.associate(LOCAL, port, ae_title="RBS", evt_handlers=handlers)
    if way.send_c_store(pydicom.dcmread(path)).Status:
        raise SystemExit("a scan was not acknowledged")
    last = sent[-1]
    way.release()
    return last


def load(work: Path, phantoms: Path, number: int) -> dict[str, Any]:
    """Many scans from eight senders at once."""
    own = sorted((work.parent / "idle" / "archive").glob("*.dcm"))
    made = scans(work / "scans", phantoms, number, binned=1, own=own)
    with NodeProgram(work, Archive(work / "archive")).running() as node:
        begun = time.time()
        senders = Senders(node.port, made)
        senders.join(900)
        received = time.time()
        settled(node, 3600)
        return result(node, senders, made, begun) | {"seconds_to_receive": received - begun}


def kills(work: Path, phantoms: Path, number: int) -> dict[str, Any]:
    """SIGKILL for node, worker or both at random moments while scans come."""
    made = scans(work / "scans", phantoms, number, binned=2)
    chance = random.Random(SEED)
    with NodeProgram(work, Archive(work / "archive")).running() as node:
        begun = time.time()
        senders = Senders(node.port, made, every=2)
        for _ in range(20):
            time.sleep(chance.uniform(0.5, 9))
            node.kill(chance.choice(("node", "worker", "both")))
        senders.join(600)
        settled(node, 900)
        return result(node, senders, made, begun)


def down(work: Path, phantoms: Path, number: int) -> dict[str, Any]:
    """No destination for a minute."""
    made = scans(work / "scans", phantoms, number, binned=2)
    archive = Archive(work / "archive")
    with NodeProgram(work, archive).running() as node:
        begun, senders = time.time(), Senders(node.port, made, every=1)
        until(lambda: len(archive.came) >= 2, 120)
        archive.stop()
        time.sleep(60)
        before, back = len(archive.came), time.time()
        archive.start()
        until(lambda: len(archive.came) > before, 120)
        resumed = time.time() - back
        senders.join(300)
        settled(node, 600)
        return result(node, senders, made, begun) | {"seconds_to_resume": resumed}


def full(work: Path, phantoms: Path, number: int) -> dict[str, Any]:
    """A disk that fills up to the last byte, and has room again after a while."""
    made = scans(work / "scans", phantoms, number)
    spool = work / "spool"
    spool.mkdir()
    size = 3 * number
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}m", "tmpfs", str(spool)], check=True)
    try:
        with NodeProgram(work, Archive(work / "archive"), reserve=0).running() as node:
            ballast = spool / "other_program"
            with ballast.open("wb") as file:
                file.write(bytes((size - number // 2) * MIB))
            begun, senders = time.time(), Senders(node.port, made)
            until(lambda: senders.answers["Refused: OutOfResources"] >= 20, 300)
            time.sleep(30)
            least = shutil.disk_usage(spool).free
            held, back = len(senders.acknowledged), time.time()
            ballast.unlink()
            until(lambda: len(senders.acknowledged) > held, 120)
            resumed = time.time() - back
            senders.join(300)
            settled(node, 900)
            told = {"seconds_to_resume": resumed, "acknowledged_before": held, "free_bytes_when_full": least}
            return result(node, senders, made, begun) | told
    finally:
        subprocess.run(["umount", "-l", str(spool)], check=True)


def breaks(work: Path, phantoms: Path, number: int) -> dict[str, Any]:
    """Senders that break off, are silent, unknown, or wrong about TLS, among good ones."""
    made = scans(work / "scans", phantoms, number, binned=2)
    broken = scans(work / "broken", phantoms, 20, plain=True)
    ours, theirs = _certificates(work / "ours"), _certificates(work / "theirs")
    tls = "[tls]\n" + "".join(f'{name} = "{path}"\n' for name, path in ours.items())
    peers = "".join(f'[[peers]]\nae_title = "CAMERA{n}"\naddresses = ["127.0.0.1"]\n' for n in range(SENDERS))
    foreign = _options({**theirs, "authority": ours["authority"]})
    chance, wrong = random.Random(SEED), Counter[str]()
    with NodeProgram(work, Archive(work / "archive"), more=tls + peers).running() as node:
        begun, senders = time.time(), Senders(node.port, made, _options(ours), every=1)
        silent = [socket.create_connection((LOCAL, node.port)) for _ in range(5)]
        for scan in broken:
            with _cut(node.port, chance.randrange(100, MIB)) as port:
                wrong["broke off: " + storescu(port, scan.path, *_options(ours))] += 1
            wrong["unknown title: " + storescu(node.port, scan.path, *_options(ours), title="STRANGER")] += 1
            wrong["other node: " + storescu(node.port, scan.path, *_options(ours), called="OTHER")] += 1
            wrong["no TLS: " + storescu(node.port, scan.path)] += 1
            wrong["foreign certificate: " + storescu(node.port, scan.path, *foreign)] += 1
        senders.join(300)
        settled(node, 600)
        for one in silent:
            one.close()
        known = {entry.uid for entry in node.queue.entries()}
        told = {"wrong": wrong, "of_wrong_stored": len(known & {scan.uid for scan in broken})}
        left = [path.name for path in (node.spool / "incoming").iterdir()]
        return result(node, senders, made, begun) | told | {"left_unfinished": left}


@contextmanager
def _cut(port: int, size: int) -> Iterator[int]:
    """A port that passes so many bytes on, and hangs up."""
    with socket.create_server((LOCAL, 0)) as server:

        def answers(source: socket.socket, to: socket.socket) -> None:
            with suppress(OSError):
                while piece := source.recv(65536):
                    to.sendall(piece)

        def serve() -> None:
            with suppress(OSError), server.accept()[0] as sender:
                with socket.create_connection((LOCAL, port)) as node:
                    threading.Thread(target=answers, args=(node, sender), daemon=True).start()
                    left = size
                    while left and (piece := sender.recv(min(left, 65536))):
                        node.sendall(piece)
                        left -= len(piece)
                sender.shutdown(socket.SHUT_RDWR)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1]


def _certificates(folder: Path) -> dict[str, Path]:
    """An authority and one certificate for both sides."""
    folder.mkdir()
    new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    sign = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "san"]
    (folder / "san").write_text("subjectAltName=IP:127.0.0.1\n")
    for command in (
        ["req", "-x509", *new, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=CA"],
        ["req", *new[:-2], "-keyout", "one.key", "-out", "one.csr", "-subj", "/CN=one"],
        ["x509", "-req", "-in", "one.csr", "-out", "one.pem", *sign],
    ):
        subprocess.run(["openssl", *command], cwd=folder, check=True, capture_output=True)
    return {"certificate": folder / "one.pem", "key": folder / "one.key", "authority": folder / "ca.pem"}


def _options(tls: dict[str, Path]) -> list[str | Path]:
    return ["+tls", tls["key"], tls["certificate"], "+cf", tls["authority"]]


def long(work: Path, phantoms: Path, minutes: int) -> dict[str, Any]:
    """Scans that come for so many minutes, with kills, broken associations and a silent archive."""
    every = 4.0
    made = scans(work / "scans", phantoms, int(60 * minutes / every), binned=2)
    broken = scans(work / "broken", phantoms, 1, plain=True)[0]
    archive, chance, downs = Archive(work / "archive"), random.Random(SEED), 0
    with NodeProgram(work, archive).running() as node:
        begun, senders = time.time(), Senders(node.port, made, every=every)
        while not senders.done():
            time.sleep(chance.uniform(10, 40))
            event = chance.choice(("kill", "kill", "cut", "cut", "down"))
            if event == "kill":
                node.kill(chance.choice(("node", "worker", "both")))
            elif event == "cut":
                with _cut(node.port, chance.randrange(100, MIB)) as port:
                    storescu(port, broken.path)
            else:
                downs += 1
                archive.stop()
                time.sleep(20)
                archive.start()
        settled(node, 900)
        _screenshot(f"http://{LOCAL}:{node.monitor}/", work / "status.png")
        return result(node, senders, made, begun) | {"downs": downs}


def _screenshot(url: str, path: Path) -> None:
    if browser := shutil.which("chromium"):
        shown = ["--headless", "--no-sandbox", "--hide-scrollbars", "--window-size=1200,1400"]
        subprocess.run([browser, *shown, f"--screenshot={path}", url], capture_output=True, timeout=90)


PARTS: dict[str, tuple[Callable[[Path, Path, int], dict[str, Any]], int, str]] = {
    "idle": (idle, 30, "one scan at a time"),
    "load": (load, 500, "8 senders at once"),
    "kills": (kills, 60, "kill -9 at 20 random moments"),
    "down": (down, 40, "destination down for a minute"),
    "full": (full, 60, "disk full"),
    "breaks": (breaks, 40, "senders that break off, are unknown or not encrypted"),
    "long": (long, 30, "left alone"),
}
"""Each part, how many scans or minutes it takes, and its row in the table."""


def table(work: Path, path: Path) -> None:
    """Write the measured parts as CSV."""
    rows = []
    for name, (_, _, title) in PARTS.items():
        if not (work / f"{name}.json").exists():
            continue
        found = json.loads((work / f"{name}.json").read_text())
        for problem in ("wrongly_turned_away", "own_output_stored", "unanswered"):
            if found[problem]:
                raise SystemExit(f"{name}: {problem} {found[problem]}")
        row = {"row": title, "minutes": f"{found['minutes']:.1f}", "cores": found["cores"]}
        row |= {key: found[key] for key in ("sent", "acknowledged", "turned_away", "refused", "delivered")}
        row |= {"lost": len(found["lost"]), "doubled": found["doubled"], "sent_again": found["sent_again"]}
        row["kills"] = sum(found["kills"].values())
        row["scans_per_hour"] = f"{found['scans_per_hour']:.0f}" if name == "load" else ""
        row |= {"median_s": "", "late_s": ""}
        if name in ("idle", "load"):  # elsewhere it says how long the trouble was
            row["median_s"], row["late_s"] = (f"{q:.1f}" for q in np.quantile(found["seconds"], (0.5, 0.95)))
        for process in ("node", "worker"):
            row |= _memory_of(found["memory"], process, steady=name == "load")
        rows.append(row)
    with path.open("w", newline="") as file:
        measured = [name for name in rows[0] if any(row[name] != "" for row in rows)]
        writer = csv.DictWriter(file, measured, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _memory_of(samples: list[dict[str, float]], process: str, *, steady: bool) -> dict[str, str]:
    """The most memory of a process, and its growth over the last three quarters of the time."""
    own = np.array([(sample["time"], sample[process]) for sample in samples if sample.get(process)])
    later = own[own[:, 0] > own[0, 0] + 0.25 * np.ptp(own[:, 0])]
    slope = 3600 * np.polyfit(later[:, 0] - later[0, 0], later[:, 1], 1)[0]
    shown = f"{round(slope)}" if steady else ""
    return {f"{process}_mib": f"{own[:, 1].max():.0f}", f"{process}_mib_per_hour": shown}


def main() -> None:
    """Measure the parts, or write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", type=Path)
    parser.add_argument("--phantoms", type=Path, help="folder of `rbs simulate`")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--scans", type=int, help="instead of the usual number, minutes of `long`")
    parser.add_argument("--table", type=Path)
    args = parser.parse_args()
    if args.table:
        table(args.work, args.table)
        return
    for name in args.only:
        measure, number, _ = PARTS[name]
        work, answer = (args.work / name).absolute(), args.work / f"{name}.json"
        if answer.exists():
            continue
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        found = measure(work, args.phantoms, args.scans or number)
        answer.write_text(json.dumps(found, indent=1))
        short = {key: value for key, value in found.items() if key not in ("memory", "seconds")}
        print(name, json.dumps(short), flush=True)


if __name__ == "__main__":
    main()
