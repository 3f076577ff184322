"""Films and sounds of cells, of files and of tensors: the same sample either way, and nothing outside the folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_films import write_film
from made_sounds import tone, written

from unival_plugin.data.audio import SoundOptions, read_clip
from unival_plugin.data.image import eval_transform
from unival_plugin.data.media import Films, Pictures, Sounds
from unival_plugin.data.video import FilmEvalTransform, FilmTrainTransform, FrameSampling, read_frames
from unival_plugin.errors import ConfigError, DataError

FOUR = FrameSampling(4, "middle", 4)
HERE = "rows.tsv:row 3, column 5"


def films(folder: Path | None) -> Films:
    return Films(FilmEvalTransform(64), FOUR, folder, picture_size=16)


def sounds(folder: Path | None) -> Sounds:
    return Sounds(SoundOptions(1000), folder, picture_size=16)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "media"
    folder.mkdir()
    write_film(folder / "a.mp4", frames=9)
    written(folder / "a.flac", tone())
    return folder


@pytest.mark.parametrize("make, name", [(films, "a.mp4"), (sounds, "a.flac")])
def test_cells_files_and_tensors_become_the_same_sample(folder: Path, make: Any, name: str) -> None:
    medium, path = make(folder), folder / name
    if name.endswith("mp4"):
        opened = read_frames(path, FrameSampling(9, "middle"), HERE)
    else:
        opened = read_clip(path, HERE, SoundOptions(1000))
    samples = [medium.sample(media, HERE, np.random.default_rng) for media in (name, str(path), path, opened)]
    for key, value in samples[0].items():
        assert all(torch.equal(value, other[key]) for other in samples[1:]), key
    assert samples[0]["patch_type"].tolist() == [medium.kind] and not samples[0]["patch_image"].any()


@pytest.mark.parametrize("make", [films, sounds])
@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/../../secret"])
def test_paths_outside_the_folder_are_refused(folder: Path, make: Any, name: str) -> None:
    (folder.parent / "secret").touch()
    with pytest.raises(DataError, match=f"^{HERE}: .*leaves"):
        make(folder).sample(name, HERE, np.random.default_rng)


@pytest.mark.parametrize("make", [films, sounds])
def test_a_folder_is_needed(make: Any) -> None:
    with pytest.raises(ConfigError, match="--image-dir"):
        make(None).sample("a.mp4", HERE, np.random.default_rng)


@pytest.mark.parametrize(
    "make, media, message",
    [
        (films, torch.zeros(2, 3, 8, 8), "frames must be uint8"),
        (films, torch.zeros(0, 3, 8, 8, dtype=torch.uint8), "frames must be uint8"),
        (films, b"bytes", "is no film; give the path of a file"),
        (sounds, torch.zeros(3, dtype=torch.int16), "a waveform must be finite floats"),
        (sounds, torch.tensor([0.0, float("nan")]), "a waveform must be finite floats"),
        (sounds, torch.zeros(0), "a waveform must be finite floats"),
        (lambda _: Pictures(eval_transform(8)), torch.zeros(3, 8, 8), "is no picture"),
    ],
)
def test_what_is_none_of_the_medium_is_refused(make: Any, media: Any, message: str) -> None:
    with pytest.raises(DataError, match=f"^{HERE}: .*{message}"):
        make(None).sample(media, HERE, np.random.default_rng)


def test_frames_and_augmentation_are_drawn_from_one_generator(folder: Path) -> None:
    made = []

    def rng() -> np.random.Generator:
        made.append(np.random.default_rng(5))
        return made[-1]

    medium = Films(FilmTrainTransform(32), FrameSampling(4, "rand", 4), folder, picture_size=16, draws=True)
    medium.sample("a.mp4", HERE, rng)
    assert len(made) == 1
    films(folder).sample("a.mp4", HERE, rng)
    assert len(made) == 1  # nothing is drawn in evaluation
