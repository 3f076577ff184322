"""``unival predict``: answers for pictures, one line of JSON each."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any, TextIO

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"}
TASKS = ("caption",)
EPILOG = """examples:
  unival predict --task caption --path checkpoint_best.pt dog.jpg
  unival predict --task caption --path checkpoint_best.pt photos/ --output captions.jsonl --workers 2

A folder stands for all pictures below it; a pattern in quotes ('photos/*.jpg') is expanded here. With --output, the
same command continues where an interrupted one stopped. A picture that cannot be read gets a line with "error", and
the exit status is then 1."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of ``unival predict``."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EPILOG
    parser.add_argument("pictures", nargs="+", metavar="PICTURE|FOLDER|GLOB", help="what to answer for")
    parser.add_argument("--task", choices=TASKS, default="caption", help="what to answer (default: caption)")
    parser.add_argument("--path", required=True, metavar="CKPT", help="checkpoint (.pt or .safetensors)")
    parser.add_argument("--ema", action="store_true", help="use the checkpoint's averaged weights")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write JSON lines to FILE (default: print them)")
    parser.add_argument("--overwrite", action="store_true", help="begin FILE anew instead of continuing it")
    parser.add_argument("--batch-size", type=int, default=16, help="pictures a batch (default: 16)")
    parser.add_argument("--workers", type=int, default=0, help="processes that decode pictures (default: 0)")
    parser.add_argument("--device", help="cpu, cuda, cuda:1 … (default: the GPU if there is one)")
    parser.add_argument(
        "--beam", type=int, help="hypotheses of beam search (default: as in the checkpoint's validation)"
    )
    parser.add_argument("--max-len-b", type=int, help="longest caption in tokens")
    parser.add_argument("--no-repeat-ngram-size", type=int, help="no n-gram of this size twice in a caption")
    parser.add_argument("--lenpen", type=float, help="length penalty: > 1 favours long captions")
    parser.add_argument("--bpe-dir", metavar="DIR", help="folder of the GPT-2 BPE files, if it has moved")
    parser.add_argument("--sentencepiece-model", metavar="FILE", help="sentencepiece model, if it has moved")


def run(args: argparse.Namespace) -> int:
    """Runs ``unival predict``; returns 1 if a picture could not be read, else 0."""
    pictures = expand(args.pictures)
    from unival_plugin.errors import ConfigError
    from unival_plugin.hub import from_pretrained
    from unival_plugin.unival.tasks.results import sha256

    if not pictures:
        raise ConfigError(
            f"no pictures found in {' '.join(args.pictures)}; picture files end with {' '.join(sorted(SUFFIXES))}"
        )
    overrides = {name: getattr(args, name) for name in ("bpe_dir", "sentencepiece_model") if getattr(args, name)}
    predictor = from_pretrained(args.path, args.device, ema=args.ema, task=args.task, **overrides)
    flags = {name: getattr(args, name) for name in ("beam", "max_len_b", "no_repeat_ngram_size", "lenpen")}
    options = predictor.task.eval_options.with_flags(flags, "unival predict")
    how = {
        "task": args.task,
        "checkpoint": {"path": str(args.path), "sha256": sha256(Path(args.path)), "ema": args.ema},
        "prompt": predictor.task.prompt,
        "picture_size": predictor.task.cfg.patch_image_size,
        "generation": options.as_dict(),
    }
    if args.output is None:
        return _write(predictor, pictures, args, flags, sys.stdout)
    done = _prepare(args.output, how, args.overwrite)
    with args.output.open("a", encoding="utf-8") as file:
        return _write(predictor, [picture for picture in pictures if str(picture) not in done], args, flags, file)


def expand(patterns: list[str]) -> list[Path]:
    """Pictures that files, folders and patterns stand for, each once, in order.

    A name that matches nothing is kept, so that its line tells about it.
    """
    import glob

    found: dict[Path, None] = {}
    for pattern in patterns:
        path = Path(pattern)
        if path.is_dir():
            matches = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
        elif path.exists() or not glob.has_magic(pattern):
            matches = [path]
        else:
            matches = sorted(Path(match) for match in glob.glob(pattern, recursive=True))  # noqa: PTH207
        found.update(dict.fromkeys(matches))
    return list(found)


def _write(predictor: Any, pictures: list[Path], args: argparse.Namespace, flags: dict[str, Any], file: TextIO) -> int:
    from .files import progress

    given = {name: value for name, value in flags.items() if value is not None}
    failed = 0
    stream = predictor.stream(pictures, args.batch_size, workers=args.workers, **given)
    for prediction in progress(stream, len(pictures), args.task, "picture"):
        line: dict[str, Any] = {"image": str(pictures[prediction.index])}
        if prediction.error:
            failed += 1
            line["error"] = prediction.error
        else:
            line.update(caption=prediction.text, score=round(prediction.score, 4))
        print(json.dumps(line, ensure_ascii=False), file=file, flush=True)
    if failed:
        print(f"unival predict: {failed} of {len(pictures)} pictures could not be read", file=sys.stderr)
    return 1 if failed else 0


def _prepare(output: Path, how: dict[str, Any], overwrite: bool) -> set[str]:
    """Pictures that ``output`` already answers; cuts off a line that an interruption left unfinished.

    Raises:
        ConfigError: the file was made with another checkpoint or other options.
    """
    from unival_plugin.errors import ConfigError
    from unival_plugin.unival.tasks.results import write_json

    meta = output.with_name(f"{output.name}.meta.json")
    if overwrite:
        output.unlink(missing_ok=True)
    elif output.exists():
        if not meta.exists() or json.loads(meta.read_text(encoding="utf-8")) != how:
            raise ConfigError(
                f"{output}: was made with another checkpoint or other options; choose another name or add --overwrite"
            )
        return _finished(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    write_json(meta, how)
    return set()


def _finished(output: Path) -> set[str]:
    kept, done = 0, set()
    with output.open("rb") as file:
        for line in file:
            if not line.endswith(b"\n"):
                break
            kept += len(line)
            done.add(str(json.loads(line)["image"]))
    with output.open("rb+") as file:
        file.truncate(kept)
    return done
