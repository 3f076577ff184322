"""``unival predict``: answers for pictures, films and sounds, or pictures for texts, one line of JSON each."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Optional, TextIO

from . import predict_pictures as pictures
from .predict_rows import SUFFIXES, TEXT, Key, Row, expand, prepare, rows_of_file, unanswered

ALIASES = {"vqa": "vqa_gen", "video_vqa": "video_vqa_gen"}
MEDIA = {
    **dict.fromkeys(("caption", "vqa", "vqa_gen", "refcoco", "snli_ve"), "image"),
    **dict.fromkeys(("video_caption", "video_vqa", "video_vqa_gen"), "video"),
    "audio_caption": "audio",
    pictures.TASK: TEXT,
}
"""What tasks answer for."""
CAPTIONS = {"caption", "video_caption", "audio_caption"}
WORD_FLAGS = ("max_len_b", "no_repeat_ngram_size", "lenpen")
FLAGS = ("beam", *WORD_FLAGS, *pictures.SEARCH)
ANSWER_OPTIONS = ("prompt_type", "ans2label_file", "val_inference_type")
OVERRIDES = ("bpe_dir", "sentencepiece_model", *ANSWER_OPTIONS)
DRAWING = {pictures.TASK}
ONLY_FOR: tuple[tuple[tuple[str, ...], set[str], str], ...] = (
    (("draw",), DRAWING | {"refcoco"}, "for --task refcoco and image_gen: other tasks give no boxes and no pictures"),
    (
        ANSWER_OPTIONS,
        set(MEDIA) - CAPTIONS - DRAWING - {"refcoco"},
        "for vqa, video_vqa and snli_ve: other tasks have no set of answers",
    ),
    (pictures.FLAGS, DRAWING, "for --task image_gen: other tasks draw no pictures"),
    (WORD_FLAGS, set(MEDIA) - DRAWING, "for answers in words: all pictures have the same number of codes"),
    (("workers",), set(MEDIA) - DRAWING, "for files that are decoded: captions need none"),
)
"""Arguments, the tasks that have them, and why others have not."""
BATCH_SIZE = 16
SETTINGS = (
    *("prompt_type", "val_inference_type", "noconstraints", "add_object", "add_caption", "max_image_size"),
    "box_grammar",
)
BOX_COLOUR = (30, 90, 255)
LINES_A_SIDE = 150
"""How many widths of a box's line make the picture's longer side."""
HASH_DIGITS = 8
EPILOG = """examples:
  unival predict --task caption --path checkpoint_best.pt dog.jpg
  unival predict --task caption --path checkpoint_best.pt photos/ --output captions.jsonl --workers 2
  unival predict --task vqa --path vqa.pt --text "what colour is the dog?" dog.jpg
  unival predict --task vqa --path vqa.pt --input questions.csv --output answers.jsonl
  unival predict --task snli_ve --path snli_ve.pt --text "a dog is asleep" dog.jpg
  unival predict --task video_caption --path video_caption.pt film.mp4
  unival predict --task refcoco --path refcoco.pt --text "the left dog" --draw drawn/ dog.jpg
  unival predict --task image_gen --path image_gen.pt --text "a three above a seven" --beam 8
  unival predict --task image_gen --path image_gen.pt --input captions.txt --draw drawn/ --output drawn.jsonl
  unival predict --task vqa --path caption.pt --prompt-type prev_output --ans2label-file answers.json \\
      --text "is it raining?" photos/

The tasks: caption describes; vqa answers a question; snli_ve says whether a picture implies a statement (yes, no,
maybe); refcoco finds what an expression means and gives a box x0, y0, x1, y1 in pixels of the picture. video_caption,
audio_caption and video_vqa do the same for films and sounds. image_gen draws what a text says, --beam pictures a text,
and writes them, best first, and a sheet of them (contact_sheet.png) to the folder --draw.

A folder stands for all pictures (films, sounds) below it; a pattern in quotes ('photos/*.jpg') is expanded here. Rows
of --input FILE have "image", "video" or "audio" (a path relative to FILE) and "text"; "context" is for models trained
with --add-object or --add-caption:
  questions.jsonl: {"image": "dog.jpg", "text": "what is it?"}
  questions.csv:   image,text
                   dog.jpg,what is it?
