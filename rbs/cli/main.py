"""The command `rbs`: training through Lightning, everything else through plain subcommands.

Each plain subcommand is a module of `rbs.cli` (a hyphen is an underscore there) with `HELP`,
`add_arguments(parser)` and `run(args)`. None imports a heavy library before it runs, so that `rbs
--help` does not wait for a deep-learning framework.
"""

from __future__ import annotations

import argparse
import importlib
import sys

from rbs.errors import RbsError
from rbs.utils.memory import keep_memory
from rbs.utils.threads import wait_passively

TRAINING = {
    "fit": "train: adapt the teacher, stage 1, stage 2",
    "validate": "run the validation loop on a checkpoint",
    "test": "run the test loop on a checkpoint",
    "predict": "restore the test scans of a data module",
}
PLAIN = (
    "phantom",
    "mucosa",
    "deidentify",
    "inspect",
    "index",
    "index-frames",
    "thin",
    "recover-counts",
    "register",
    "prompt",
    "restore",
    "export",
    "evaluate",
    "assess",
    "benchmark",
    "ablation",
    "sweep",
    "report",
)


def main(argv: list[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: Arguments after the program name; those of the process by default.

    Returns:
        The exit status: 0; 1 after an error that the user can mend, printed as one sentence; 130
        when interrupted; 143 when terminated.
    """
    arguments = sys.argv[1:] if argv is None else argv
    keep_memory()
    wait_passively()
    try:
        if arguments and arguments[0] in TRAINING:
            from rbs.cli.training import run_lightning

            run_lightning(arguments)
        else:
            args = _parser(arguments[0] if arguments else None).parse_args(arguments)
            args.run(args)
    except RbsError as error:
        print(f"rbs: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        # Whatever asks for a file may meet one it must not see; nothing is gained by a traceback.
        fault = f"it cannot be read or written ({error.strerror or error})"
        print(f"rbs: {RbsError(fault, file=error.filename, remedy='check the permissions')}", file=sys.stderr)
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
    return 0


def _interrupted() -> int:
    print("rbs: interrupted", file=sys.stderr)
    return 130


def _parser(wanted: str | None) -> argparse.ArgumentParser:
    """The parser of the plain subcommands; only `wanted` is filled with its arguments."""
    parser = argparse.ArgumentParser(
        prog="rbs", description="Restore rapid whole-body bone scans. Research use only."
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name in PLAIN:
        module = importlib.import_module(f"rbs.cli.{name.replace('-', '_')}")
        command = commands.add_parser(name, help=module.HELP, description=module.HELP)
        if name == wanted:
            module.add_arguments(command)
            command.set_defaults(run=module.run)
    for name, text in TRAINING.items():
        commands.add_parser(name, help=f"{text} (`rbs {name} --help`)")
    return parser
