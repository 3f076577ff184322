"""``unival data``: the arguments of its subcommands, whose work is in modules that are imported when they run."""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

from .data_schemas import SCHEMAS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands of ``unival data``."""
    commands = parser.add_subparsers(dest="data_command", metavar="COMMAND", required=True)
    for add in (
        _add_index,
        _add_validate,
        _add_shuffle,
        _add_pack,
        _add_cider_df,
        _add_convert_df,
        _add_convert_answers,
    ):
        add(commands)


def run(args: argparse.Namespace) -> int:
    """Run the chosen subcommand."""
    module, function = args.data_function
    return int(getattr(importlib.import_module(module), function)(args))


def _add(
    commands: argparse._SubParsersAction, name: str, function: str, line: str, epilog: str
) -> argparse.ArgumentParser:
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


def _add_overwrite(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--overwrite", action="store_true", help="replace an existing output file")


def _add_columns(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--selected-cols",
        default=None,
        metavar="A,B,...",
        help="numbers of the columns (from 0) in the order of the task, as for fairseq-train (default: the task's own)",
    )


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
    parser = _add(
        commands,
        "validate",
        "data_validate:run_validate",
        "check every row of data files and print statistics",
        f"""Every bad row is printed as FILE:ROW:COLUMN: reason; rows count from 1, columns from 0 as in
--selected-cols.
Exit status: 0 all rows are good, 1 there are bad rows.

columns in the order of --selected-cols:
{columns}

example:
  unival data validate data/train_1.tsv --task caption --selected-cols 0,4,2 --workers 4
  unival data validate data/vqa_val.tsv --task vqa_gen --answers data/answers.json
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


def _add_shuffle(commands: argparse._SubParsersAction) -> None:
    parser = _add(
        commands,
        "shuffle",
        "data_index:run_shuffle",
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
    _add_overwrite(parser)


def _add_pack(commands: argparse._SubParsersAction) -> None:
    parser = _add(
        commands,
        "pack",
        "data_pack:run_pack",
        "make caption rows from a folder of pictures and a file of captions",
        """captions are one of
  CSV         with a header that names the columns: image,caption
  JSON lines  {"image": "cats/1.jpg", "caption": "a cat"}; "caption" may be a list of captions
  COCO JSON   {"images": [{"id", "file_name"}], "annotations": [{"image_id", "caption"}]}
The rows have the columns id, image id, caption, objects, picture: read them with --selected-cols 0,4,2.

example:
  unival data pack --images photos --captions photos.csv --output train.tsv
  unival data pack --images val2014 --captions captions_val2014.json --output val.tsv --join
  unival data validate train.tsv --task caption""",
    )
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help="folder of the pictures")
    parser.add_argument("--captions", type=Path, required=True, metavar="FILE", help=".csv, .jsonl or COCO .json file")
    parser.add_argument("--output", type=Path, required=True, metavar="TSV", help="file to write")
    parser.add_argument("--image-key", default="image", help="name of the picture column or key (default: image)")
    parser.add_argument("--caption-key", default="caption", help="name of the caption column or key (default: caption)")
    parser.add_argument("--paths", action="store_true", help="store relative paths instead of the pictures themselves")
    parser.add_argument(
        "--join",
        action="store_true",
        help='one row a picture with its captions joined by "&&" (validation and test files); else one row a caption',
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
