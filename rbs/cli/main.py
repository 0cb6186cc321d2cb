"""The command `rbs`: training through Lightning, everything else through plain subcommands.

Each plain subcommand is a module of `rbs.cli` (a hyphen is an underscore there) with `HELP`,
`add_arguments(parser)` and `run(args)`, which may return an exit status. None imports a heavy
library before it runs, so that `rbs --help` does not wait for a deep-learning framework.
"""

from __future__ import annotations

import argparse
import errno
import importlib
import io
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from rbs import __version__
from rbs.errors import FULL, RbsError
from rbs.utils.memory import keep_memory
from rbs.utils.threads import wait_passively

TRAINING = {
    "fit": "train: adapt the teacher, stage 1, stage 2",
    "validate": "run the validation loop on a checkpoint",
    "test": "run the test loop on a checkpoint",
}
PLAIN = (
    "simulate",
    "deidentify",
    "inspect",
    "check",
    "index",
    "thin",
    "recover-counts",
    "register",
    "prompt",
    "restore",
    "node",
    "watch",
    "segment",
    "quantify",
    "describe",
    "view",
    "export",
    "evaluate",
    "evaluate-real",
    "benchmark",
    "ablation",
    "sweep",
    "federate",
    "report",
)
RENAMED = {
    "phantom": "simulate --kind scans",
    "mucosa": "simulate --kind endoscopy",
    "index-frames": "index --kind endoscopy",
    "assess": "evaluate --observers",
    "predict": "restore",
}
"""Commands of versions before 0.2."""


def main(argv: list[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: Arguments after the program name; those of the process by default.

    Returns:
        The exit status: 0, or what the command returns; 1 after an error that the user can mend,
        printed as one sentence; 130 when interrupted; 141 when standard output is closed; 143 when
        terminated.
    """
    arguments = sys.argv[1:] if argv is None else argv
    command = arguments[0] if arguments else None
    keep_memory()
    wait_passively()
    _print_anything()
    try:
        if command in RENAMED:
            raise RbsError(f"`rbs {command}` is now `rbs {RENAMED[command]}`", remedy="use that")
        if command in TRAINING:
            from rbs.cli.options import take_allowed
            from rbs.tasks.fit import run_lightning

            run_lightning(take_allowed(arguments))
            status = 0
        else:
            args = _parser(command).parse_args(arguments)
            status = int(args.run(args) or 0)
        sys.stdout.flush()
    except RbsError as error:
        print(f"rbs: {error}", file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        from rbs.utils.extras import missing_package

        if (missing := missing_package(error)) is None:
            raise
        print(f"rbs: {missing}", file=sys.stderr)
        return 1
    except OSError as error:
        if (closed := _output_is_closed(error)) is not None:
            return closed
        # Any file may be unreadable; a traceback would tell a user nothing more.
        from rbs.utils.guard import system_error

        print(f"rbs: {system_error(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return _interrupted()
    except SystemExit as stop:
        if isinstance(stop.__context__, KeyboardInterrupt):  # Lightning has shut down gracefully
            return _interrupted()
        if stop.code is None:  # Lightning's answer to SIGTERM, which make must not take for success
            print("rbs: terminated", file=sys.stderr)
            return 143
        raise
    return status


def _print_anything() -> None:
    """Escape what the terminal's encoding lacks, as bytes of a file name that are no text."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _output_is_closed(error: OSError) -> int | None:
    """Exit status after standard output took no more; None where that is not the cause.

    It is known by having no name: whatever else is written is a file. A reader that has enough, as
    `head` has, is no fault, and the status is that of other programs then.
    """
    if error.filename is not None or error.errno not in (errno.EPIPE, *FULL):
        return None
    # What is left in the buffer must not be tried again at the end of the process.
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if error.errno == errno.EPIPE:
        return 141
    fault = f"standard output cannot be written ({error.strerror})"
    print(f"rbs: {RbsError(fault, remedy='free some space, or print elsewhere')}", file=sys.stderr)
    return 1


def _interrupted() -> int:
    print("rbs: interrupted", file=sys.stderr)
    return 130


def _parser(*wanted: str | None) -> argparse.ArgumentParser:
    """Parser of the plain subcommands; only those `wanted` are filled with their arguments."""
    parser = argparse.ArgumentParser(
        prog="rbs", description="Restore rapid whole-body bone scans. Research use only."
    )
    parser.add_argument("--version", action="version", version=f"rbs {__version__}")
    parser.add_argument(
        "--print-completion",
        action=_Completion,
        choices=("bash", "zsh", "tcsh"),
        help="print a script that completes commands, options and file names in that shell",
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name in PLAIN:
        module = importlib.import_module(f"rbs.cli.{name.replace('-', '_')}")
        command = commands.add_parser(name, help=module.HELP, description=module.HELP)
        if name in wanted:
            module.add_arguments(command)
            command.set_defaults(run=module.run)
    for name, text in TRAINING.items():
        commands.add_parser(name, help=f"{text} (`rbs {name} --help`)")
    return parser


class _Completion(argparse.Action):
    """Print the completion script of a shell and stop."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        """Print the script."""
        import shtab

        whole = _parser(*PLAIN)
        for command in whole._subparsers._group_actions[0].choices.values():  # type: ignore[union-attr]
            for action in command._actions:
                if action.type is Path:
                    action.complete = shtab.DIRECTORY if action.metavar == "DIR" else shtab.FILE
        print(shtab.complete(whole, values))
        parser.exit()
