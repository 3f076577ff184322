"""Build the quickstart data: pictures of scanned handwritten digits with texts, rows as in the real data sets.

Nothing is downloaded: the scans come with scikit-learn. The same flags and library versions give byte-identical files.

    python dataset_tools/digits.py --output data/digits

writes train_1.tsv ... (as many as --epoch-files says), val.tsv, test.tsv, digits.model (sentencepiece), manifest.json
and README.txt.

    python dataset_tools/digits.py --output data/digits --tasks caption,vqa_gen,refcoco,snli_ve

writes beside them, from the same pictures, vqa_*.tsv with answers.json and answers.txt, refcoco_*.tsv and snli_*.tsv.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from digits_language import Setting
from digits_rows import ROW_KINDS, vocabulary_words
from digits_scenes import MAX_ROWS, Scene, SceneMaker, load_source
from digits_vocabulary import train_sentencepiece
from PIL import Image
from tqdm import tqdm

# Streams number the output files: 1, 2, ... for the training files, these two for the others.
EVAL_STREAMS = {"val": 900, "test": 901}
MAX_EPOCH_FILES = min(EVAL_STREAMS.values()) - 1


@dataclass(frozen=True)
class BuildPlan:
    """What to build; the fields are the flags of the command."""

    tasks: tuple[str, ...] = ("caption",)
    train_rows: int = 12_000
    val_rows: int = 300
    test_rows: int = 600
    epoch_files: int = 1
    easy_files: int = 0
    pictures: int = 0
    canvas: int = 64
    max_digits: int = 3
    file_format: str = "jpeg"
    seed: int = 7

    def files(self) -> list[tuple[str, str, int, int]]:
        """(file stem, split, stream, scenes) of every file; each training file has scenes of its own."""
        train = [(f"train_{k}", "train", k, self.train_rows) for k in range(1, self.epoch_files + 1)]
        held_out = [
            ("val", "val", EVAL_STREAMS["val"], self.val_rows),
            ("test", "test", EVAL_STREAMS["test"], self.test_rows),
        ]
        return train + held_out


def file_name(task: str, stem: str) -> str:
    """``train_1.tsv`` for captions, ``vqa_train_1.tsv`` and the like for other tasks."""
    return f"{ROW_KINDS[task].prefix}{stem}.tsv"


# -------------------------------------------------------------------------------- building


def build(output: Path, plan: BuildPlan, overwrite: bool = False) -> dict[str, object]:
    """Build everything in a hidden folder beside ``output`` and rename it at the end. Returns the manifest.

    Raises FileExistsError if ``output`` exists, unless ``overwrite`` is given and it holds an earlier build.
    """
    _check_free(output, overwrite)
    scratch = output.with_name(f".{output.name}.tmp-{os.getpid()}")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    try:
        manifest = _build_into(scratch, plan)
        if output.exists():
            shutil.rmtree(output)
        scratch.replace(output)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return manifest


def _check_free(output: Path, overwrite: bool) -> None:
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return
    if not overwrite:
        raise FileExistsError(f"{output} exists; choose another folder or add --overwrite")
    if not (output / "manifest.json").is_file():
        raise FileExistsError(
            f"{output} exists and holds no manifest.json of an earlier build; it is not overwritten, remove it yourself"
        )


def _build_into(folder: Path, plan: BuildPlan) -> dict[str, object]:
    maker = SceneMaker(load_source(plan.seed), plan.seed, plan.canvas, plan.max_digits, plan.file_format)
    counts: dict[str, int] = {}
    easy = {f"train_{k}" for k in range(1, plan.easy_files + 1)}
    for stem, split, stream, scenes in plan.files():
        its_maker = replace(maker, max_digits=1) if stem in easy else maker
        counts |= {file_name(task, stem): scenes for task in plan.tasks}
        for scene in _write_file(folder, plan, its_maker, stem, split, stream, scenes):
            if split == "test" and scene.row < plan.pictures:
                _save_picture(folder / "pictures", scene)
    (folder / "digits.model").write_bytes(train_sentencepiece(vocabulary_words()))
    manifest = _manifest(plan, maker, counts)
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    (folder / "README.txt").write_text(_readme(manifest, plan.tasks), encoding="utf-8")
    for task in plan.tasks:
        for name, text in ROW_KINDS[task].extra_files.items():
            (folder / name).write_text(text, encoding="utf-8", newline="\n")
    return manifest


def _write_file(
    folder: Path, plan: BuildPlan, maker: SceneMaker, stem: str, split: str, stream: int, scenes: int
) -> Iterable[Scene]:
    """Write the files of all tasks for one stem, a row a scene; yields every scene."""
    setting = Setting(plan.seed, maker.max_digits)
    handles: dict[str, BinaryIO] = {task: (folder / file_name(task, stem)).open("wb") for task in plan.tasks}
    try:
        for number in tqdm(range(scenes), desc=stem, unit="scene", disable=None):
            scene = maker.make(split, stream, number)
            for task, handle in handles.items():
                handle.write("\t".join(ROW_KINDS[task].write(scene, setting)).encode("utf-8") + b"\n")
            yield scene
    finally:
        for handle in handles.values():
            handle.close()


def _save_picture(folder: Path, scene: Scene) -> None:
    """The same pixels as in the row, as a PNG file of its own."""
    folder.mkdir(exist_ok=True)
    with Image.open(io.BytesIO(scene.picture)) as picture:
        picture.save(folder / f"{scene.name}.png")


# -------------------------------------------------------------------------------- manifest


def _manifest(plan: BuildPlan, maker: SceneMaker, rows: dict[str, int]) -> dict[str, object]:
    from importlib.metadata import version

    packages = ("scikit-learn", "numpy", "pillow", "sentencepiece")
    return {
        "data": "pictures of one to three scanned handwritten digits (UCI optdigits, as in scikit-learn)",
        "seed": plan.seed,
        "canvas": plan.canvas,
        "max_digits": plan.max_digits,
        "training_files_with_one_digit_a_picture": plan.easy_files,
        "picture_format": plan.file_format,
        "tasks": list(plan.tasks),
        "rows": rows,
        "source_digits": {split: sum(map(len, pools)) for split, pools in maker.source.pools.items()},
        "versions": {package: version(package) for package in packages},
    }


def _readme(manifest: dict[str, object], tasks: Sequence[str]) -> str:
    rows = manifest["rows"]
    assert isinstance(rows, dict)
    lines = [
        "Quickstart data made by dataset_tools/digits.py; see manifest.json for the seed and the versions.",
        "",
        *(f"{name}: {count} rows" for name, count in rows.items()),
        "",
        *(
            f"Columns of the {task} rows: {kind.columns}; read with --selected-cols {kind.selected_cols}."
            for task, kind in ROW_KINDS.items()
            if task in tasks
        ),
        "No scanned digit of val.tsv or test.tsv is in a training file. Every training file has scenes of its own.",
        "digits.model: sentencepiece model for --bpe sentencepiece.",
        "The scans: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits,",
        "UCI Machine Learning Repository, doi 10.24432/C50P49, CC BY 4.0.",
    ]
    return "\n".join(lines) + "\n"


# -------------------------------------------------------------------------------- command


def _parser() -> argparse.ArgumentParser:
    plan = BuildPlan()
    parser = argparse.ArgumentParser(
        description="Build the quickstart data: pictures of handwritten digits with captions, questions and answers, "
        "referring expressions with boxes, and statements that they entail, contradict or leave open.",
        epilog="example: python dataset_tools/digits.py --output data/digits --epoch-files 4 "
        "--tasks caption,vqa_gen,refcoco,snli_ve",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--output", type=Path, required=True, help="folder to make")
    parser.add_argument(
        "--tasks",
        default=",".join(plan.tasks),
        help=f"comma-separated, a file of rows for each, all from the same pictures; known: {','.join(ROW_KINDS)}",
    )
    parser.add_argument(
        "--train-rows", type=int, default=plan.train_rows, help="rows of each task (and scenes) in each training file"
    )
    parser.add_argument("--val-rows", type=int, default=plan.val_rows, help="the same for validation")
    parser.add_argument("--test-rows", type=int, default=plan.test_rows, help="the same for the test")
    parser.add_argument(
        "--epoch-files",
        type=int,
        default=plan.epoch_files,
        metavar="K",
        help="training files train_1.tsv ... train_K.tsv",
    )
    parser.add_argument(
        "--easy-files",
        type=int,
        default=plan.easy_files,
        metavar="N",
        help="the first N training files have one digit a picture: a network learns the digits sooner that way",
    )
    parser.add_argument(
        "--pictures",
        type=int,
        default=plan.pictures,
        metavar="N",
        help="also save the first N test pictures as PNG files",
    )
    parser.add_argument("--canvas", type=int, default=plan.canvas, help="side of the pictures in pixels, at least 48")
    parser.add_argument(
        "--max-digits", type=int, choices=(1, 2, 3), default=plan.max_digits, help="most digits in a picture"
    )
    parser.add_argument(
        "--format",
        dest="file_format",
        choices=("jpeg", "png"),
        default=plan.file_format,
        help="encoding of the pictures in the rows",
    )
    parser.add_argument("--seed", type=int, default=plan.seed, help="same seed, same bytes")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier build")
    return parser


def _plan(args: argparse.Namespace, parser: argparse.ArgumentParser) -> BuildPlan:
    tasks = tuple(args.tasks.split(","))
    if unknown := [task for task in tasks if task not in ROW_KINDS]:
        parser.error(f"unknown task {unknown[0]!r}; known: {', '.join(ROW_KINDS)}")
    if len(set(tasks)) != len(tasks):
        parser.error("--tasks names a task twice")
    if (
        min(args.train_rows, args.val_rows, args.test_rows) < 1
        or max(args.train_rows, args.val_rows, args.test_rows) >= MAX_ROWS
    ):
        parser.error(f"the numbers of rows must be between 1 and {MAX_ROWS - 1}")
    if not 1 <= args.epoch_files <= MAX_EPOCH_FILES:
        parser.error(f"--epoch-files must be between 1 and {MAX_EPOCH_FILES}")
    if not 0 <= args.easy_files < args.epoch_files:
        parser.error("--easy-files must be at least 0 and below --epoch-files")
    if args.canvas < 48 or args.seed < 0:
        parser.error("--canvas must be at least 48 and --seed at least 0")
    fields = BuildPlan.__dataclass_fields__
    return BuildPlan(**{name: value for name, value in vars(args).items() if name in fields} | {"tasks": tasks})


def main(argv: Sequence[str] | None = None) -> int:
    parser = _parser()
    args = parser.parse_args(argv)
    try:
        manifest = build(args.output, _plan(args, parser), args.overwrite)
    except (OSError, ValueError) as error:
        print(f"digits.py: error: {error}", file=sys.stderr)
        return 2
    print(json.dumps({"output": str(args.output), "rows": manifest["rows"]}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
