"""`rbs register`: how a patient moved between two passes, and what registration leaves of it."""

from __future__ import annotations

import argparse
from pathlib import Path

from rbs.cli.options import add_reading_options, reading_options

HELP = "say how far a patient moved between a rapid and a standard scan, and what registration leaves of it"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("rapid", type=Path, metavar="RAPID", help="DICOM file of raw counts")
    parser.add_argument("standard", type=Path, metavar="STANDARD", help="likewise, of the same views")
    add_reading_options(parser, velocity=None)
    parser.add_argument("--json", action="store_true", help="print a JSON object instead of text")


def run(args: argparse.Namespace) -> None:
    """Register a pair and print what was found.

    Raises:
        ScanError: A file cannot be read, is not raw, or holds next to nothing.
        ManifestError: The files differ in patient, shape, views or spacing.
    """
    import json

    import numpy as np

    from rbs.data.manifest import refuse_other_grid, refuse_two_patients
    from rbs.scans.dicom.reader import read_nm
    from rbs.scans.registration import estimate_motion, residual_misalignment

    rapid, standard = (read_nm(file, **reading_options(args)) for file in (args.rapid, args.standard))
    refuse_two_patients([args.rapid, args.standard], [rapid, standard])
    refuse_other_grid(args.rapid, rapid, args.standard, standard)
    pair = standard.aligned(), rapid.aligned(), standard.spacing_mm
    motion = estimate_motion(*pair)
    before, after = residual_misalignment(*pair), residual_misalignment(*pair, motion)
    down, right = motion.shift_mm
    found = {
        "motion": motion.kind,
        "down_mm": down,
        "right_mm": right,
        "turn_degrees": float(np.rad2deg(motion.angle)),
        "expected_error_mm": motion.sd_mm,
        "log_odds_rigid": motion.log_odds[0],
        "log_odds_segments": motion.log_odds[1],
        "blocks": len(before.sd_mm),
        "before_median_mm": before.median_mm,
        "before_p95_mm": before.p95_mm,
        "after_median_mm": after.median_mm,
        "after_p95_mm": after.p95_mm,
        "noise_median_mm": after.floor_median_mm,
        "noise_p95_mm": after.floor_p95_mm,
    }
    if args.json:
        # Without a single block that tells anything there is no median; JSON knows null, not NaN.
        plain = {k: None if v != v else round(v, 3) if isinstance(v, float) else v for k, v in found.items()}
        print(json.dumps(plain, indent=2))
        return
    say = {
        "none": "no motion that could be told from noise",
        "rigid": "the body moved as a whole",
        "segments": "the body moved, and its parts by themselves",
    }
    print(f"{args.rapid} against {args.standard}: {say[motion.kind]}")
    if motion.kind != "none":
        print(
            f"  in the rapid scan (anterior view) its middle lies {abs(down):.1f} mm"
            f" {'lower' if down > 0 else 'higher'} and {abs(right):.1f} mm further"
            f" {'right' if right > 0 else 'left'}, turned by {np.rad2deg(motion.angle):.2f} degrees"
        )
    print(f"  expected error of a displacement {motion.sd_mm:.2f} mm")
    print(f"  misalignment in {len(before.sd_mm)} blocks, median and 95 %, mm:")
    for name, median, p95 in (
        ("as acquired", before.median_mm, before.p95_mm),
        ("registered", after.median_mm, after.p95_mm),
        ("by counting noise alone", after.floor_median_mm, after.floor_p95_mm),
    ):
        print(f"    {name:<24} {median:.2f} {p95:.2f}")
