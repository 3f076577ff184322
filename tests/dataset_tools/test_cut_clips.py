"""Clips that are cut out of films: which frames they have, what happens to films that cannot be cut, going on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

av = pytest.importorskip("av")

from build import main as build  # noqa: E402
from cut_clips import FAILURES, main  # noqa: E402
from made_films import read_number, turn, write_film  # noqa: E402

FPS = 10


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Captions about three parts of a film of two seconds, and of one that is not there."""
    times = {"v_a": [[0, 0.5], [1.51, 0.7], [0.7, 1.51], [1.95, 9]], "v_gone": [[0, 1]]}
    films = {
        name: {"duration": 2, "timestamps": parts, "sentences": [f"part {k}" for k in range(len(parts))]}
        for name, parts in times.items()
    }
    (tmp_path / "val_2.json").write_text(json.dumps(films))
    (tmp_path / "films").mkdir()
    write_film(tmp_path / "films" / "v_a.mp4", frames=20, fps=FPS)
    return tmp_path


def shown(path: Path) -> list[tuple[int, int]]:
    """Numbers of the frames, and when they are shown in milliseconds."""
    with av.open(str(path)) as film:
        frames = list(film.decode(video=0))
    return [
        (read_number(frame.to_ndarray(format="rgb24").transpose(2, 0, 1)), round(1000 * float(frame.time)))
        for frame in frames
    ]


def test_a_clip_has_the_frames_that_are_shown_between_its_times(raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--raw", str(raw)]) == 1
    assert shown(raw / "clips" / "v_a_0.00_0.50.mp4") == [(number, 100 * number) for number in range(5)]
    assert shown(raw / "clips" / "v_a_0.70_1.51.mp4") == [(number, 100 * (number - 7)) for number in range(7, 16)]
    assert "2 films: 3 clips written; 1 films failed" in capsys.readouterr().out


def test_a_clip_behind_the_last_frame_has_that_frame(raw: Path) -> None:
    main(["--raw", str(raw)])
    assert shown(raw / "clips" / "v_a_1.95_9.00.mp4") == [(19, 0)]


def test_the_clips_are_those_that_the_rows_name(raw: Path, tmp_path: Path) -> None:
    main(["--raw", str(raw)])
    output = tmp_path / "output"
    flags = ["--splits", "activitynet_caption_val2", "--on-missing", "skip"]
    assert build(["activitynet-captions", "--raw", str(raw), "--output", str(output), *flags]) == 0
    found = [line.split("\t")[4] for line in (output / "activitynet_caption_val2.tsv").read_text().splitlines()]
    cut = {path.relative_to(raw).as_posix() for path in (raw / "clips").glob("*.mp4")}
    assert len(found) == 4 and set(found) == cut


def test_clips_that_are_there_are_left_alone(raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (raw / "clips").mkdir()
    (raw / "clips" / "v_a_0.00_0.50.mp4").write_bytes(b"of an earlier call")
    main(["--raw", str(raw)])
    assert (raw / "clips" / "v_a_0.00_0.50.mp4").read_bytes() == b"of an earlier call"
    assert "2 clips written" in capsys.readouterr().out


def test_films_that_cannot_be_cut_are_listed_and_leave_nothing_behind(raw: Path) -> None:
    film = raw / "films" / "v_a.mp4"
    film.write_bytes(film.read_bytes()[:2000])
    assert main(["--raw", str(raw)]) == 1
    lines = (raw / "clips" / FAILURES).read_text().splitlines()
    assert [line.split("\t")[0] for line in lines] == ["v_a", "v_gone"]
    assert [path.name for path in (raw / "clips").iterdir()] == [FAILURES]


def test_films_that_lie_on_their_side_are_refused(raw: Path) -> None:
    turn(write_film(raw / "upright.mp4", frames=20, fps=FPS), raw / "films" / "v_a.mp4", 1)
    assert main(["--raw", str(raw)]) == 1
    assert "make it upright with compress_videos.py" in (raw / "clips" / FAILURES).read_text()


def test_names_that_would_leave_the_folder_are_refused(raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = (raw / "val_2.json").read_text().replace("v_gone", "../gone")
    (raw / "val_2.json").write_text(content)
    assert main(["--raw", str(raw)]) == 2
    assert "'../gone' is no name of a file" in capsys.readouterr().err


def test_a_folder_without_captions_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        main(["--raw", str(tmp_path)])
