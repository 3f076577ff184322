"""Entry of the command ``unival``: picks the subcommand, imports only that one and turns user errors into one line."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

PROGRAM = "unival"
DISTRIBUTION = "unival-plugin"

# Subcommand -> (module with ``add_arguments(parser)`` and ``run(args) -> int``, help line). The module is imported only
# when its subcommand is asked for, and must not import torch, fairseq or numpy before ``run``.
COMMANDS = {
    "predict": ("unival_cli.predict", "use a trained checkpoint: captions, answers, boxes, pictures for texts"),
    "inspect": ("unival_cli.inspect", "show what a checkpoint holds, without executing anything in it"),
    "convert": ("unival_cli.convert", "rewrite a checkpoint: .pt or .safetensors, averaged weights, fewer bits"),
    "merge": ("unival_cli.merge", "average checkpoints, or merge them in other ways, into one"),
    "data": ("unival_cli.data", "make, check, divide, shuffle and look at data files, and get public ones"),
}
EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141


class _Version(argparse.Action):
    """Looks the version up only when asked: importlib.metadata costs time that ``--help`` should not pay."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib import metadata

        try:
            version = metadata.version(DISTRIBUTION)
        except metadata.PackageNotFoundError:
            version = "(not installed: run from the source folder)"
        print(f"{PROGRAM} {version}")
        parser.exit()


def build_parser(chosen: str | None) -> argparse.ArgumentParser:
    """The parser with all subcommands listed, but only the arguments of ``chosen`` filled in."""
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Unified multimodal models on stock fairseq: use trained models and prepare data.",
        epilog="Training and evaluation are fairseq's own commands: fairseq-train ... --user-dir unival_plugin",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    parser.add_argument("--debug", action="store_true", help="show the full traceback of an error")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, (module, line) in COMMANDS.items():
        subparser = commands.add_parser(name, help=line, description=line[0].upper() + line[1:] + ".")
        if name == chosen:
            loaded = importlib.import_module(module)
            loaded.add_arguments(subparser)
            subparser.set_defaults(run_command=loaded.run)
    return parser


def _is_user_error(error: BaseException) -> bool:
    """Whether a user's input caused this; by name: importing ``unival_plugin.errors`` here would import torch."""
    return isinstance(error, OSError) or any(kind.__name__ == "UnivalError" for kind in type(error).__mro__)


def _one_line(error: BaseException) -> str:
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split())


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status: 0 done, 1 the answer is "no", 2 user error, 130 interrupted."""
    argv = sys.argv[1:] if argv is None else list(argv)
    # No option before the subcommand takes a value, so the first word that names a subcommand is the subcommand.
    chosen = next((word for word in argv if not word.startswith("-")), None)
    args = build_parser(chosen).parse_args(argv)
    try:
        return int(args.run_command(args))
    except KeyboardInterrupt:
        print(f"{PROGRAM}: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader (head, less) has gone: nothing more to say, also not when Python flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_BROKEN_PIPE
    except Exception as error:
        if args.debug or not _is_user_error(error):
            raise
        print(f"{PROGRAM}: error: {_one_line(error)}", file=sys.stderr)
        return EXIT_USER_ERROR
