"""How many rows a second does one core turn from a base64 cell into a tensor, and do data loader workers help?

Our path against the references' (urlsafe_b64decode, PIL, torchvision Resize, ToTensor, Normalize), in turns in this
process, on the two photographs that come with scikit-learn (or those given). Both results must be bit-equal. Prints
JSON lines.
"""

from __future__ import annotations

import argparse
import base64
import io
import itertools
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from unival_plugin.data.image import HALF_MEAN, HALF_STD, eval_transform, read_cell_image
from unival_plugin.data.tsv import TsvTable


class Pictures(Dataset):
    """Pictures of a table, transformed by our path."""

    def __init__(self, path: Path, size: int) -> None:
        self.table = TsvTable(path, "1")
        self.transform = eval_transform(size)

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, i: int) -> torch.Tensor:
        return self.transform(read_cell_image(self.table.cell_bytes(i, 0), self.table.where(i, 0)))


def sample_photographs() -> list[bytes]:
    """The JPEG files behind scikit-learn's load_sample_images."""
    from sklearn.datasets import load_sample_images

    return [Path(name).read_bytes() for name in load_sample_images().filenames]


def reference_style(size: int):  # type: ignore[no-untyped-def]
    transform = transforms.Compose(
        [
            transforms.Resize((size, size), interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.ToTensor(),
            transforms.Normalize(HALF_MEAN, HALF_STD),
        ]
    )

    def load(cell: str) -> torch.Tensor:
        return transform(Image.open(io.BytesIO(base64.urlsafe_b64decode(cell))).convert("RGB"))

    return load


def measure_core(cells: list[str], size: int, rounds: int) -> dict[str, float]:
    """Median rows a second of both paths on one thread, in turns."""
    reference, transform = reference_style(size), eval_transform(size)

    def ours(cell: str) -> torch.Tensor:
        return transform(read_cell_image(cell, "row"))

    equal = all(torch.equal(ours(cell), reference(cell)) for cell in cells)
    seconds: dict[str, list[float]] = {"ours": [], "reference": []}
    for _ in range(rounds):
        for name, load in (("ours", ours), ("reference", reference)):
            start = time.perf_counter()
            for cell in cells:
                load(cell)
            seconds[name].append((time.perf_counter() - start) / len(cells))
    ours_s, reference_s = statistics.median(seconds["ours"]), statistics.median(seconds["reference"])
    return {
        "ours_rows_per_s": round(1 / ours_s, 1),
        "reference_rows_per_s": round(1 / reference_s, 1),
        "ours_vs_reference": round(reference_s / ours_s, 2),
        "bit_equal": equal,
    }


def measure_workers(path: Path, size: int, workers: int, batch_size: int) -> float:
    """Rows a second through a DataLoader; the start of the workers is not counted."""
    loader = DataLoader(Pictures(path, size), batch_size=batch_size, num_workers=workers)
    batches = iter(loader)
    next(batches)
    start = time.perf_counter()
    rows = sum(len(batch) for batch in batches)
    return rows / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pictures", nargs="*", type=Path, help="JPEG files (default: scikit-learn's two photographs)")
    parser.add_argument("--sizes", type=int, nargs="+", default=[224, 384, 480])
    parser.add_argument("--rounds", type=int, default=30, help="turns of the one-core measurement")
    parser.add_argument("--rows", type=int, default=600, help="rows of the table for the workers")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    args = parser.parse_args()
    torch.set_num_threads(1)
    photographs = [path.read_bytes() for path in args.pictures] or sample_photographs()
    cells = [base64.urlsafe_b64encode(photograph).decode() for photograph in photographs]
    for size in args.sizes:
        print(json.dumps({"question": "one core", "size": size, **measure_core(cells, size, args.rounds)}))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pictures.tsv"
        rows = itertools.islice(itertools.cycle(cells), args.rows)
        path.write_text("".join(f"{i}\t{cell}\n" for i, cell in enumerate(rows)))
        for size in args.sizes:
            speeds = {n: measure_workers(path, size, n, args.batch_size) for n in args.workers}
            line = {f"workers_{n}_rows_per_s": round(speed, 1) for n, speed in speeds.items()}
            ratios = {
                f"workers_{n}_vs_{args.workers[0]}": round(s / speeds[args.workers[0]], 2) for n, s in speeds.items()
            }
            print(json.dumps({"question": "workers", "size": size, **line, **ratios}))


if __name__ == "__main__":
    main()
