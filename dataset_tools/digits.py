"""Build the quickstart data: pictures, films and sounds with texts, rows as in the real data sets.

Nothing is downloaded: the scanned handwritten digits come with scikit-learn, a program makes the sounds. The same flags
and library versions give byte-identical files.

    python dataset_tools/digits.py --output data/digits

writes train_1.tsv ... (as many as --epoch-files says), val.tsv, test.tsv, digits.model (sentencepiece), manifest.json
and README.txt.

    python dataset_tools/digits.py --output data/digits --tasks caption,vqa_gen,refcoco,snli_ve

writes beside them, from the same pictures, vqa_*.tsv with answers.json and answers.txt, refcoco_*.tsv and snli_*.tsv.

    python dataset_tools/digits.py --output data/films --tasks video_caption,video_vqa_gen

writes films/train_1/000000.mp4 ..., video_*.tsv, and video_vqa_*.tsv with video_answers.json;

    python dataset_tools/digits.py --output data/sounds --tasks audio_caption

writes sounds/train_1/000000.flac ... and audio_*.tsv. Films need the package av, sounds soundfile.

    python dataset_tools/digits.py --output data/pretrain \\
        --tasks pretrain_caption,pretrain_image_text,pretrain_qa,pretrain_ground,pretrain_video,pretrain_audio

writes pretrain_caption_*.tsv and so on: the same texts, answers and boxes as rows for multitask pretraining;
negative_samples.py makes the wrong captions and answers that it needs from them.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from digits_language import Setting
from digits_media import MEDIA, Medium
from digits_plan import MAX_EPOCH_FILES, MAX_ROWS, BuildPlan, OutputFile
from digits_rows import ROW_KINDS, vocabulary_words
from digits_vocabulary import train_sentencepiece
from tqdm import tqdm


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
    counts: dict[str, int] = {}
    for name, medium in _media(plan).items():
        tasks = [task for task in plan.tasks if ROW_KINDS[task].medium == name]
        for file in plan.files(medium.in_training(plan)):
            counts |= _write_file(folder, plan, medium, tasks, file)
    (folder / "digits.model").write_bytes(train_sentencepiece(vocabulary_words()))
    manifest = _manifest(plan, counts)
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    (folder / "README.txt").write_text(_readme(counts, plan), encoding="utf-8")
    for task in plan.tasks:
        for name, text in ROW_KINDS[task].extra_files.items():
            (folder / name).write_text(text, encoding="utf-8", newline="\n")
    return manifest


def _media(plan: BuildPlan) -> dict[str, Medium]:
    """The media of the tasks."""
    return {name: MEDIA[name] for name in dict.fromkeys(ROW_KINDS[task].medium for task in plan.tasks)}


def _write_file(
    folder: Path, plan: BuildPlan, medium: Medium, tasks: Sequence[str], file: OutputFile
) -> dict[str, int]:
    """Write the files of these tasks from the same pictures, films or sounds. Returns their numbers of rows."""
    maker = medium.maker(plan, file.easy)
    setting = Setting(plan.seed, 1 if file.easy else plan.max_digits)
    rows = {file_name(task, file.stem): 0 for task in tasks}
    with ExitStack() as stack:
        handles = [stack.enter_context((folder / name).open("wb")) for name in rows]
        for number in tqdm(range(file.number), desc=f"{file.stem}: {medium.unit}s", unit=medium.unit, disable=None):
            item = maker.make(file.split, file.stream, number)
            medium.save(folder, item, plan)
            for task, handle in zip(tasks, handles, strict=True):
                for cells in ROW_KINDS[task].write(item, setting):
                    handle.write("\t".join(cells).encode("utf-8") + b"\n")
                    rows[file_name(task, file.stem)] += 1
    return rows


# -------------------------------------------------------------------------------- manifest


def _manifest(plan: BuildPlan, rows: dict[str, int]) -> dict[str, object]:
    from importlib.metadata import version

    manifest: dict[str, object] = {"seed": plan.seed, "tasks": list(plan.tasks), "rows": rows}
    packages = ["sentencepiece"]
    for medium in _media(plan).values():
        manifest |= medium.facts(plan)
        packages += medium.packages
    return manifest | {"versions": {package: version(package) for package in dict.fromkeys(packages)}}


def _readme(rows: dict[str, int], plan: BuildPlan) -> str:
    kinds = {task: ROW_KINDS[task] for task in plan.tasks}
    lines = [
        "Quickstart data made by dataset_tools/digits.py; see manifest.json for the seed and the versions.",
        "",
        *(f"{name}: {count} rows" for name, count in rows.items()),
        "",
        *(
            f"Columns of the {task} rows: {kind.columns}; read with --selected-cols {kind.selected_cols}."
            for task, kind in kinds.items()
        ),
        "digits.model: sentencepiece model for --bpe sentencepiece.",
        *dict.fromkeys(line for medium in _media(plan).values() for line in medium.notes),
    ]
    return "\n".join(lines) + "\n"


# -------------------------------------------------------------------------------- command


def _parser() -> argparse.ArgumentParser:
    plan = BuildPlan()
    parser = argparse.ArgumentParser(
        description="Build the quickstart data: pictures of handwritten digits with captions, questions and answers, "
        "referring expressions with boxes, and statements that they entail, contradict or leave open; films of digits "
        "with captions, questions and answers; sounds with captions; all three also as rows for multitask "
        "pretraining (the tasks pretrain_...).",
        epilog="examples: python dataset_tools/digits.py --output data/digits --epoch-files 4 "
        "--tasks caption,vqa_gen,refcoco,snli_ve; python dataset_tools/digits.py --output data/films --epoch-files 8 "
        "--tasks video_caption,video_vqa_gen; python dataset_tools/digits.py --output data/pretrain --tasks "
        + ",".join(task for task in ROW_KINDS if task.startswith("pretrain_")),
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--output", type=Path, required=True, help="folder to make")
    parser.add_argument(
        "--tasks",
        default=",".join(plan.tasks),
        help="comma-separated, files of rows for each, all from the same pictures, films and sounds; known: "
        + ", ".join(ROW_KINDS),
    )
    parser.add_argument(
        "--train-rows",
        type=int,
        default=plan.train_rows,
        help="pictures in each training file; each gives a row of every task",
    )
    parser.add_argument("--films", type=int, default=plan.films, metavar="N", help="films in each training file")
    parser.add_argument("--sounds", type=int, default=plan.sounds, metavar="N", help="sounds in each training file")
    parser.add_argument("--val-rows", type=int, default=plan.val_rows, help="pictures, films and sounds for validation")
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
        help="the first N training files have one digit a picture or film, one thing a sound: a network learns "
        "what these are sooner that way",
    )
    parser.add_argument(
        "--pictures",
        type=int,
        default=plan.pictures,
        metavar="N",
        help="also save the first N test pictures as PNG files",
    )
    parser.add_argument(
        "--canvas", type=int, default=plan.canvas, help="side of pictures and films in pixels, at least 48"
    )
    parser.add_argument(
        "--max-digits",
        type=int,
        choices=(1, 2, 3),
        default=plan.max_digits,
        help="most digits in a picture; films have two at most",
    )
    parser.add_argument("--frames", type=int, default=plan.frames, help="frames of a film, at least 8; a second has 8")
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
    numbers = (args.train_rows, args.films, args.sounds, args.val_rows, args.test_rows)
    if min(numbers) < 1 or max(numbers) >= MAX_ROWS:
        parser.error(f"the numbers of rows, films and sounds must be between 1 and {MAX_ROWS - 1}")
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
