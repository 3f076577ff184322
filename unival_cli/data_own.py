"""Arguments of the subcommands of ``unival data`` for data of your own: pack, split, show, answers, negatives."""

from __future__ import annotations

import argparse
from pathlib import Path

from .data_parsers import add_columns, add_command, add_overwrite
from .data_pretraining import TYPE_OF_TASK
from .data_schemas import FILE_COLUMNS, ROW_TYPES, SCHEMAS
from .negative_arguments import LINE, RULE, add_arguments


def add_pack(commands: argparse._SubParsersAction) -> None:
    """``unival data pack``"""
    columns = "\n".join(f"  {task}: {', '.join(names)}" for task, names in FILE_COLUMNS.items() if task != "image_gen")
    parser = add_command(
        commands,
        "pack",
        "data_pack:run_pack",
        "make rows of any task from a table and a folder of pictures, films or sounds",
        f"""--data (or --captions) is one of
  CSV, TSV      with a header that names the columns: image,caption (of a spreadsheet: save it as CSV UTF-8)
  JSON lines    {{"image": "cats/1.jpg", "caption": "a cat"}}; texts may be lists: a row for each
  JSON          a list of such objects, or COCO: {{"images": [...], "annotations": [{{"image_id", "caption"}}]}}
  Hugging Face  the folder that save_to_disk writes, or with .parquet files; one such file (needs pyarrow)
  WebDataset    .tar shards with NAME.jpg and NAME.txt (caption) or NAME.json (fields); they are never unpacked.
                Quote patterns: 'shards/train-{{0000..0127}}.tar', 'shards/*.tar'
Pictures are copied into the rows as they are; films and sounds stay files, whose paths start in --images.

fields, with the names that are looked for if no --...-key is given:
  all tasks  image (video, audio), file_name, path, ...; image_id
  captions   caption, captions or text; objects: names
  questions  question; answers or answer: a text, objects {{"answer", "confidence"}}, or the list of what annotators
             said, of which n equal answers have the confidence min(1, 0.3 n); question_id
  refcoco    expression or sentence; box or bbox: [x0, y0, x1, y1] in pixels, or --box-format xywh
  snli_ve    hypothesis; label: entailment, contradiction or neutral; caption or premise
Several texts in a record are several rows, with --join one. Rows are numbered from 0 unless there is an id.

columns of the rows:
{columns}

example:
  unival data pack --images photos --data photos.csv --output train.tsv
  unival data pack --images val2014 --data captions_val2014.json --output val.tsv --join
  unival data pack --task vqa_gen --data my_vqa_folder --split train --output vqa_train.tsv
  unival data pack --task refcoco --images photos --data boxes.jsonl --box-format xywh --output boxes.tsv
  unival data pack --task audio_caption --images sounds --data sounds.csv --output sounds.tsv
  unival data validate train.tsv --task caption""",
    )
    parser.add_argument(
        "--data",
        "--captions",
        type=Path,
        required=True,
        metavar="FILE_OR_FOLDER",
        help="the table: .csv, .tsv, .jsonl, .json, .parquet, .arrow, .tar, or a folder of a Hugging Face data set",
    )
    parser.add_argument(
        "--images",
        "--media",
        type=Path,
        default=None,
        metavar="DIR",
        help="folder in which the paths of pictures, films or sounds start (default: the folder of the table)",
    )
    parser.add_argument("--output", type=Path, required=True, metavar="TSV", help="file to write")
    parser.add_argument(
        "--task", choices=sorted(FILE_COLUMNS), default="caption", help="what the rows are for (default: caption)"
    )
    parser.add_argument("--split", default=None, metavar="NAME", help="which split of a Hugging Face data set")
    _add_keys(parser)
    parser.add_argument(
        "--box-format",
        choices=("xyxy", "xywh"),
        default=None,
        help="boxes are left, upper, right, lower edge, or left, upper edge, width, height (default: xyxy)",
    )
    parser.add_argument(
        "--row-type", choices=list(ROW_TYPES), default=None, help="of --task unify_task: the type of all rows"
    )
    parser.add_argument("--dataset", default=None, metavar="NAME", help="of --task unify_task: name of the data set")
    parser.add_argument("--paths", action="store_true", help="store relative paths instead of the pictures themselves")
    parser.add_argument(
        "--join",
        action="store_true",
        help='one row a picture with its captions joined by "&&" (validation and test files); else one row a caption',
    )
    parser.add_argument(
        "--on-bad-row",
        choices=("raise", "skip"),
        default="raise",
        help="stop at a record that cannot be used, or name it, leave it out and count it (default: raise)",
    )
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="threads that read pictures (default: 1)")
    add_overwrite(parser)


