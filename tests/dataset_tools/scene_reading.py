"""Reads places and relations off the boxes of a scene: another way to the truth than the layouts that writers use."""

from __future__ import annotations

from digits_scenes import NAMES, Scene, relation

INVERSE = {"left of": "right of", "above": "below"}


def label(word: str) -> int:
    return NAMES.index(word)


def labels(scene: Scene) -> list[int]:
    return [digit.label for digit in scene.digits]


def at(scene: Scene, place: str) -> int:
    """Which digit stands "on the left", "at the bottom right", ..., by the centres of the boxes."""
    xs = [digit.box[0] + digit.box[2] for digit in scene.digits]
    ys = [digit.box[1] + digit.box[3] for digit in scene.digits]
    words = set(place.split())
    numbers = sorted(range(len(xs)), key=ys.__getitem__)
    if words & {"top", "bottom", "upper", "lower"}:
        if not words & {"left", "right"}:
            return numbers[0] if words & {"top", "upper"} else numbers[-1]
        assert len(numbers) == 3
        numbers = numbers[:2] if "top" in words else numbers[1:]
    elif "middle" in words:
        assert len(numbers) == 3
        axis = xs if max(xs) - min(xs) > max(ys) - min(ys) else ys
        return sorted(numbers, key=axis.__getitem__)[1]
    numbers = sorted(numbers, key=xs.__getitem__)
    return numbers[0] if "left" in words else numbers[-1]


def related(scene: Scene) -> set[tuple[int, str, int]]:
    """(first, "left of" and so on, second) of all pairs that stand clearly so."""
    found = set()
    for i, first in enumerate(scene.digits):
        for j, second in enumerate(scene.digits):
            name = relation(first.box, second.box, 0.1 * scene.canvas) if i != j else None
            if name is not None:
                word = {"left": "left of", "above": "above"}[name]
                found |= {(i, word, j), (j, INVERSE[word], i)}
    return found
