"""Turn a public data set, as its owners publish it, into rows for training and evaluation.

    python dataset_tools/build.py --list
    python dataset_tools/build.py coco-captions --help
    python dataset_tools/build.py coco-captions --raw raw/coco --output data/ofa/caption_data --workers 8

The rows hold the pictures themselves, or, with --paths, their paths below --raw (then --image-dir of the tasks is the
folder --raw); those of films and sounds always hold paths. Training on several data sets at once, as multitask
pretraining, has one --image-dir for all: give a folder that holds all raw folders here, too, and paths start there.

    python dataset_tools/build.py coco-captions --raw raw/coco --output data/ofa/caption_data --paths --image-dir raw

A table appears under its name when it is complete. What is done of it stays in .NAME.part beside it when the tool is
stopped, and the same command goes on from there; tables that exist are left alone. In the end the rows are compared
with the number that the owners publish.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Optional, Union

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from public import BUILDERS
from public.parts import Builder, Document, Split
from public.web import shards

from unival_cli.data_schemas import FILE_COLUMNS
from unival_cli.files import atomic_output
from unival_cli.light import light
from unival_cli.links import human_size, load_links
from unival_cli.row_writer import Cell, Item, Medium, Record, Summary, write_rows
from unival_cli.unfinished_output import fingerprint

TOOL = "build.py"
Output = Union[Split, Document]

# -------------------------------------------------------------------------------- building


def build(builder: Builder, args: argparse.Namespace) -> None:
    """Write the outputs that are asked for. Raises OSError or ValueError."""
    chosen = choose(builder, args.splits)
    check_raw_files(builder, chosen, args.raw)
    paths = args.paths or builder.media != "pictures"
    if args.image_dir is not None and not paths:
        raise light("errors").ConfigError("--image-dir: rows hold the pictures themselves; leave it out or add --paths")
    prefix = path_prefix(args.raw, args.image_dir or args.raw)
    if args.paths:
        check_links(args.raw, args.image_dir or args.raw)
    args.output.mkdir(parents=True, exist_ok=True)
    for part in chosen:
        path = args.output / part.output
        if path.exists() and not args.overwrite:
            print(f"{path}: exists, left as it is (--overwrite replaces it)")
        elif isinstance(part, Document):
            report_document(path, part, write_document(path, part, args))
        else:
            report_split(path, part, builder, write_split(path, part, builder, args, prefix))


def choose(builder: Builder, names: Optional[str]) -> list[Output]:
    """The outputs of these names, or the usual ones. Raises ConfigError."""
    if names is None:
        return [part for part in builder.outputs if part.usual]
    known = {part.name: part for part in builder.outputs}
    wanted = [name.strip() for name in names.split(",")]
    for name in wanted:
        if name not in known:
            raise light("errors").ConfigError(f"--splits: {builder.name} has no {name!r}; it has {', '.join(known)}")
    return [known[name] for name in dict.fromkeys(wanted)]


def check_raw_files(builder: Builder, chosen: Sequence[Output], raw: Path) -> None:
    """Raises DataError that names all missing files."""
    missing = [
        name for name in dict.fromkeys(name for part in chosen for name in part.files) if not (raw / name).exists()
    ]
    if missing:
        raise light("errors").DataError(
            f"{raw} lacks {', '.join(missing)}: get them from {'; '.join(map(address, builder.links))}; "
            f"how the folder must look: python dataset_tools/build.py {builder.name} --help"
        )


def path_prefix(raw: Path, folder: Path) -> str:
    """How paths begin that start in ``folder`` and lead to ``raw``. Raises ConfigError if it is not in there."""
    real, root = raw.resolve(), folder.resolve()
    if not real.is_relative_to(root):
        also = "" if real == Path.cwd() / raw else f" (really {real})"
        raise light("errors").ConfigError(
            f"--image-dir {folder} does not hold --raw {raw}{also}, and the tasks do not read outside of it: "
            "name a folder that holds it, or move the files"
        )
    return "" if real == root else f"{real.relative_to(root).as_posix()}/"


def check_links(raw: Path, root: Path) -> None:
    """Raises ConfigError if a folder is a link that leaves ``root``: the tasks refuse paths that leave --image-dir."""
    for folder in sorted((*raw.glob("*"), *raw.glob("*/*"))):
        if folder.is_symlink() and folder.is_dir() and not folder.resolve().is_relative_to(root.resolve()):
            raise light("errors").ConfigError(
                f"--paths: {folder} is a link to {folder.resolve()}, outside of {root}, where the tasks do not read: "
                "move the folder, name one that holds both with --image-dir, or write without --paths"
            )


def write_split(path: Path, split: Split, builder: Builder, args: argparse.Namespace, prefix: str) -> Summary:
    """Write a table; ``prefix`` stands before each path."""
    return write_rows(
        path,
        partial(rows_of, split, args.raw, prefix),
        inputs={
            "builder": builder.name,
            "split": split.name,
            "raw": str(args.raw.resolve()),
            "files": {name: known_by(args.raw / name) for name in split.files},
            "prefix": prefix,
        },
        workers=args.workers,
        paths=args.paths or builder.media != "pictures",
        on_bad=args.on_missing,
        overwrite=args.overwrite,
        tool=f"{TOOL} {builder.name}",
        media=builder.media,
    )


def rows_of(split: Split, raw: Path, prefix: str) -> Iterator[Item]:
    """The rows of a table, with ``prefix`` before each path."""
    for item in split.records(raw):
        if prefix and isinstance(item, Record):
            item = replace(item, cells=tuple(_prefixed(cell, prefix) for cell in item.cells))
        yield item


def _prefixed(cell: Cell, prefix: str) -> Cell:
    return replace(cell, cell=prefix + cell.cell) if isinstance(cell, Medium) else cell


def known_by(path: Path) -> dict[str, Any]:
    """What a raw file, or a folder with shards, is known by; shards are not looked into."""
    if not path.is_dir():
        return fingerprint(path)
    facts = json.dumps([fingerprint(shard) for shard in shards(path)]).encode()
    return {"path": str(path.resolve()), "shards": hashlib.blake2b(facts, digest_size=16).hexdigest()}


def write_document(path: Path, document: Document, args: argparse.Namespace) -> dict[str, int]:
    """Write a JSON file; its numbers of entries."""
    content = document.content(args.raw)
    with atomic_output(path, args.overwrite) as out:
        out.write(json.dumps(content, ensure_ascii=False, indent=1).encode("utf-8") + b"\n")
    return document.counts(content)


def report_split(path: Path, split: Split, builder: Builder, summary: Summary) -> None:
    """Print what was written, what was not, and how that is beside the published number."""
    print(f"{path}: {summary.rows} rows, {summary.media} {builder.media}, {human_size(summary.bytes)}")
    for reason, count in summary.left_out.items():
        print(f"  left out: {count} {reason}")
    if summary.bad:
        print(f"  left out: {summary.bad} whose {builder.media} are missing or cannot be used")
    compare(summary.rows, split.expected, "rows")


def report_document(path: Path, document: Document, counts: dict[str, int]) -> None:
    """Print what was written, and how that is beside the published number."""
    print(f"{path}: {', '.join(f'{count} {what}' for what, count in counts.items())}")
    first = next(iter(counts))
    compare(counts[first], document.expected, first)


def compare(found: int, expected: Optional[int], what: str) -> None:
    """Print a note if these are not the published number."""
    if expected is not None and found != expected:
        fewer = "rows were left out, or the raw folder is not complete or of another version"
        print(f"  note: {found} of {expected} expected {what}: {fewer if found < expected else 'another version'}")


# -------------------------------------------------------------------------------- describing


def address(name: str) -> str:
    """A link's name with its url or, where nothing can be fetched, its page."""
    link = load_links().get(name)
    return f"{name} ({link.url or link.page})" if link else name


