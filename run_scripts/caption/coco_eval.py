"""COCO caption scores of a result file: ``python coco_eval.py PREDICT_JSON GT_JSON``."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

NAMES = ("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "METEOR", "ROUGE_L", "CIDEr", "SPICE")


def main(arguments: list[str] | None = None) -> int:
    """Prints one score a line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("predictions", help='result file: JSON list of {"image_id", "caption"}')
    parser.add_argument("ground_truth", help="COCO-format annotation file of the same pictures")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s")
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # works from a checkout that is not installed
    from unival_plugin.errors import UnivalError
    from unival_plugin.metrics.coco import evaluate

    try:
        scores = evaluate(options.predictions, options.ground_truth)
    except UnivalError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for name in NAMES:
        print(f"{name}: {scores[name]:.4f}" if name in scores else f"{name}: skipped")
    return 0


if __name__ == "__main__":
    sys.exit(main())