For image_gen they have only "text"; in a .txt file every line is one.

A line of the answer has "image" ("video", "audio"), "text" and "caption", "answer" or "box", and "score" (a
log-probability); for image_gen "text", "pictures" (files, best first), "score" (of the best: CLIP's cosine with the
text, or without CLIP a log-probability) and "scores". With --output, the same command continues where an interrupted
one stopped. A row that cannot be used gets a line with "error", and the exit status is then 1."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of ``unival predict``."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EPILOG
    parser.add_argument("media", nargs="*", metavar="FILE|FOLDER|GLOB", help="pictures, films or sounds to answer for")
    parser.add_argument("--text", help="question, statement or expression for all these files, or what to draw")
    parser.add_argument("--input", type=Path, metavar="FILE", help="files and texts in a .jsonl or .csv file instead")
    parser.add_argument("--task", choices=tuple(MEDIA), default="caption", help="what to answer (default: caption)")
    parser.add_argument("--path", required=True, metavar="CKPT", help="checkpoint (.pt or .safetensors)")
    parser.add_argument(
        "--adapter", metavar="FILE", help="what was trained on top of the checkpoint (unival convert --only-trained)"
    )
    parser.add_argument("--ema", action="store_true", help="use the checkpoint's averaged weights")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write JSON lines to FILE (default: print them)")
    parser.add_argument("--overwrite", action="store_true", help="begin FILE anew instead of continuing it")
    parser.add_argument(
        "--draw",
        type=Path,
        metavar="FOLDER",
        help="folder for pictures: copies with boxes (refcoco; default: none), or what is drawn (image_gen; default: "
        f"{pictures.FOLDER})",
    )
    parser.add_argument(
        "--n-best",
        type=int,
        metavar="K",
        help="tell the K best answers (default: 1) or keep the K best pictures (default: all), at most the beam",
    )
    parser.add_argument(
        "--batch-size",
        type=int,
        help=f"files a batch (default: {BATCH_SIZE}), or texts to draw (default: {pictures.BATCH_SIZE})",
    )
    parser.add_argument("--workers", type=int, help="processes that decode files (default: 0)")
    parser.add_argument("--device", help="cpu, cuda, cuda:1 … (default: the GPU if there is one)")
    search = parser.add_argument_group("search (default: as in the checkpoint's validation)")
    search.add_argument("--beam", type=int, help="hypotheses of beam search, or pictures drawn for a text")
    search.add_argument("--max-len-b", type=int, help="longest answer in tokens")
    search.add_argument("--no-repeat-ngram-size", type=int, help="no n-gram of this size twice in an answer")
    search.add_argument("--lenpen", type=float, help="length penalty: > 1 favours long answers")
    stored = parser.add_argument_group("in place of what the checkpoint says")
    stored.add_argument("--bpe-dir", metavar="DIR", help="folder of the GPT-2 BPE files, if it has moved")
    stored.add_argument("--sentencepiece-model", metavar="FILE", help="sentencepiece model, if it has moved")
    stored.add_argument("--ans2label-file", metavar="FILE", help="the possible answers: JSON, or an answer a line")
    stored.add_argument(
        "--prompt-type",
        choices=("none", "src", "prev_output"),
        help="what the decoder begins with: start symbol, the text, or the text without end",
    )
    stored.add_argument(
        "--val-inference-type", choices=("allcand", "beamsearch"), help="score every possible answer, or search"
    )
    pictures.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Runs ``unival predict``; returns 1 if a row could not be used, else 0."""
    from .files import progress

    args.task = ALIASES.get(args.task, args.task)
    _refuse_useless(args)
    rows = pictures.rows_of(args) if args.task in DRAWING else _rows(args)
    boxes = _Boxes(args.draw, rows) if args.draw is not None and args.task not in DRAWING else None
    from unival_plugin.checkpoints.reading import sha256
    from unival_plugin.hub import from_pretrained

    predictor = from_pretrained(args.path, args.device, args.ema, args.adapter, task=args.task, **_overrides(args))
    given = pictures.search_flags({name: getattr(args, name) for name in FLAGS if getattr(args, name) is not None})
    answers: pictures.Painter | _Answers = (
        pictures.Painter(predictor, args, given) if args.task in DRAWING else _Answers(predictor, args, given, boxes)
    )
    how = {
        "task": args.task,
        "checkpoint": {"path": str(args.path), "sha256": sha256(Path(args.path)), "ema": args.ema},
        **({"adapter": sha256(Path(args.adapter))} if args.adapter else {}),
        **_settings(predictor.task),
        "generation": predictor.task.answer_options(given).as_dict(),
        **answers.how(),
    }
    done = Counter[Key]() if args.output is None else prepare(args.output, MEDIA[args.task], how, args.overwrite)
    total = len(unanswered(rows, done))
    with nullcontext(sys.stdout) if args.output is None else args.output.open("a", encoding="utf-8") as file:
        failed = _write(progress(answers.lines(rows, done, how), total, args.task, answers.unit), file)
    for told in (f"{failed} of {total} {answers.failure}" if failed else "", answers.finish(args.output)):
        if told:
            print(f"unival predict: {told}", file=sys.stderr)
    return 1 if failed else 0


def _refuse_useless(args: argparse.Namespace) -> None:
    """Raises ConfigError for arguments that mean nothing for the task."""
    from unival_plugin.errors import ConfigError

    for names, tasks, why in ONLY_FOR:
        useless = [name for name in names if getattr(args, name) is not None]
        if useless and args.task not in tasks:
            raise ConfigError(f"--{useless[0].replace('_', '-')} is {why}")


def _overrides(args: argparse.Namespace) -> dict[str, str]:
    """Options in place of the checkpoint's; an empty file of the pictures means none."""
    given = {name: getattr(args, name) for name in OVERRIDES if getattr(args, name)}
    return given | {name: getattr(args, name) for name in pictures.FILES if getattr(args, name) is not None}


