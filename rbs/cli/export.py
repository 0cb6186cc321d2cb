"""`rbs export`: a restorer or segmenter as ONNX."""

from __future__ import annotations

import argparse
from pathlib import Path

from rbs.cli.options import add_allow_option, add_json, print_result
from rbs.weights.shipped import weights_path

HELP = "write a restorer or segmenter as ONNX, for programs without PyTorch"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("output", type=Path, metavar="OUT.onnx", help="file to write")
    parser.add_argument(
        "--checkpoint",
        type=weights_path,
        default="shipped",
        metavar="FILE",
        help=".safetensors or .ckpt (default: shipped, the restorer of rbs)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an older file")
    add_allow_option(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> None:
    """Write the file; print its inputs and its difference from PyTorch.

    Raises:
        RbsError: The weights cannot be read or exported, ONNX is missing, or the file cannot be
            written.
    """
    from rbs.inference.load import load_weights
    from rbs.inference.onnx_export import export_onnx

    loaded = load_weights(args.checkpoint)
    found = export_onnx(loaded, args.output, overwrite=args.overwrite)
    print_result(
        args,
        {
            "checkpoint": loaded.name,
            "output": args.output,
            "rapid": found.inputs,
            "difference": found.largest,
        },
        f"{loaded.name} -> {args.output}: rapid, {found.inputs}, {found.others}; ONNX Runtime and PyTorch"
        f" differ by at most {found.largest:.1g} of the peak",
    )
