"""What the columns of each task's rows hold, in the order of ``--selected-cols``."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Schema:
    """``columns`` are pairs of name and kind; kinds: ``id`` (unique), ``image``, ``captions`` (joined by ``&&``)."""

    columns: tuple[tuple[str, str], ...]
    selected_cols: str  # the task's usual --selected-cols

    def describe(self) -> str:
        """One line for ``--help``."""
        return f"{', '.join(name for name, _ in self.columns)} (usual --selected-cols: {self.selected_cols})"


SCHEMAS = {
    "caption": Schema((("id", "id"), ("image", "image"), ("caption", "captions")), "0,4,2"),
}
