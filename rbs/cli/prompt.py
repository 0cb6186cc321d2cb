"""`rbs prompt`: masks of a frame by SAM's own prompts, for a person to check."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

HELP = "draw the mask of a lesion in a frame with Segment Anything, by points or boxes, or all it finds"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("frame", type=Path, metavar="FRAME", help="picture")
    parser.add_argument(
        "out",
        type=Path,
        metavar="OUT",
        help="mask to write, .png: 255 in it, 0 elsewhere; without point or box a folder, for a mask each",
    )
    parser.add_argument(
        "--point",
        type=_numbers("X,Y"),
        action="append",
        default=[],
        metavar="X,Y",
        help="pixel of the object, right and down; may be given several times",
    )
    parser.add_argument(
        "--outside",
        type=_numbers("X,Y"),
        action="append",
        default=[],
        metavar="X,Y",
        help="pixel that is no part of it",
    )
    parser.add_argument(
        "--box",
        type=_numbers("X0,Y0,X1,Y1"),
        action="append",
        default=[],
        metavar="X0,Y0,X1,Y1",
        help="corners around one object; several boxes are several objects, joined in the mask",
    )
    parser.add_argument(
        "--size",
        choices=("vit_t", "vit_b", "vit_l", "vit_h"),
        default="vit_b",
        help="of SAM; Meta's are downloaded once, and the small one that ships knows no mucosa"
        " (default: %(default)s)",
    )
    parser.add_argument("--checkpoint", type=Path, metavar="FILE", help="SAM's weights, where you have them")


def run(args: argparse.Namespace) -> None:
    """Write the mask, or the masks.

    Raises:
        RbsError: The frame or SAM's weights cannot be used, a prompt makes no sense, or nothing can
            be written.
    """
    from rbs.endoscopy.files import read_frame, write_mask
    from rbs.errors import OutputError, RbsError, printable
    from rbs.segmentation.prompts import all_masks, mask_at
    from rbs.segmentation.sam import build_sam

    prompted = bool(args.point or args.outside or args.box)
    if args.out.exists():
        remedy = "choose another name or remove it first"
        raise OutputError("the output exists already", file=args.out, remedy=remedy)
    if prompted and args.out.suffix.lower() != ".png":
        raise OutputError("a mask is written as PNG", file=args.out, remedy="name a .png file")
    frame, sam = read_frame(args.frame), build_sam(args.size, args.checkpoint)
    if prompted:
        try:
            mask = mask_at(sam, frame, points=args.point, outside=args.outside, boxes=args.box)
        except ValueError as error:
            remedy = "count pixels from the upper left corner, right and down"
            raise RbsError(str(error), file=args.frame, remedy=remedy) from error
        write_mask(args.out, mask)
        print(printable(f"{args.frame}: {mask.mean():.1%} of the frame -> {args.out}"))
        return
    masks = all_masks(sam, frame)
    for number, mask in enumerate(masks, start=1):
        write_mask(args.out / f"{number:03d}.png", mask)
    where = f", the largest first -> {args.out}" if len(masks) else ""
    print(printable(f"{args.frame}: {len(masks)} masks{where}"))


def _numbers(names: str) -> Callable[[str], tuple[float, ...]]:
    """Type of an argument that is so many numbers, separated by commas."""

    def read(text: str) -> tuple[float, ...]:
        numbers = tuple(float(part) for part in text.split(","))
        if len(numbers) != len(names.split(",")):
            raise argparse.ArgumentTypeError(f"{text} is not {names}")
        return numbers

    read.__name__ = names  # what argparse says is invalid
    return read