def _add_keys(parser: argparse.ArgumentParser) -> None:
    keys = {
        "id": "the row's id",
        "image-id": "the id of the picture, film or sound",
        "image": "the path of the picture, film or sound",
        "caption": "the caption, or captions",
        "question": "the question",
        "answers": "the answer, or answers",
        "objects": "names of objects in the picture",
        "expression": "the expression, or expressions",
        "box": "the box",
        "hypothesis": "the hypothesis",
        "label": "the label",
    }
    names = parser.add_argument_group("names of columns or keys", "(default: those that are usual, see below)")
    also = {"image": ["--media-key"], "answers": ["--answer-key"]}
    for key, what in keys.items():
        flags = [f"--{key}-key", *also.get(key, [])]
        names.add_argument(*flags, default=None, metavar="NAME", help=f"name of the column or key of {what}")


def add_split(commands: argparse._SubParsersAction) -> None:
    """``unival data split``"""
    parser = add_command(
        commands,
        "split",
        "data_split:run_split",
        "divide a file into parts, with all rows of a picture in the same part",
        """Rows with the same text in --group-col stay together: no picture of a test file is in a training file, and
parts may differ from what was asked for by some rows. Same seed, same parts, in any order of the rows; in each one
the rows keep their order and their bytes. Shuffle the training part afterwards (unival data shuffle).

Training learns from a row a caption; scores (CIDEr) compare with all captions of a picture, which must stand in one row
of validation and test files: --join valid,test makes one row of those with the same --group-col, with their captions
joined by "&&" and the rest as in the first of them. Sizes count the rows before they are joined. For captions only.

example:
  unival data split rows.tsv --outputs train=0.9,val=0.05,test=0.05
  unival data split captions.tsv --outputs train=0.9,valid=0.1 --join valid
  unival data split rows.tsv --outputs test=500,train=rest --output-prefix data/photos --seed 7""",
    )
    parser.add_argument("input", type=Path, metavar="IN", help="TSV file")
    parser.add_argument(
        "--outputs",
        default="train=0.9,val=0.05,test=0.05",
        metavar="NAME=SIZE,...",
        help="parts, with shares (0.9), numbers of rows (500) or what is left (rest) (default: %(default)s)",
    )
    parser.add_argument(
        "--output-prefix", default=None, metavar="PATH", help="write PATH_NAME.tsv (default: the input's name)"
    )
    parser.add_argument(
        "--group-col",
        type=int,
        default=1,
        metavar="N",
        help="column (from 0) of what stays together (default: 1, the id of the picture; 0, the id: every row alone)",
    )
    parser.add_argument(
        "--join", default=None, metavar="NAME,...", help="parts that have one row a picture, with its captions joined"
    )
    parser.add_argument(
        "--join-col", type=int, default=None, metavar="N", help="column (from 0) whose texts --join joins (default: 2)"
    )
    parser.add_argument("--seed", type=int, default=1, help="same seed, same parts (default: 1)")
    add_overwrite(parser)


