"""Modules of the package that need torch only, without what ``import unival_plugin`` loads besides (fairseq: 3 s)."""

from __future__ import annotations

import importlib
import sys
from importlib.util import find_spec
from types import ModuleType
from typing import Any

PACKAGE = "unival_plugin"
ALIAS = "unival_plugin_light"


def light(module: str) -> Any:
    """The module ``unival_plugin.<module>``, under the name of a package of the same files that registers nothing."""
    if PACKAGE in sys.modules:
        return importlib.import_module(f"{PACKAGE}.{module}")
    if ALIAS not in sys.modules:
        spec = find_spec(PACKAGE)
        if spec is None or spec.submodule_search_locations is None:
            raise ModuleNotFoundError(f"no package {PACKAGE}", name=PACKAGE)
        package = ModuleType(ALIAS)
        package.__path__ = list(spec.submodule_search_locations)
        sys.modules[ALIAS] = package
    return importlib.import_module(f"{ALIAS}.{module}")
