"""Fréchet inception distance of generated pictures: ``python fid_score.py --path1 FOLDER --path2 gt_stat.npz``."""

from __future__ import annotations

import sys
from pathlib import Path

from picture_scores import device_of, light, parser, show


def main(arguments: list[str] | None = None) -> int:
    """Prints the distance; returns the exit status."""
    flags = parser(__doc__)
    flags.add_argument(
        "--path2", required=True, type=Path, metavar="FOLDER|FILE", help="real pictures, or their statistics (.npz)"
    )
    options = flags.parse_args(arguments)

    def scores() -> dict[str, float]:
        fid = light("metrics.pictures").fid
        value = fid(options.path2, options.path1, options.weights, device_of(options), options.batch_size)
        return {"FID": value}

    return show("fid_score.py", options, scores)


if __name__ == "__main__":
    sys.exit(main())
