"""Inception score of generated pictures: ``python inception_score.py --path1 FOLDER --weights FILE``."""

from __future__ import annotations

import sys

from picture_scores import device_of, light, parser, show


def main(arguments: list[str] | None = None) -> int:
    """Prints the score and its deviation over random parts; returns the exit status."""
    flags = parser(__doc__)
    flags.add_argument("--splits", type=int, choices=range(1, 101), default=1, metavar="N", help="parts, at most 100")
    options = flags.parse_args(arguments)

    def scores() -> dict[str, float]:
        score = light("metrics.pictures").inception_score
        mean, deviation = score(options.path1, options.weights, options.splits, device_of(options), options.batch_size)
        return {"IS": mean} | ({"deviation": deviation} if options.splits > 1 else {})

    return show("inception_score.py", options, scores)


if __name__ == "__main__":
    sys.exit(main())
