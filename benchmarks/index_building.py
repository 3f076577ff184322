"""How fast is a table indexed, and what does the index cost in memory?

Both ways run in this process on the same made table, page cache warm, in turns; the best time of each counts. Prints
JSON lines.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from unival_plugin.data.tsv import TsvTable, build_index, index_path


def text_mode_scan(path: Path) -> list[int]:
    """The references' way: note the position, read a line, until the end."""
    offsets: list[int] = []
    with path.open(encoding="utf-8") as file:
        while True:
            position = file.tell()
            if not file.readline():
                return offsets
            offsets.append(position)


def write_table(path: Path, rows: int, cell_bytes: int) -> None:
    """Rows of an id, a caption and a base64 cell of about the given size."""
    cell = base64.urlsafe_b64encode(os.urandom(cell_bytes * 3 // 4))
    with path.open("wb") as file:
        for i in range(rows):
            file.write(b"%d\ta caption of row %d\t%s\n" % (i, i, cell))


def best_of(repeats: int, *ways: Callable[[], object]) -> list[float]:
    """Best seconds of each way, measured in turns."""
    best = [float("inf")] * len(ways)
    for _ in range(repeats):
        for i, way in enumerate(ways):
            start = time.perf_counter()
            way()
            best[i] = min(best[i], time.perf_counter() - start)
    return best


def measure_speed(path: Path, repeats: int) -> dict[str, float]:
    size = path.stat().st_size
    assert build_index(path).tolist() == text_mode_scan(path)
    index, text = best_of(repeats, lambda: build_index(path), lambda: text_mode_scan(path))
    opened = best_of(repeats, lambda: len(TsvTable(path)))[0]
    return {
        "table_MB": round(size / 1e6),
        "index_GB_per_s": round(size / index / 1e9, 2),
        "text_scan_GB_per_s": round(size / text / 1e9, 2),
        "index_vs_text_scan": round(text / index, 1),
        "open_with_ready_index_ms": round(opened * 1e3, 3),
    }


def measure_memory(path: Path) -> dict[str, float]:
    """Peak of the index while it is built, and what an opened table holds afterwards, in bytes per row."""
    index_path(path).unlink(missing_ok=True)
    tracemalloc.start()
    rows = len(build_index(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    table = TsvTable(path)
    table.row(rows - 1)
    held = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    return {
        "rows": rows,
        "build_peak_bytes_per_row": round(peak / rows, 2),
        "held_bytes_per_row": round(held / rows, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=3000, help="rows of the large-cell table")
    parser.add_argument("--cell-bytes", type=int, default=100_000, help="base64 bytes a row")
    parser.add_argument("--short-rows", type=int, default=1_000_000, help="rows of the table for the memory figure")
    parser.add_argument("--repeats", type=int, default=9, help="turns; the best of each way counts")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table.tsv"
        write_table(path, args.rows, args.cell_bytes)
        print(json.dumps({"question": "index speed", "rows": args.rows, **measure_speed(path, args.repeats)}))
        write_table(path, args.short_rows, 40)
        print(json.dumps({"question": "index memory", **measure_memory(path)}))


if __name__ == "__main__":
    main()