def _rows(args: argparse.Namespace) -> list[Row]:
    """What to answer.

    Raises:
        ConfigError: nothing, or arguments that do not go together.
    """
    from unival_plugin.errors import ConfigError

    medium = MEDIA[args.task]
    if bool(args.media) == (args.input is not None):
        raise ConfigError("give either files or --input FILE")
    if args.input is not None:
        if args.text is not None:
            raise ConfigError("--text is for files named on the command line; --input FILE has its own texts")
        return rows_of_file(args.input, medium)
    if (args.text is None) != (args.task in CAPTIONS):
        raise ConfigError(
            f"--task {args.task} takes no --text: choose another task"
            if args.text is not None
            else f'--task {args.task} needs a text for the files: --text "…", or --input FILE with a text a row'
        )
    rows = [Row(medium, str(path), path, args.text or "") for path in expand(args.media, medium)]
    if not rows:
        raise ConfigError(
            f"nothing found in {' '.join(args.media)} for --task {args.task}, which takes files that end with "
            f"{' '.join(sorted(SUFFIXES[medium]))}"
        )
    return rows


def _settings(task: Any) -> dict[str, Any]:
    """What besides the search decides about answers."""
    from hashlib import sha256

    known: dict[str, Any] = {name: _plain(task.cfg[name]) for name in SETTINGS if name in task.cfg}
    if hasattr(task, "prompt"):
        known["prompt"] = task.prompt
    if hasattr(task, "answers"):
        known["answers"] = sha256(json.dumps(task.answers.answers).encode()).hexdigest()
    return {**known, **_sizes(task)}


def _sizes(task: Any) -> dict[str, Any]:
    """What the network sees of a file, or draws for a text."""
    names = {
        "image": ("patch_image_size",),
        "video": ("patch_frame_size", "num_frames", "sample_type"),
        "audio": ("max_audio_len", "sample_rate", "audio_sample_rate"),
        TEXT: ("max_src_length", "code_image_size", "sampling_times"),
    }
    return {name: _plain(task.cfg[name]) for name in names[MEDIA[str(task.cfg._name)]]}


def _plain(value: Any) -> Any:
    """Choices of fairseq's flags are objects of their own."""
    return value if value is None or isinstance(value, (bool, int, float)) else str(value)


