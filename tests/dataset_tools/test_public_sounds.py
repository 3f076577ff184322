"""Rows of sounds out of small files in the formats in which AudioCaps and Clotho are published."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from build import main as build
from public import sounds
from public.sounds import AUDIOCAPS, CLOTHO

from unival_cli.main import main

SOUND = b"a sound that nobody opens"
AUDIOCAPS_HEADER = ["audiocap_id", "youtube_id", "start_time", "caption"]
CLOTHO_HEADER = ["file_name", *(f"caption_{number}" for number in range(1, 6))]


def run(name: str, raw: Path, output: Path, *flags: str) -> int:
    return build([name, "--raw", str(raw), "--output", str(output), *flags])


def rows(path: Path) -> list[list[str]]:
    return [line.split("\t") for line in path.read_text(encoding="utf-8").split("\n")[:-1]]


def write_csv(path: Path, *lines: Sequence[str], end: str = "\n") -> None:
    with path.open("w", encoding="utf-8", newline="") as handle:
        csv.writer(handle, lineterminator=end).writerows(lines)


def make_sounds(raw: Path, *names: str) -> None:
    for name in names:
        (raw / name).parent.mkdir(parents=True, exist_ok=True)
        (raw / name).write_bytes(SOUND)


# -------------------------------------------------------------------------------- AudioCaps

TRAIN = [
    ["91139", "-1nicOVtvkQ", "130", "A woman talks nearby as water pours"],
    ["58146", "UDGBjjwyaqE", "20", 'A man says "hello", then\nlaughs & sings && hums'],
]
TEST = [
    ["1", "7fmOlUlwoNg", "20", "Rattling"],
    ["2", "6BJ455B1aAs", "0", "A rocket"],
    ["3", "7fmOlUlwoNg", "20", "Ein Gerät"],
    ["4", "6BJ455B1aAs", "0", "An explosion"],
    ["5", "7fmOlUlwoNg", "20", " "],
]


@pytest.fixture
def audiocaps_raw(raw: Path) -> Path:
    write_csv(raw / "train.csv", AUDIOCAPS_HEADER, *TRAIN)
    write_csv(raw / "val.csv", AUDIOCAPS_HEADER, *TEST, end="\r\n")
    write_csv(raw / "test.csv", AUDIOCAPS_HEADER, *TEST)
    make_sounds(raw, "train/-1nicOVtvkQ.wav", "train/UDGBjjwyaqE.wav", "test/7fmOlUlwoNg.wav", "test/6BJ455B1aAs.wav")
    return raw


def test_training_has_a_row_for_each_caption(audiocaps_raw: Path, output: Path) -> None:
    assert run(AUDIOCAPS.name, audiocaps_raw, output) == 0
    text = 'A man says "hello", then laughs & sings & hums'
    assert rows(output / "audiocaps_train.tsv") == [
        ["91139", "-1nicOVtvkQ", "A woman talks nearby as water pours", "", "train/-1nicOVtvkQ.wav"],
        ["58146", "UDGBjjwyaqE", text, "", "train/UDGBjjwyaqE.wav"],
    ]


@pytest.mark.parametrize("part", ["val", "test"])
def test_testing_has_a_row_for_each_sound_with_all_its_captions(audiocaps_raw: Path, output: Path, part: str) -> None:
    assert run(AUDIOCAPS.name, audiocaps_raw, output) == 0
    assert rows(output / f"audiocaps_{part}.tsv") == [
        ["7fmOlUlwoNg", "7fmOlUlwoNg", "Rattling&&Ein Gerät", "", "test/7fmOlUlwoNg.wav"],
        ["6BJ455B1aAs", "6BJ455B1aAs", "A rocket&&An explosion", "", "test/6BJ455B1aAs.wav"],
    ]


def test_the_captions_for_scoring_have_the_ids_of_the_rows(audiocaps_raw: Path, output: Path) -> None:
    assert run(AUDIOCAPS.name, audiocaps_raw, output) == 0
    content = json.loads((output / "audiocaps_test_coco_format.json").read_text(encoding="utf-8"))
    assert [image["id"] for image in content["images"]] == [row[0] for row in rows(output / "audiocaps_test.tsv")]
    assert [each["caption"] for each in content["annotations"] if each["image_id"] == "7fmOlUlwoNg"] == [
        "Rattling",
        "Ein Gerät",
    ]


@pytest.mark.parametrize(
    "name",
    [
        "7fmOlUlwoNg.flac",
        "7fmOlUlwoNg_20.wav",
        "Y7fmOlUlwoNg.wav",
        "Y7fmOlUlwoNg_20.mp3",
        "7fmOlUlwoNg_20_30.wav",
        "7fmOlUlwoNg_20.000_30.000.WAV",
        "7fmOlUlwoNg_20000_30000.m4a",
        "3.ogg",
    ],
)
def test_names_of_all_usual_downloaders_are_found(raw: Path, output: Path, name: str) -> None:
    write_csv(raw / "test.csv", AUDIOCAPS_HEADER, TEST[0], TEST[2])
    make_sounds(raw, f"sounds/deep/{name}", "old/7fmOlUlwoNg.wav")
    assert run(AUDIOCAPS.name, raw, output, "--splits", "audiocaps_test") == 0
    assert [row[4] for row in rows(output / "audiocaps_test.tsv")] == [f"sounds/deep/{name}"]


def test_missing_sounds_are_counted_or_left_out(
    audiocaps_raw: Path, output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (audiocaps_raw / "train" / "UDGBjjwyaqE.wav").unlink()
    assert run(AUDIOCAPS.name, audiocaps_raw, output, "--splits", "audiocaps_train") == 2
    error = capsys.readouterr().err
    assert "1 of 2 sounds are missing" in error and "train.csv:4" in error
    assert run(AUDIOCAPS.name, audiocaps_raw, output, "--splits", "audiocaps_train", "--on-missing", "skip") == 0
    assert len(rows(output / "audiocaps_train.tsv")) == 1


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        (["1", "../sound", "20", "A cat"], "train.csv:2: '../sound' is no name of a file"),
        (["1", "sound", "soon", "A cat"], "train.csv:2: start_time 'soon' is no number"),
        (["1", "sound"], "train.csv:2 has fewer cells"),
    ],
)
def test_bad_lines_are_named(
    raw: Path, output: Path, line: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    make_sounds(raw.parent, "sound.wav")
    write_csv(raw / "train.csv", AUDIOCAPS_HEADER, line)
    assert run(AUDIOCAPS.name, raw, output, "--splits", "audiocaps_train") == 2
    assert complaint in capsys.readouterr().err


# -------------------------------------------------------------------------------- Clotho

DEVELOPMENT = [
    ["Distorted AM Radio noise.wav", "A radio, badly tuned", "Noise", 'A "wave"', "hiss", "crackle"],
    ["Bäckerei  (früh).wav", "Ovens", "", "A door", " ", "Steps"],
]
EVALUATION = [["Distorted AM Radio noise.wav", "one", "two", "three", "four", "five && six"]]


@pytest.fixture
def clotho_raw(raw: Path) -> Path:
    write_csv(raw / "clotho_captions_development.csv", CLOTHO_HEADER, *DEVELOPMENT)
    write_csv(raw / "clotho_captions_evaluation.csv", CLOTHO_HEADER, *EVALUATION)
    make_sounds(raw, *(f"development/{line[0]}" for line in DEVELOPMENT))
    make_sounds(raw, *(f"clotho_audio_evaluation/evaluation/{line[0]}" for line in EVALUATION))
    return raw


def test_development_has_a_row_for_each_caption(clotho_raw: Path, output: Path) -> None:
    assert run(CLOTHO.name, clotho_raw, output) == 0
    found = rows(output / "clotho_development.tsv")
    assert [row[2] for row in found] == [
        *("A radio, badly tuned", "Noise", 'A "wave"', "hiss", "crackle"),
        *("Ovens", "A door", "Steps"),
    ]
    assert found[-1] == ["Bäckerei (früh)_3", "Bäckerei (früh)", "Steps", "", "development/Bäckerei  (früh).wav"]


def test_a_name_that_several_parts_have_is_that_of_the_own_part(clotho_raw: Path, output: Path) -> None:
    assert run(CLOTHO.name, clotho_raw, output) == 0
    name = "Distorted AM Radio noise"
    path = f"clotho_audio_evaluation/evaluation/{name}.wav"
    assert rows(output / "clotho_evaluation.tsv") == [[name, name, "one&&two&&three&&four&&five & six", "", path]]


def test_version_1_needs_no_validation_files(clotho_raw: Path, output: Path) -> None:
    assert run(CLOTHO.name, clotho_raw, output) == 0
    assert not (output / "clotho_validation.tsv").exists()
    assert run(CLOTHO.name, clotho_raw, output, "--splits", "clotho_validation") == 2


# -------------------------------------------------------------------------------- validation


@pytest.mark.parametrize("builder", [AUDIOCAPS, CLOTHO], ids=lambda builder: builder.name)
def test_rows_are_valid(builder: sounds.Builder, audiocaps_raw: Path, clotho_raw: Path, output: Path) -> None:
    from made_sounds import tone, written

    for path in audiocaps_raw.rglob("*.wav"):
        written(path, tone(seconds=0.1))
    assert run(builder.name, audiocaps_raw, output) == 0
    for path in output.glob("*.tsv"):
        assert main(["data", "validate", str(path), "--task", "audio_caption", "--image-dir", str(audiocaps_raw)]) == 0
