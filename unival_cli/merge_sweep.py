"""``unival merge --sweep`` and ``--greedy``: merges that are evaluated while they are made."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Optional

from .files import refuse_existing
from .light import light
from .merge_evaluations import Evaluation, evaluations_of, merged
from .merge_record import Record, settings_of

RECORD = "sweep.jsonl"
PLOT = "sweep.png"
RUNS = "evaluations"
MOST_COEFFICIENTS = 1000

EXAMPLES = """  unival merge caption.pt vqa.pt --sweep 0:1:0.2 --output sweep/ \\
      --evaluate "caption=fairseq-validate cap.tsv --task caption --path {checkpoint}" --metric caption=cider \\
      --evaluate "vqa=fairseq-validate vqa.tsv --task vqa_gen --path {checkpoint}" --metric vqa=vqa_score
  unival merge a.pt b.pt c.pt --greedy --output soup/ \\
      --evaluate "vqa=fairseq-validate vqa.tsv --task vqa_gen --path {checkpoint}" --metric vqa=vqa_score"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of sweeps and greedy soups to those of ``unival merge``."""
    group = parser.add_argument_group("evaluated merges (--output is a folder; an interrupted run continues)")
    group.add_argument(
        "--sweep",
        metavar="FROM:TO:STEP|LIST",
        help="merge with every coefficient, 0:1:0.2 or 0,0.5,1: the weight of the first of two files (the second gets "
        "the rest), or the coefficient of all task vectors (--base)",
    )
    group.add_argument(
        "--greedy",
        action="store_true",
        help="begin with the best file and average in, one by one, those that do not make it worse (soup.pt)",
    )
    group.add_argument(
        "--evaluate",
        action="append",
        default=[],
        metavar='"NAME=COMMAND"',
        help="command that evaluates {checkpoint}; {output} is a folder of its own; may be repeated",
    )
    group.add_argument(
        "--metric",
        action="append",
        default=[],
        metavar="NAME=KEY|re:PATTERN",
        help="score of NAME's command: its name in the last line of fairseq-validate or in a result file in {output}, "
        "or a regular expression with one group; may be repeated",
    )
    group.add_argument("--minimise", action="store_true", help="with --greedy: a smaller metric is better")
    group.add_argument("--plot", type=Path, metavar="FILE", help=f"picture of the sweep (default: FOLDER/{PLOT})")
    group.add_argument("--keep-checkpoints", action="store_true", help="do not remove the sweep's merged files")


def run(args: argparse.Namespace, plan: Any) -> int:
    """Runs the sweep or the greedy soup that ``args`` asks for.

    Args:
        plan: the ``MergePlan`` of the other arguments; its coefficients are not used.

    Raises:
        ConfigError: arguments that do not go together, or an evaluation that fails.
        CheckpointError: a file cannot be read or does not fit the others.
    """
    _check(args, plan)
    evaluations = evaluations_of(args.evaluate, args.metric)
    if args.greedy:
        from .merge_soup import make_soup

        if len(evaluations) != 1 or len(evaluations[0].metrics) != 1:
            raise light("errors").ConfigError("--greedy compares by one number: give one --evaluate and one --metric")
        make_soup(plan, evaluations[0], args.output, args.minimise, args.overwrite)
        return 0
    if not evaluations and not args.keep_checkpoints:
        raise light("errors").ConfigError("--sweep needs --evaluate NAME=COMMAND, or --keep-checkpoints to only merge")
    _sweep(args, plan, evaluations)
    return 0


def _check(args: argparse.Namespace, plan: Any) -> None:
    error = light("errors").ConfigError
    if args.sweep and args.greedy:
        raise error("give either --sweep or --greedy")
    if plan.coefficients is not None:
        raise error(f"--coefficients does not go with --{'greedy' if args.greedy else 'sweep'}, which chooses its own")
    if args.minimise and not args.greedy:
        raise error("--minimise is for --greedy")
    if args.greedy and (args.plot or args.keep_checkpoints):
        raise error("--plot and --keep-checkpoints are for --sweep")
    if args.greedy and plan.method != "weighted":
        raise error(f"--greedy averages with equal weights; it does not go with --method {plan.method}")
    if args.greedy and len({path.resolve() for path in plan.paths}) != len(plan.paths):
        raise error("--greedy: a file is given twice")
    if args.sweep and plan.base is None and len(plan.paths) != 2:
        raise error(f"--sweep without --base goes from one file to another: give two files, not {len(plan.paths)}")
    if args.output.exists() and not args.output.is_dir():
        raise error(f"--output {args.output}: a sweep or a greedy soup needs a folder, and this is a file")
    if args.plot and args.plot.suffix.lower() != ".png":
        raise error(f"--plot {args.plot}: pictures are PNG; choose a name that ends with .png")
    sources = [*plan.paths, *([plan.base] if plan.base else [])]
    if inside := [path for path in sources if path.resolve().parent == args.output.resolve()]:
        raise error(f"--output {args.output}: {inside[0]} lies in it and could be overwritten; choose another folder")


