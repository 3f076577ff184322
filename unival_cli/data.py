"""``unival data``: the arguments of its subcommands, whose work is in modules that are imported when they run."""

from __future__ import annotations

import argparse
import importlib
import textwrap
from pathlib import Path

from .data_own import add_answers, add_negatives, add_pack, add_pretraining, add_show, add_split
from .data_parsers import add_columns as _add_columns
from .data_parsers import add_command as _add
from .data_parsers import add_overwrite as _add_overwrite
from .data_report import DEFECTS
from .data_schemas import SCHEMAS
from .links import KINDS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands of ``unival data``."""
    commands = parser.add_subparsers(dest="data_command", metavar="COMMAND", required=True)
    for add in (
        _add_index,
        _add_validate,
        _add_shuffle,
        add_pack,
        add_split,
        add_show,
        add_answers,
        add_pretraining,
        add_negatives,
        _add_cider_df,
        _add_convert_df,
        _add_convert_answers,
        _add_links,
        _add_fetch,
    ):
        add(commands)


def run(args: argparse.Namespace) -> int:
    """Run the chosen subcommand."""
    module, function = args.data_function
    return int(getattr(importlib.import_module(module), function)(args))


def _add_index(commands: argparse._SubParsersAction) -> None:
    parser = _add(
        commands,
        "index",
        "data_index:run_index",
        "build the line index (FILE.idx) of data files",
        """The index is also built on first use; building it beforehand spares that time and allows read-only folders.

example:
  unival data index data/train_1.tsv data/train_2.tsv""",
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="TSV files")


def _add_validate(commands: argparse._SubParsersAction) -> None:
    columns = "\n".join(f"  {name}: {schema.describe()}" for name, schema in SCHEMAS.items())
    kinds = textwrap.fill(", ".join(DEFECTS), 110, initial_indent="  ", subsequent_indent="  ")
    parser = _add(
        commands,
        "validate",
        "data_validate:run_validate",
        "check every row of data files and print statistics",
        f"""Every bad row is printed as FILE:ROW:COLUMN: reason; rows count from 1, columns from 0 as in
--selected-cols.
Exit status: 0 all rows are good, 1 there are bad rows. Files of any size are checked in little memory (about 50 MB
a process and 30 MB for a million rows); films and sounds need torch, which takes more.

kinds of defects, which are counted at the end and named in --report:
{kinds}

columns in the order of --selected-cols:
{columns}

example:
  unival data validate data/train_1.tsv --task caption --selected-cols 0,4,2 --workers 4
  unival data validate data/vqa_val.tsv --task vqa_gen --answers data/answers.json --report bad.jsonl
  unival data validate data/coco_vqgan_train_1.tsv --task image_gen --code-image-size 256""",
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="TSV files")
    parser.add_argument(
        "--task", choices=sorted(SCHEMAS), default="caption", help="what the rows are for (default: caption)"
    )
    _add_columns(parser)
    parser.add_argument(
        "--answers",
        type=Path,
        default=None,
        metavar="FILE",
        help="answer set (JSON list or object, or a text file with an answer a line): other answers are reported",
    )
    parser.add_argument(
        "--code-dict-size",
        type=int,
        default=None,
        metavar="N",
        help="codes of pictures must be below it (default: 8192)",
    )
    parser.add_argument(
        "--code-image-size",
        type=int,
        default=None,
        metavar="N",
        help="side in pixels of the pictures that codes stand for (default: as the first row's number of codes says)",
    )
    parser.add_argument("--read-from-img-path", action="store_true", help="the picture column holds a path, not base64")
    parser.add_argument("--image-dir", type=Path, default=None, metavar="DIR", help="folder of the paths")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes (default: 1)")
    parser.add_argument("--limit", type=int, default=None, metavar="N", help="check only the first N rows of each file")
    parser.add_argument(
        "--max-errors",
        type=int,
        default=100,
        metavar="N",
        help="print only the first N bad cells of each file, count all (default: 100; 0: print all)",
    )
    parser.add_argument(
        "--report",
        type=Path,
        default=None,
        metavar="FILE.jsonl",
        help="write all bad cells as lines of JSON: file, row, column (null: the whole row), kind, reason",
    )
    _add_overwrite(parser)


def _add_shuffle(commands: argparse._SubParsersAction) -> None:
    parser = _add(
        commands,
        "shuffle",
        "data_shuffle:run_shuffle",
        "write a file's rows in random order, without loading the file",
        """With --copies K the order of each copy differs: OUT_1.tsv ... OUT_K.tsv, one file per epoch.