def listing() -> Iterable[str]:
    """A line for each builder."""
    width = max(map(len, BUILDERS))
    for builder in BUILDERS.values():
        yield f"{builder.name:{width}}  {builder.task:14} {builder.title}"


def description(builder: Builder) -> str:
    """What ``NAME --help`` tells."""
    lines = [f"{builder.title} ({builder.task})", f"licence: {builder.licence}", "", "from:"]
    lines += [f"  {address(name)}" for name in builder.links]
    lines += ["", "the folder --raw must look so:", *(f"  {line}" for line in builder.layout.splitlines())]
    lines += ["", f"outputs (rows: {', '.join(FILE_COLUMNS[builder.task])}):"]
    lines += [f"  {part.output}{_told(part)}" for part in builder.outputs]
    return "\n".join([*lines, "", _command(builder)])


def _command(builder: Builder) -> str:
    flags = f" {builder.flags}" if builder.flags else ""
    return f"python dataset_tools/build.py {builder.name} --raw {builder.raw_folder} --output {builder.folder}{flags}"


def _told(part: Output) -> str:
    told = [f"{part.expected:,}" if part.expected is not None else "", part.note]
    told += [] if part.usual else ["only with --splits"]
    words = "; ".join(word for word in told if word)
    return f": {words}" if words else ""


