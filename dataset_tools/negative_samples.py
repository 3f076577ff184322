"""The command ``unival data negatives``, which makes what multitask pretraining draws wrong answers from.

python dataset_tools/negative_samples.py --help
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Optional

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from unival_cli.main import main as unival


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Exit status: 0, or 2 for what the user can mend."""
    return unival(["data", "negatives", *(sys.argv[1:] if argv is None else argv)])


if __name__ == "__main__":
    sys.exit(main())
