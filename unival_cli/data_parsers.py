"""What the parsers of several subcommands of ``unival data`` share."""

from __future__ import annotations

import argparse


def add_command(
    commands: argparse._SubParsersAction, name: str, function: str, line: str, epilog: str
) -> argparse.ArgumentParser:
    """A subcommand that runs ``function`` ("module:name" in this package), which is imported only then."""
    parser = commands.add_parser(
        name,
        help=line,
        description=line[0].upper() + line[1:] + ".",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    module, _, attribute = function.partition(":")
    parser.set_defaults(data_function=(f"unival_cli.{module}", attribute))
    parser.add_argument(
        "--debug", action="store_true", default=argparse.SUPPRESS, help="show the traceback of an error"
    )
    return parser


def add_overwrite(parser: argparse.ArgumentParser) -> None:
    """``--overwrite``"""
    parser.add_argument("--overwrite", action="store_true", help="replace an existing output file")


def add_columns(parser: argparse.ArgumentParser) -> None:
    """``--selected-cols``"""
    parser.add_argument(
        "--selected-cols",
        default=None,
        metavar="A,B,...",
        help="numbers of the columns (from 0) in the order of the task, as for fairseq-train (default: the task's own)",
    )
