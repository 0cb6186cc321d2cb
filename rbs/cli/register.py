"""`rbs register`: motion of a patient between two passes, and misalignment after registration."""

from __future__ import annotations

import argparse
from pathlib import Path

from rbs.cli.options import add_json, add_reading_options, print_result, reading_options

HELP = "measure how far a patient moved between a rapid and a standard scan, before and after registration"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("rapid", type=Path, metavar="RAPID", help="DICOM file of raw counts")
    parser.add_argument("standard", type=Path, metavar="STANDARD", help="likewise, of the same views")
    add_reading_options(parser, velocity=None)
    add_json(parser)


def run(args: argparse.Namespace) -> None:
    """Register a pair and print its motion and misalignment.

    Raises:
        ScanError: A file cannot be read, is not raw, or holds next to nothing.
        ManifestError: The files differ in patient, shape, views or spacing.
    """
    import numpy as np

    from rbs.data.matching import refuse_other_grid, refuse_two_patients
    from rbs.scans.dicom.reader import read_nm
    from rbs.scans.registration import estimate_motion, residual_misalignment

    rapid, standard = (read_nm(file, **reading_options(args)) for file in (args.rapid, args.standard))
    refuse_two_patients([args.rapid, args.standard], [rapid.patient_id, standard.patient_id])
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
    words = {
        "none": "no motion that could be told from noise",
        "rigid": "the body moved as a whole",
        "segments": "the body moved, and its parts by themselves",
    }
    lines = [f"{args.rapid} against {args.standard}: {words[motion.kind]}"]
    if motion.kind != "none":
        lines.append(
            f"  in the rapid scan (anterior view) its middle lies {abs(down):.1f} mm"
            f" {'lower' if down > 0 else 'higher'} and {abs(right):.1f} mm further"
            f" {'right' if right > 0 else 'left'}, turned by {np.rad2deg(motion.angle):.2f} degrees"
        )
    lines.append(f"  expected error of a displacement {motion.sd_mm:.2f} mm")
    lines.append(f"  misalignment in {len(before.sd_mm)} blocks, median and 95 %, mm:")
    for name, median, p95 in (
        ("as acquired", before.median_mm, before.p95_mm),
        ("registered", after.median_mm, after.p95_mm),
        ("by counting noise alone", after.floor_median_mm, after.floor_p95_mm),
    ):
        lines.append(f"    {name:<24} {median:.2f} {p95:.2f}")
    rounded = {key: round(value, 3) if isinstance(value, float) else value for key, value in found.items()}
    print_result(args, rounded, "\n".join(lines))
