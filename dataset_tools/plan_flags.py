"""Flags of commands whose settings are the fields of a dataclass."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import asdict
from typing import Any


def adds_flags(parser: argparse.ArgumentParser, plan: Any) -> Callable[..., None]:
    """A function ``add(name, help, **options)`` for ``--name``.

    If ``plan``, a dataclass of defaults, has a field of that name, the flag has its type and default.
    """
    defaults = asdict(plan)

    def add(name: str, help: str, **options: Any) -> None:
        field = name.replace("-", "_")
        if field in defaults:
            options = {"type": type(defaults[field]), "default": defaults[field], "metavar": "N", **options}
        parser.add_argument(f"--{name}", help=help, **options)

    return add