def _write(lines: Iterable[dict[str, Any]], file: TextIO) -> int:
    """Writes lines as they come; how many tell of an error."""
    failed = 0
    for line in lines:
        failed += "error" in line
        print(json.dumps(line, ensure_ascii=False), file=file, flush=True)
    return failed


class _Answers:
    """Answers rows with words or boxes."""

    unit = "file"

    def __init__(
        self, predictor: Any, args: argparse.Namespace, generation: dict[str, Any], boxes: Optional[_Boxes]
    ) -> None:
        self._predictor, self._task, self._generation, self._boxes = predictor, args.task, generation, boxes
        self._n_best = 1 if args.n_best is None else args.n_best
        self._batch_size = BATCH_SIZE if args.batch_size is None else args.batch_size
        self._workers = args.workers or 0
        self.failure = "files could not be read" if args.task in CAPTIONS else "rows could not be answered"

    def how(self) -> dict[str, Any]:
        """What besides checkpoint and search decides about the answers."""
        return {"n_best": self._n_best}

    def lines(self, rows: list[Row], done: Counter[Key], how: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """A line for every row that is not answered yet."""
        for row, found in self._answered(unanswered(rows, done)):
            line = row.line()
            if isinstance(found, str):
                line["error"] = found
            else:
                line |= _shown(found, self._task)
                if self._n_best > 1:
                    line["n_best"] = [_shown(answer, self._task) for answer in found.n_best]
                if self._boxes is not None:
                    line["drawn"] = str(self._boxes.draw(row, found.box))
            yield line

    def _answered(self, rows: list[Row]) -> Iterator[tuple[Row, Any]]:
        """Every row with its prediction, or with the reason why there is none."""
        good = [row for row in rows if not row.error]
        stream = self._predictor.stream(
            [row.path for row in good],
            [row.text for row in good],
            self._batch_size,
            self._workers,
            self._n_best,
            [row.context for row in good],
            **self._generation,
        )
        for row in rows:
            if row.error:
                yield row, row.error
            else:
                prediction = next(stream)
                yield row, prediction.error or prediction

    def finish(self, output: Optional[Path]) -> str:
        """There is nothing more to write or say."""
        return ""


def _shown(answer: Any, task: str) -> dict[str, Any]:
    score = round(answer.score, 4)
    if answer.box is not None:
        return {"box": [round(number, 2) for number in answer.box], "score": score}
    return {"caption" if task in CAPTIONS else "answer": answer.text, "score": score}


class _Boxes:
    """Writes copies of pictures with a box, named after the picture, with a number that stands for picture and text.

    Raises:
        ConfigError: a copy would take the place of a picture that is to be answered for.
    """

    def __init__(self, folder: Path, rows: list[Row]) -> None:
        from unival_plugin.errors import ConfigError

        self.folder = folder
        taken = {row.path.resolve() for row in rows} & {self._target(row).resolve() for row in rows}
        if taken:
            raise ConfigError(f"--draw {folder}: would overwrite {min(taken)}; choose another folder")
        folder.mkdir(parents=True, exist_ok=True)

    def _target(self, row: Row) -> Path:
        from hashlib import sha256

        number = sha256(json.dumps([str(row.path), row.text]).encode()).hexdigest()[:HASH_DIGITS]
        return self.folder / f"{row.path.stem}_{number}.png"

    def draw(self, row: Row, box: tuple[float, float, float, float]) -> Path:
        """The file written, a PNG."""
        from PIL import ImageDraw

        from unival_plugin.data.image import decode_image

        image = decode_image(row.path.read_bytes(), str(row.path))
        width, height = image.size
        x0, x1 = sorted(min(max(x, 0), width - 1) for x in (box[0], box[2]))
        y0, y1 = sorted(min(max(y, 0), height - 1) for y in (box[1], box[3]))
        line_width = max(1, round(max(width, height) / LINES_A_SIDE))
        ImageDraw.Draw(image).rectangle((x0, y0, x1, y1), outline=BOX_COLOUR, width=line_width)
        image.save(self._target(row))
        return self._target(row)
