"""``python -m unival_cli`` is the command ``unival``."""

import sys

from .main import main

if __name__ == "__main__":
    sys.exit(main())
