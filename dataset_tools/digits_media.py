"""What rows are about: pictures, which stand in the rows themselves, and films and sounds in files of their own."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from digits_films import RATE as FILM_RATE
from digits_films import FilmMaker
from digits_plan import BuildPlan
from digits_scenes import DigitSource, Scene, SceneMaker, load_source
from digits_sounds import RATE as SOUND_RATE
from digits_sounds import SECONDS, SoundMaker
from PIL import Image

SCANS = (
    "The scans: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits,",
    "UCI Machine Learning Repository, doi 10.24432/C50P49, CC BY 4.0.",
)
HELD_OUT = "No scanned digit of a val or test file is in a training file. Every training file has {unit}s of its own."


class Maker(Protocol):
    """Makes items; the same arguments always give the same item."""

    def make(self, split: str, stream: int, row: int) -> Any:
        """Item ``row`` of ``stream``, of nothing that another split has."""


@dataclass(frozen=True)
class Medium:
    """How items of one medium are made and kept.

    Attributes:
        unit: what one is called.
        maker: the maker of a build; the second argument asks for the simplest kind of items.
        in_training: how many items each training file is about.
        save: keeps what does not stand in the rows; gets the folder of the build, the item and the plan.
        facts: what the manifest says.
        packages: whose versions decide about the bytes.
        notes: lines of README.txt.
    """

    unit: str
    maker: Callable[[BuildPlan, bool], Maker]
    in_training: Callable[[BuildPlan], int]
    save: Callable[[Path, Any, BuildPlan], None]
    facts: Callable[[BuildPlan], dict[str, object]]
    packages: tuple[str, ...]
    notes: tuple[str, ...]


# -------------------------------------------------------------------------------- pictures


def _scene_maker(plan: BuildPlan, easy: bool) -> SceneMaker:
    most = 1 if easy else plan.max_digits
    return SceneMaker(load_source(plan.seed), plan.seed, plan.canvas, most, plan.file_format)


def _save_picture(folder: Path, scene: Scene, plan: BuildPlan) -> None:
    """The first test pictures, the same pixels as in the row, as PNG files of their own."""
    if scene.split != "test" or scene.row >= plan.pictures:
        return
    (folder / "pictures").mkdir(exist_ok=True)
    with Image.open(io.BytesIO(scene.picture)) as picture:
        picture.save(folder / "pictures" / f"{scene.name}.png")


def _picture_facts(plan: BuildPlan) -> dict[str, object]:
    return {
        "pictures": "one to three scanned handwritten digits (UCI optdigits, as in scikit-learn)",
        "canvas": plan.canvas,
        "max_digits": plan.max_digits,
        "training_files_with_one_digit_a_picture": plan.easy_files,
        "picture_format": plan.file_format,
        "source_digits": _source_digits(load_source(plan.seed)),
    }


def _source_digits(source: DigitSource) -> dict[str, int]:
    return {split: sum(map(len, pools)) for split, pools in source.pools.items()}


# -------------------------------------------------------------------------------- films and sounds


def _film_maker(plan: BuildPlan, easy: bool) -> FilmMaker:
    most = 1 if easy else plan.max_digits
    return FilmMaker(load_source(plan.seed), plan.seed, plan.canvas, most, plan.frames)


def _sound_maker(plan: BuildPlan, easy: bool) -> SoundMaker:
    return SoundMaker(plan.seed, 1 if easy else 2)


def _save_file(folder: Path, item: Any, plan: BuildPlan) -> None:
    path = folder / item.path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(item.data)


def _film_facts(plan: BuildPlan) -> dict[str, object]:
    return {
        "films": "one or two scanned handwritten digits (UCI optdigits, as in scikit-learn) move, stay or change",
        "canvas": plan.canvas,
        "film_frames": plan.frames,
        "film_frames_a_second": FILM_RATE,
        "training_files_with_one_digit_a_film": plan.easy_files,
        "source_digits": _source_digits(load_source(plan.seed)),
    }


def _sound_facts(plan: BuildPlan) -> dict[str, object]:
    return {
        "sounds": "beeps, tones and noise made by a program; flac, mono, 16 bits",
        "sound_samples_a_second": SOUND_RATE,
        "sound_seconds": SECONDS,
        "training_files_with_one_thing_a_sound": plan.easy_files,
    }


# To add a medium: one maker, one entry here.
MEDIA = {
    "picture": Medium(
        "scene",
        _scene_maker,
        lambda plan: plan.train_rows,
        _save_picture,
        _picture_facts,
        ("scikit-learn", "numpy", "pillow"),
        (HELD_OUT.format(unit="scene"), *SCANS),
    ),
    "film": Medium(
        "film",
        _film_maker,
        lambda plan: plan.films,
        _save_file,
        _film_facts,
        ("scikit-learn", "numpy", "pillow", "av"),
        (HELD_OUT.format(unit="film"), "Paths of films start in this folder.", *SCANS),
    ),
    "sound": Medium(
        "sound",
        _sound_maker,
        lambda plan: plan.sounds,
        _save_file,
        _sound_facts,
        ("numpy", "soundfile"),
        ("Every file has sounds of its own.", "Paths of sounds start in this folder."),
    ),
}
