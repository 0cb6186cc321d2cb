"""The newest results of `make bench` as tables.

    python benchmarks/table.py [runs/bench]

Wall seconds and core seconds are medians, for each thing that a call works on; ratios are to the
first row of a group. On a machine that does other work besides, core seconds are what to go by.
"""

from __future__ import annotations

import json
import sys
from itertools import groupby
from pathlib import Path
from typing import Any

from rbs.utils.markdown import markdown


def tables(results: dict[str, Any]) -> str:
    """Markdown: the machine, and a table a group."""
    machine = results["machine_info"]
    facts = (
        f"{results['datetime'][:10]}, commit {results['commit_info'].get('id', 'unknown')[:8]}",
        machine.get("cpu", {}).get("brand_raw", machine["processor"]),
        f"{machine['threads']} threads",
        f"load {machine['load']:.1f}",
        f"PyTorch {machine['torch']}",
        machine["accelerator"] or "no accelerator",
    )
    text = ", ".join(facts) + "\n"
    for group, members in groupby(results["benchmarks"], key=lambda run: run["group"]):
        rows = [row(run) for run in members]
        first = rows[0]
        printed = [
            [name, f"{s:.3g}", f"{core:.3g}", ratio(s, first[1]), ratio(core, first[2]), said]
            for name, s, core, said in rows
        ]
        text += "\n" + markdown([group, "s", "core-s", "ratio of s", "ratio of core-s", ""], printed)
    return text


def row(run: dict[str, Any]) -> tuple[str, float, float, str]:
    """Name, seconds, core seconds, and what else was noted."""
    about = dict(run["extra_info"])
    of = about.pop("of")
    core = about.pop("core_s") / of
    said = ", ".join(f"{name} {shown(value)}" for name, value in about.items() if value is not None)
    return run["param"] or run["name"], run["stats"]["median"] / of, core, said


def ratio(seconds: float, first: float) -> str:
    """As printed; nothing where the clock was too coarse."""
    return f"{seconds / first:.2f}" if first else ""


def shown(value: Any) -> str:
    """A noted value as printed."""
    if isinstance(value, dict):
        return "(" + ", ".join(f"{name} {shown(part)}" for name, part in value.items()) + ")"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/bench")
    newest = max(folder.rglob("*.json"), key=lambda path: path.stat().st_mtime)
    print(tables(json.loads(newest.read_text())))
