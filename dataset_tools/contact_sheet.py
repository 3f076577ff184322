"""Draw a grid of pictures, films or sounds with their texts (and boxes); texts that differ from the right one are red.

    python dataset_tools/contact_sheet.py --tsv data/digits/test.tsv --selected-cols 0,4,2 \\
        --predictions results/test_predict.json --output sheet.png --limit 36

    python dataset_tools/contact_sheet.py --tsv data/digits/refcoco_test.tsv --task refcoco --output boxes.png

A film is shown as four frames, from the middle of each quarter, a sound as its spectrogram.

    python dataset_tools/contact_sheet.py --tsv data/films/video_test.tsv --task video_caption --output films.png
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from unival_cli.sheet import contact_sheet
from unival_cli.sheet_rows import TASKS, items_from_files, items_from_table, read_predictions


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Draw a grid of pictures, films (four frames) or sounds (spectrograms) with their texts as one PNG "
        "file; wrong texts are red. Tasks: captions, questions with their answers, expressions with their boxes "
        "(right: green, predicted: blue; wrong: IoU below 0.5), statements with their labels.",
        epilog="example: python dataset_tools/contact_sheet.py --tsv data/digits/refcoco_test.tsv --task refcoco "
        "--predictions results/test_predict.json --output sheet.png",
    )
    parser.add_argument(
        "--tsv",
        type=Path,
        help="table with the pictures (base64) or paths of films or sounds, and the references; without it the "
        "predictions name picture files",
    )
    parser.add_argument("--task", choices=list(TASKS), default="caption", help="kind of the rows (default: caption)")
    usual = "; ".join(f"{name}: {task.names} ({task.selected_cols})" for name, task in TASKS.items())
    parser.add_argument("--selected-cols", help=f"numbers of the columns, by default the task's: {usual}")
    parser.add_argument(
        "--predictions", type=Path, help="*_predict.json or JSON lines; without it the texts of the table are drawn"
    )
    parser.add_argument(
        "--image-dir",
        type=Path,
        help="where relative paths start (default: the folder of the table for its films and sounds, else this one)",
    )
    parser.add_argument("--output", type=Path, required=True, help="PNG file to write")
    parser.add_argument("--limit", type=int, default=36, help="most pictures (default: 36)")
    parser.add_argument("--columns", type=int, help="pictures in a line (default: 6; films 3, sounds 4)")
    parser.add_argument(
        "--cell", type=int, help="longer side of a picture in pixels (default: 160; films 320, sounds 240)"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    parser = _parser()
    args = parser.parse_args(argv)
    if args.tsv is None and args.predictions is None:
        parser.error("give --tsv, --predictions or both")
    if args.tsv is None and args.task != "caption":
        parser.error(f"--task {args.task} needs --tsv")
    task = TASKS[args.task]
    columns = [int(column) for column in (args.selected_cols or task.selected_cols).split(",") if column.isdigit()]
    if len(columns) != task.names.count(",") + 1:
        parser.error(f"--selected-cols needs the column numbers of: {task.names}")
    width = task.columns if args.columns is None else args.columns
    cell = task.cell if args.cell is None else args.cell
    if min(args.limit, width, cell) < 1:
        parser.error("--limit, --columns and --cell must be at least 1")
    try:
        predictions = None if args.predictions is None else read_predictions(args.predictions, args.task)
        if args.tsv is not None:
            items = items_from_table(args.tsv, columns, predictions, args.limit, args.task, args.image_dir)
        else:
            items = items_from_files(predictions or [], args.image_dir or Path(), args.limit)
        contact_sheet(items, width, cell).save(args.output, "PNG")
    except (OSError, ValueError) as error:
        print(f"contact_sheet.py: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