def coefficients_of(text: str) -> list[float]:
    """The numbers that ``--sweep`` names, ascending: ``FROM:TO:STEP`` with both ends, or a list with commas.

    Raises:
        ConfigError: not numbers, a step that does not lead from FROM to TO, or too many.
    """
    error = light("errors").ConfigError
    advice = f"--sweep {text}: needs FROM:TO:STEP as in 0:1:0.2, or a list as in 0,0.5,1"
    try:
        numbers = [Decimal(part) for part in text.split(":" if ":" in text else ",")]
    except InvalidOperation:
        raise error(advice) from None
    if not all(math.isfinite(number) for number in numbers):
        raise error(advice)
    if ":" in text:
        if len(numbers) != 3 or numbers[2] <= 0 or numbers[1] < numbers[0]:
            raise error(advice)
        start, end, step = numbers
        count = int((end - start) / step) + 1
        if count > MOST_COEFFICIENTS:
            raise error(f"--sweep {text}: too many coefficients; at most {MOST_COEFFICIENTS}")
        numbers = [start + i * step for i in range(count)]
        if numbers[-1] != end:
            numbers.append(end)
    return sorted({float(number) for number in numbers})


def weights_at(coefficient: float, plan: Any) -> tuple[float, ...]:
    """The coefficients of all files at one point of the sweep."""
    if plan.base is not None:
        return (coefficient,) * len(plan.paths)
    return coefficient, float(1 - Decimal(str(coefficient)))


def file_name(coefficient: float) -> str:
    """Name of the merged file, with two decimals where they are enough."""
    short = f"{coefficient:.2f}"
    return f"merged_l{short if float(short) == coefficient else repr(coefficient)}.pt"


# ---- the sweep


def _sweep(args: argparse.Namespace, plan: Any, evaluations: list[Evaluation]) -> None:
    from tqdm import tqdm

    coefficients = coefficients_of(args.sweep)
    record = Record(args.output / RECORD, settings_of(plan, evaluations), args.overwrite)
    known = {(line["coefficient"], line["evaluation"], line["metric"]) for line in record.lines}
    left = {c: [e for e in evaluations if any((c, e.name, m) not in known for m in e.metrics)] for c in coefficients}
    if not record.lines:
        _make_room(args.output, args.overwrite)
    with tqdm(total=sum(map(len, left.values())), desc="sweep", unit="evaluation", disable=None) as bar:
        for coefficient, waiting in left.items():
            target = args.output / file_name(coefficient)
            kept = target.exists()
            if waiting or (args.keep_checkpoints and not kept):
                point = replace(plan, coefficients=weights_at(coefficient, plan))
                with nullcontext() if kept else merged(point, target, args.keep_checkpoints):
                    for evaluation in waiting:
                        _evaluate(evaluation, coefficient, target, record, known)
                        bar.update()
    if evaluations:
        _show(args, plan, _curves(record, evaluations, coefficients))


def _make_room(folder: Path, overwrite: bool) -> None:
    """Merged files that no record tells about may be of other files."""
    for path in folder.glob("merged_l*.pt"):
        refuse_existing(path, overwrite)
        path.unlink()


def _evaluate(
    evaluation: Evaluation, coefficient: float, target: Path, record: Record, known: set[tuple[float, str, str]]
) -> None:
    values = evaluation.run(target, target.parent / RUNS / target.stem / evaluation.name)
    for metric, value in values.items():
        if (coefficient, evaluation.name, metric) not in known:
            record.add({"coefficient": coefficient, "evaluation": evaluation.name, "metric": metric, "value": value})


def _curves(record: Record, evaluations: Sequence[Evaluation], coefficients: Sequence[float]) -> list[Any]:
    from .merge_plot import Curve

    found = {(line["coefficient"], line["evaluation"], line["metric"]): line["value"] for line in record.lines}
    return [
        Curve(e.name, metric, [(c, found[c, e.name, metric]) for c in coefficients])
        for e in evaluations
        for metric in e.metrics
    ]


def _show(args: argparse.Namespace, plan: Any, curves: Sequence[Any]) -> None:
    """Prints the table and draws the picture; only a picture that was asked for is an error when it cannot be drawn."""
    from .merge_plot import draw

    print("\t".join(["coefficient", *(curve.label for curve in curves)]))
    for points in zip(*(curve.points for curve in curves), strict=True):
        print("\t".join([f"{points[0][0]:g}", *(_shown(value) for _, value in points)]))
    path = args.plot or args.output / PLOT
    try:
        draw(curves, path, _label(plan))
    except light("errors").ConfigError as error:
        if args.plot:
            raise
        print(f"unival merge: no picture: {error}", file=sys.stderr)
    else:
        print(f"picture: {path}", file=sys.stderr)


def _shown(value: Optional[float]) -> str:
    return "-" if value is None else f"{value:g}"


def _label(plan: Any) -> str:
    if plan.base is not None:
        return f"coefficient of the task vectors ({plan.method})"
    first, second = (Path(*path.parts[-2:]) for path in plan.paths)
    return f"weight of {first}\n(the rest: {second})"