def markdown() -> Iterable[str]:
    """The builders as a section of ``datasets.md``, line by line."""
    for builder in BUILDERS.values():
        yield from ("", f"### {builder.title} (`{builder.name}`)", "")
        links = ", ".join(map(_markdown_link, builder.links))
        yield f"Task `{builder.task}`; licence: {builder.licence}. From {links}."
        yield from ("", *(f"    {line}" for line in builder.layout.splitlines()), "", "Built with:", "")
        yield f"    {_command(builder)} --workers 8"
        where = f" Rows hold paths: IMAGE_DIR={builder.raw_folder}." if "--paths" in builder.flags else ""
        yield from ("", f"Columns: {', '.join(FILE_COLUMNS[builder.task])}.{where}", "")
        yield from ("| file | rows | |", "|---|---|---|")
        for part in builder.outputs:
            rows = f"{part.expected:,}" if part.expected is not None else ""
            note = "; ".join(word for word in (part.note, "" if part.usual else "only with `--splits`") if word)
            yield f"| `{part.output}` | {rows} | {note} |"


def _markdown_link(name: str) -> str:
    link = load_links().get(name)
    return f"[{name}]({link.url or link.page})" if link else f"`{name}`"


# -------------------------------------------------------------------------------- command


class Help(argparse.Action):
    """--help; behind the name of a data set it tells what that needs."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, *_: object) -> None:
        parser.print_help()
        builder = BUILDERS.get(getattr(namespace, "name", None) or "")
        if builder is not None:
            print(f"\n{description(builder)}")
        parser.exit()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=TOOL, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, add_help=False
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="data set: see --list")
    parser.add_argument("-h", "--help", nargs=0, action=Help, help="show this; behind a NAME also what that needs")
    parser.add_argument("--list", action="store_true", help="name all data sets with their tasks")
    parser.add_argument("--markdown", action="store_true", help="describe all data sets as in datasets.md")
    parser.add_argument("--raw", type=Path, metavar="DIR", help="folder with what the owners publish, unpacked")
    parser.add_argument("--output", type=Path, metavar="DIR", help="folder for the tables")
    parser.add_argument("--splits", metavar="A,B", help="names of the outputs to build (default: all usual ones)")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="threads that read files (default: 1)")
    parser.add_argument("--paths", action="store_true", help="write paths instead of the pictures")
    parser.add_argument(
        "--image-dir",
        type=Path,
        metavar="DIR",
        help="folder in which paths start, as --image-dir of the tasks; holds --raw (default: --raw)",
    )
    parser.add_argument(
        "--on-missing",
        choices=("raise", "skip"),
        default="raise",
        help="stop at files that are missing or no pictures, or leave their rows out and count them (default: raise)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace tables of an earlier call")
    return parser


def main(argv: Optional[Sequence[str]] = None) -> int:
    parser = _parser()
    args = parser.parse_args(argv)
    if args.list or args.markdown:
        print("\n".join(listing() if args.list else markdown()))
        return 0
    if args.name not in BUILDERS:
        parser.error(f"name a data set: {', '.join(BUILDERS)}")
    if args.raw is None or args.output is None:
        parser.error("--raw and --output are needed")
    if args.workers < 1:
        parser.error("--workers must be at least 1")
    try:
        build(BUILDERS[args.name], args)
    except (OSError, ValueError) as error:
        print(f"{TOOL}: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