example:
  unival data shuffle train.tsv train_shuffled.tsv --seed 1 --copies 10
  fairseq-train train_shuffled_1.tsv,...,train_shuffled_10.tsv,val.tsv --user-dir unival_plugin ...""",
    )
    parser.add_argument("input", type=Path, metavar="IN", help="TSV file")
    parser.add_argument("output", type=Path, metavar="OUT", help="TSV file to write")
    parser.add_argument("--seed", type=int, default=1, help="same seed, same order (default: 1)")
    parser.add_argument("--copies", type=int, default=None, metavar="K", help="write K files, each in its own order")
    parser.add_argument(
        "--memory",
        type=int,
        default=128,
        metavar="MB",
        help="hold so much of the file at a time (default: 128); files that are larger are read and written twice",
    )
    _add_overwrite(parser)


def _add_cider_df(commands: argparse._SubParsersAction) -> None:
    parser = _add(
        commands,
        "cider-df",
        "data_cider:run_cider_df",
        "count the document frequencies that CIDEr-D needs",
        """A document is all captions of one picture: a row whose captions are joined by "&&", or with --group-col all
rows that have the same image id.

example:
  unival data cider-df data/val.tsv --selected-cols 0,4,2 --output data/val_df.json
  unival data cider-df data/train.tsv --group-col 1 --output data/train_df.json
  unival data cider-df data/train.tsv --rewards --output data/train_reward_df.json""",
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="TSV", help="caption files")
    _add_columns(parser)
    parser.add_argument("--group-col", type=int, default=None, metavar="N", help="column of the image id (from 0)")
    parser.add_argument(
        "--rewards",
        action="store_true",
        help="for --scst-cider-cached-tokens: count captions as reward training compares them, with <eos> as last word",
    )
    parser.add_argument("--output", type=Path, required=True, metavar="JSON", help="file to write")
    _add_overwrite(parser)


def _add_convert_df(commands: argparse._SubParsersAction) -> None:
    parser = _add(
        commands,
        "convert-df",
        "data_cider:run_convert_df",
        "turn a document-frequency pickle (coco-train-words.p) into JSON",
        """The pickle is read without running any code that it may hold.

example:
  unival data convert-df coco-train-words.p coco-train-words.json""",
    )
    parser.add_argument("input", type=Path, metavar="IN.p", help="pickle of the reference implementation")
    parser.add_argument("output", type=Path, metavar="OUT.json", help="file to write")
    _add_overwrite(parser)


def _add_convert_answers(commands: argparse._SubParsersAction) -> None:
    parser = _add(
        commands,
        "convert-answers",
        "data_answers:run_convert_answers",
        "turn a pickled set of answers (trainval_ans2label.pkl) into JSON",
        """The pickle is read without running any code that it may hold. The order of the answers stays as it is.

example:
  unival data convert-answers trainval_ans2label.pkl answers.json""",
    )
    parser.add_argument("input", type=Path, metavar="IN.pkl", help="pickle of the reference implementation")
    parser.add_argument("output", type=Path, metavar="OUT.json", help="file to write")
    _add_overwrite(parser)


def _add_links(commands: argparse._SubParsersAction) -> None:
    kinds = "\n".join(f"  {kind:12} {what}" for kind, what in KINDS.items())
    parser = _add(
        commands,
        "links",
        "links:run_links",
        "show the addresses of public checkpoints and data, or check a file against them",
        f"""Names alone show all that is known of them. Nothing is downloaded.

kinds:
{kinds}

examples:
  unival data links --kind trunk
  unival data links clip-vit-b-16
  unival data links clip-vit-b-16 --check ViT-B-16.pt""",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="names of links (default: all, a line each)")
    parser.add_argument("--kind", choices=KINDS, default=None, help="only links of this kind")
    parser.add_argument(
        "--check",
        type=Path,
        default=None,
        metavar="FILE",
        help="compare a file with the published size and checksum of the one link named; exit status 1 if it differs",
    )


def _add_fetch(commands: argparse._SubParsersAction) -> None:
    parser = _add(
        commands,
        "fetch",
        "links_fetch:run_fetch",
        "download files by their name in the list of links, and check them",
        """A download that was stopped goes on where it was when the command is run again, if the server can do so.
A file gets its name when it is complete and equals the published size and checksum; where none is published, its
SHA-256 is printed. Archives are not unpacked.

examples:
  unival data fetch bart-base resnet101-a1h --output downloads
  unival data fetch coco-train2014 --output raw/coco --url https://mirror.example/train2014.zip""",
    )
    parser.add_argument("names", nargs="+", metavar="NAME", help="names as unival data links shows them")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder to write to")
    parser.add_argument(
        "--url", default=None, metavar="URL", help="address of a copy to be used instead (one link; http is allowed)"
    )
    _add_overwrite(parser)