def add_show(commands: argparse._SubParsersAction) -> None:
    """``unival data show``"""
    parser = add_command(
        commands,
        "show",
        "data_show:run_show",
        "show rows of a file, in the terminal or as a picture with captions, questions, answers and boxes",
        """Without --output the rows are printed; of pictures, films and sounds what they are (JPEG 640 x 480, 34 kB).
With it they are drawn on one sheet: films as four frames, from the middle of each quarter (needs av), sounds as
spectrograms (needs soundfile).

example:
  unival data show train.tsv 4
  unival data show train.tsv --random --output sheet.png
  unival data show boxes.tsv 20 --task refcoco --start 1001 --output boxes.png
  unival data show films.tsv --task video_caption --image-dir films --output films.png""",
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="TSV file")
    parser.add_argument("number", type=int, nargs="?", default=16, metavar="N", help="how many rows (default: 16)")
    parser.add_argument(
        "--task", choices=sorted(SCHEMAS), default="caption", help="what the rows are for (default: caption)"
    )
    add_columns(parser)
    parser.add_argument("--start", type=int, default=1, metavar="R", help="first row, counted from 1 (default: 1)")
    parser.add_argument("--random", action="store_true", help="rows from anywhere in the file")
    parser.add_argument("--seed", type=int, default=1, help="of --random: same seed, same rows (default: 1)")
    parser.add_argument(
        "--image-dir", type=Path, default=None, metavar="DIR", help="where paths start (default: the file's folder)"
    )
    parser.add_argument("--read-from-img-path", action="store_true", help="the picture column holds a path, not base64")
    parser.add_argument("--output", type=Path, default=None, metavar="PNG", help="draw the rows to this file")
    parser.add_argument("--columns", type=int, default=None, metavar="N", help="pictures in a line of the sheet")
    parser.add_argument("--cell", type=int, default=None, metavar="N", help="longer side of a picture in pixels")
    add_overwrite(parser)


def add_answers(commands: argparse._SubParsersAction) -> None:
    """``unival data answers``"""
    tasks = sorted([task for task, schema in SCHEMAS.items() if schema.has("answers")])
    parser = add_command(
        commands,
        "answers",
        "data_answer_set:run_answers",
        "make the set of answers of the most frequent ones in rows",
        """Counts the surest answer of every row, which is what training learns. The most frequent answers come
first, equally frequent ones in alphabetical order. --ans2label-file and unival data validate --answers read the file.

example:
  unival data answers vqa_train.tsv --output answers.json --top 3129
  unival data answers vqa_train.tsv vqa_val.tsv --output answers.txt --min-count 9 --all-answers""",
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="TSV files")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="file to write: .json or .txt")
    parser.add_argument("--task", choices=tasks, default="vqa_gen", help="what the rows are for (default: vqa_gen)")
    add_columns(parser)
    parser.add_argument(
        "--min-count", type=int, default=1, metavar="N", help="leave out answers of fewer rows (default: 1)"
    )
    parser.add_argument("--top", type=int, default=None, metavar="N", help="keep the N most frequent (default: all)")
    parser.add_argument("--all-answers", action="store_true", help="count all answers of a row, not only the surest")
    add_overwrite(parser)


def add_negatives(commands: argparse._SubParsersAction) -> None:
    """``unival data negatives``"""
    add_arguments(add_command(commands, "negatives", "negative_samples:run_negatives", LINE, RULE))


def add_pretraining(commands: argparse._SubParsersAction) -> None:
    """``unival data pretraining``"""
    types = "\n".join(f"  {task:14} {row_type}" for task, row_type in TYPE_OF_TASK.items())
    parser = add_command(
        commands,
        "pretraining",
        "data_pretraining:run_pretraining",
        "turn rows of a task into rows of multitask pretraining (--task unify_task)",
        f"""The files have the task's usual columns. A row of pretraining has one caption: of several, joined by "&&",
each becomes a row. Ids are numbers from 0. Rows of several data sets are put together with cat; --dataset tells them
apart.

types of the rows:
{types}

example:
  unival data pretraining caption_stage1_train.tsv --task caption --dataset coco --output coco.tsv
  unival data pretraining vqa_train.tsv --task vqa_gen --dataset vqa --output vision_language_qa.tsv
  cat coco.tsv sbu.tsv > vision_language_caption.tsv
  unival data validate vision_language_caption.tsv --task unify_task""",
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="TSV", help="files of the task")
    parser.add_argument("--task", choices=sorted(TYPE_OF_TASK), required=True, help="what their rows are for")
    parser.add_argument("--dataset", required=True, metavar="NAME", help="name of the data set, for the rows")
    parser.add_argument("--output", type=Path, required=True, metavar="TSV", help="file to write")
    add_overwrite(parser)
