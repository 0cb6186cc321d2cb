"""`rbs thin`: simulate a faster scan from a slower one."""

from __future__ import annotations

import argparse
from pathlib import Path

from rbs.cli.options import add_json, add_reading_options, print_result, reading_options, within
from rbs.scans.ranges import VELOCITY

HELP = "simulate a faster scan: thin the counts of a raw scan binomially"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("source", type=Path, metavar="IN", help="DICOM file of raw counts")
    parser.add_argument("target", type=Path, metavar="OUT", help="DICOM file to write")
    parser.add_argument(
        "--velocity",
        type=within(VELOCITY),
        required=True,
        metavar="CM_PER_MIN",
        help="bed velocity to simulate",
    )
    parser.add_argument(
        "--remainder",
        type=Path,
        metavar="FILE",
        help="also write the counts left over: an independent scan to compare a restoration with",
    )
    add_reading_options(parser, velocity="--from-velocity")
    parser.add_argument("--seed", type=int, default=0, help="of the random draw (default: %(default)s)")
    add_json(parser)


def run(args: argparse.Namespace) -> None:
    """Thin a scan.

    Raises:
        ScanError: IN cannot be read, is not raw, or is no slower than the scan to simulate.
        OutputError: An output exists or cannot be written.
    """
    import hashlib

    import numpy as np

    from rbs.degradation.thinning import split
    from rbs.errors import OutputError, ScanError
    from rbs.scans.dicom.reader import read_nm
    from rbs.scans.dicom.writer import write_thinned_nm

    if args.remainder is not None and args.remainder.resolve() == args.target.resolve():
        raise OutputError("OUT and --remainder are the same file", file=args.target, remedy="name two files")
    scan = read_nm(args.source, **reading_options(args))
    if scan.velocity is None:
        remedy = "state it with --from-velocity CM_PER_MIN"
        raise ScanError("the scan velocity is unknown", file=args.source, remedy=remedy)
    exposure = scan.velocity / args.velocity
    if exposure >= 1:
        fault = f"it was acquired at {scan.velocity:.1f} cm/min: {args.velocity:g} cm/min is no faster"
        raise ScanError(fault, file=args.source, remedy="ask for a faster velocity")
    if args.remainder is not None and scan.velocity / (1 - exposure) not in VELOCITY:
        fault = f"{100 * (1 - exposure):.2g} % of its counts are too few for a scan of their own"
        raise ScanError(fault, file=args.source, remedy="leave out --remainder")
    # The seed is mixed with the counts: two views thinned with one seed must not share noise, and
    # the same counts are thinned alike whatever their file is called.
    pixels = np.ascontiguousarray(scan.counts, dtype=np.int64).tobytes()
    mixed = hashlib.sha256(f"{args.seed} {scan.counts.shape} ".encode() + pixels)
    rng = np.random.default_rng(int.from_bytes(mixed.digest()[:8], "big"))
    draw = f"{scan.provenance.sop_instance_uid} {mixed.hexdigest()} {scan.velocity!r} {args.velocity!r}"
    kept, left = split(scan.counts, (exposure, 1 - exposure), rng, scan.cut)
    parts = [(args.target, kept, exposure, "kept")]
    if args.remainder is not None:
        parts.append((args.remainder, left, 1 - exposure, "left over"))
    written: list[Path] = []
    try:
        for path, counts, part, role in parts:
            duration = None if scan.duration_s is None else scan.duration_s * part
            simulated = scan.with_counts(counts, velocity=scan.velocity / part, duration_s=duration)
            origin = f"{100 * part:.4g} % of the counts of a {scan.velocity:.4g} cm/min scan"
            description = f"{origin}, {role} by binomial thinning, seed {args.seed}"
            write_thinned_nm(path, simulated, scan, description=description, uid_seed=f"{draw} {role}")
            written.append(path)
    except BaseException:
        # Half of a pair is useless and would block the next attempt.
        for path in written:
            path.unlink(missing_ok=True)
        raise
    files = [
        {"file": path, "counts": int(counts.sum()), "exposure": part, "velocity": scan.velocity / part}
        for path, counts, part, _ in parts
    ]
    lines = [
        f"{f['file']}: {f['counts']:,} counts, {100 * f['exposure']:.1f} %, as at {f['velocity']:.1f} cm/min"
        for f in files
    ]
    head = f"{args.source}: {', '.join(scan.views)} (from {scan.provenance.view_rule})"
    document = {"source": args.source, "views": scan.views, "files": files}
    print_result(args, document, "\n".join([head, *lines]))
