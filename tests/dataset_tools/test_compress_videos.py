"""Making films small: size, rate, names, going on after a stop, and what happens to broken sources."""

from __future__ import annotations

import stat
import sys
from fractions import Fraction
from pathlib import Path

import compress_videos
import numpy as np
import pytest
from compress_videos import FAILURES, Job, Plan, convert_all, ffmpeg_command, find_jobs, main
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "data"))

from made_films import CONTAINERS, draw, numbers, turn, write_film, write_header_only, write_sound

from unival_plugin.data.video import FrameSampling, read_frames
from unival_plugin.data.video_readers import Film

av = pytest.importorskip("av", reason="films need PyAV")


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    folder = tmp_path / "sources"
    folder.mkdir()
    return folder


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    return tmp_path / "outputs"


def run(sources: Path, outputs: Path, *flags: str, tool: str = "pyav") -> int:
    command = ["--input-root", str(sources), "--output-root", str(outputs), "--tool", tool, "--num-workers", "2"]
    return main([*command, *flags])


def failures(outputs: Path) -> dict[str, str]:
    lines = (outputs / FAILURES).read_text().splitlines()
    return dict(line.split("\t") for line in lines)


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def high_film(path: Path, **options: object) -> Path:
    return write_film(path, frames=60, fps=30, picture=lambda number: draw(number, 320, 180), **options)


class TestFilms:
    @pytest.mark.parametrize("ending", CONTAINERS)
    def test_size_and_rate(self, sources: Path, outputs: Path, ending: str) -> None:
        high_film(sources / f"film.{ending}", **CONTAINERS[ending])
        assert run(sources, outputs, "--size", "96") == 0
        with Film(outputs / f"film.{ending}", "out") as film:
            assert (film.index.width, film.index.height) == (170, 96)
            assert film.index.frames == pytest.approx(6, abs=1)
            assert film.index.fps == pytest.approx(3, rel=0.15)
        shown = numbers(read_frames(outputs / f"film.{ending}", FrameSampling(film.index.frames, "middle"), "out"))
        assert shown == sorted(shown) and shown[-1] - shown[0] >= 40

    def test_sideways_films_become_upright(self, sources: Path, outputs: Path, tmp_path: Path) -> None:
        turn(high_film(tmp_path / "lying.mp4"), sources / "film.mp4", 1)
        assert run(sources, outputs, "--size", "96") == 0
        frames = read_frames(outputs / "film.mp4", FrameSampling(3, "middle"), "out")
        assert frames.shape == (3, 3, 170, 96)
        shown = numbers(frames.rot90(1, (2, 3)))
        assert shown == sorted(set(shown))

    @pytest.mark.parametrize(("flags", "tracks"), [([], 0), (["--keep-audio"], 1)])
    def test_sound_is_dropped_unless_kept(self, sources: Path, outputs: Path, flags: list[str], tracks: int) -> None:
        high_film(sources / "film.mp4", sound=True)
        assert run(sources, outputs, *flags) == 0
        with av.open(str(outputs / "film.mp4")) as film:
            assert (len(film.streams.video), len(film.streams.audio)) == (1, tracks)

    def test_keeping_sound_of_a_silent_film(self, sources: Path, outputs: Path) -> None:
        high_film(sources / "film.mp4")
        assert run(sources, outputs, "--keep-audio") == 0

    def test_another_format(self, sources: Path, outputs: Path) -> None:
        high_film(sources / "my.film.avi", codec="mpeg4")
        assert run(sources, outputs, "--format", "mp4") == 0
        assert files(outputs) == ["my.film.mp4"]

    def test_only_sound(self, sources: Path, outputs: Path) -> None:
        high_film(sources / "film.mp4", sound=True)
        assert run(sources, outputs, "--only_audio") == 0
        with av.open(str(outputs / "film.wav")) as sound:
            assert sound.streams.audio[0].rate == 16000 and not sound.streams.video


class TestSoundsAndPictures:
    @pytest.mark.parametrize("ending", ["wav", "flac", "mp3", "ogg"])
    def test_sounds_become_mono_at_the_rate(self, sources: Path, outputs: Path, ending: str) -> None:
        write_sound(sources / "sound.mp4")
        (sources / "sound.mp4").rename(sources / "sound.m4a")
        assert run(sources, outputs, "--file_type", "audio", "--format", ending, "--sample_rate", "24000") == 0
        with av.open(str(outputs / f"sound.{ending}")) as sound:
            track = sound.streams.audio[0]
            assert (track.rate, track.layout.nb_channels) == (24000, 1)
            samples = sum(frame.samples for frame in sound.decode(track))
        assert samples == pytest.approx(24000, abs=3000)

    def test_pictures(self, sources: Path, outputs: Path) -> None:
        Image.fromarray(np.zeros((40, 100, 3), np.uint8)).save(sources / "picture.png")
        assert run(sources, outputs, "--file-type", "image", "--size", "20") == 0
        with Image.open(outputs / "picture.png") as image:
            assert image.size == (50, 20)


class TestCommand:
    def test_a_second_run_goes_on(self, sources: Path, outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
        high_film(sources / "a.mp4")
        assert run(sources, outputs) == 0
        before = (outputs / "a.mp4").stat().st_mtime_ns
        high_film(sources / "b.mp4")
        (outputs / "b.mp4").touch()
        assert run(sources, outputs) == 0
        assert (outputs / "a.mp4").stat().st_mtime_ns == before
        assert "2 files: 1 written, 1 there already, 0 failed" in capsys.readouterr().out

    def test_a_list_names_the_files(self, sources: Path, outputs: Path, tmp_path: Path) -> None:
        (sources / "deep").mkdir()
        high_film(sources / "deep" / "a.mp4")
        high_film(sources / "b.mp4")
        names = tmp_path / "names.txt"
        names.write_text("./deep/a.mp4\n\ndeep/a.mp4\n")
        assert run(sources, outputs, "--input_file_list_path", str(names)) == 1
        assert failures(outputs) == {"deep/a.mp4": "would be written to the same file as ./deep/a.mp4"}
        assert files(outputs) == [FAILURES, "deep/a.mp4"]

    def test_broken_sources_are_listed_and_not_copied(
        self, sources: Path, outputs: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        high_film(sources / "good.mp4")
        (sources / "text.mp4").write_text("no film\n" * 50)
        (sources / "empty.mp4").touch()
        write_sound(sources / "sound.mp4")
        write_header_only(sources / "none.mp4")
        data = high_film(sources / "cut.mp4", container_options={"movflags": "faststart"}).read_bytes()
        (sources / "cut.mp4").write_bytes(data[: len(data) // 2])
        capfd.readouterr()
        assert run(sources, outputs) == 1
        assert files(outputs) == [FAILURES, "good.mp4"]
        reasons = failures(outputs)
        assert sorted(reasons) == ["cut.mp4", "empty.mp4", "none.mp4", "sound.mp4", "text.mp4"]
        assert "only sound" in reasons["sound.mp4"] and "cut off" in reasons["cut.mp4"]
        shown = capfd.readouterr()
        assert "6 files: 1 written, 0 there already, 5 failed" in shown.out and FAILURES in shown.out
        assert shown.err == ""

    def test_the_list_of_failures_vanishes_with_them(self, sources: Path, outputs: Path) -> None:
        (sources / "film.mp4").touch()
        assert run(sources, outputs) == 1
        high_film(sources / "film.mp4")
        assert run(sources, outputs) == 0
        assert files(outputs) == ["film.mp4"]

    @pytest.mark.parametrize(
        "flags",
        [["--size", "0"], ["--size", "97"], ["--fps", "0"],
            ["--fps", "1/0"], ["--num-workers", "0"], ["--format", "../x"],
         ["--keep-audio", "--file-type", "audio"]],
    )  # fmt: skip
    def test_meaningless_flags(self, sources: Path, outputs: Path, flags: list[str]) -> None:
        with pytest.raises(SystemExit) as stopped:
            run(sources, outputs, *flags)
        assert stopped.value.code == 2

    def test_the_input_folder_is_never_the_output_folder(self, sources: Path) -> None:
        with pytest.raises(SystemExit):
            run(sources, sources)

    def test_outputs_inside_the_input_folder_are_no_sources(self, sources: Path) -> None:
        high_film(sources / "film.mp4")
        assert run(sources, sources / "small") == 0
        assert run(sources, sources / "small") == 0
        assert files(sources) == ["film.mp4", "small/film.mp4"]

    def test_a_missing_input_folder(self, tmp_path: Path, outputs: Path) -> None:
        with pytest.raises(SystemExit):
            run(tmp_path / "none", outputs)

    def test_names_that_are_no_text_are_listed_too(self, sources: Path, outputs: Path, tmp_path: Path) -> None:
        names = tmp_path / "names.txt"
        names.write_bytes(b"caf\xe9.mp4\n")
        assert run(sources, outputs, "--input-file-list-path", str(names)) == 1
        assert (outputs / FAILURES).read_bytes() == b"caf\xe9.mp4\tis no file\n"

    def test_a_missing_list(self, sources: Path, outputs: Path, tmp_path: Path) -> None:
        assert run(sources, outputs, "--input-file-list-path", str(tmp_path / "none.txt")) == 2


class TestNames:
    @pytest.mark.parametrize("name", ["../a.mp4", "/etc/passwd", "a/../../b.mp4", "."])
    def test_names_outside_are_refused(self, tmp_path: Path, name: str) -> None:
        jobs, refused = find_jobs([name], tmp_path / "in", tmp_path / "out", None)
        assert (jobs, refused) == ([], [(name, "is no path below the input folder")])

    def test_two_sources_never_share_an_output(self, tmp_path: Path) -> None:
        jobs, refused = find_jobs(["a.avi", "a.mkv"], tmp_path / "in", tmp_path / "out", "mp4")
        assert [job.name for job in jobs] == ["a.avi"]
        assert refused == [("a.mkv", "would be written to the same file as a.avi")]

    @pytest.mark.parametrize("name", ["-i.mp4", "-y", "http:x.mp4", "concat:a|b.mp4", "a%03d.png"])
    def test_names_are_no_options_and_no_addresses(self, tmp_path: Path, name: str) -> None:
        command = ffmpeg_command("ffmpeg", tmp_path / name, tmp_path / "out" / name, Plan())
        assert command[command.index("-i") + 1] == f"file:{tmp_path / name}"
        assert command[-1] == f"file:{tmp_path / 'out' / name}"
        assert command[command.index("-protocol_whitelist") + 1] == "file"


STAND_IN = """#!{python}
import json, pathlib, sys
output = pathlib.Path(sys.argv[-1].removeprefix("file:"))
source = pathlib.Path(sys.argv[sys.argv.index("-i") + 1].removeprefix("file:"))
if "broken" in source.name:
    output.write_bytes(b"half")
    print("noise\\nInvalid data found", file=sys.stderr)
    sys.exit(187)
if "slow" in source.name:
    import time; time.sleep(60)
if "void" not in source.name:
    output.write_text(json.dumps(sys.argv))
"""


@pytest.fixture
def ffmpeg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program in ffmpeg's place that writes its arguments into the output."""
    program = tmp_path / "bin" / "ffmpeg"
    program.parent.mkdir()
    program.write_text(STAND_IN.format(python=sys.executable))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(program.parent))
    return program


class TestFfmpeg:
    def test_it_is_used_where_it_is_installed(self, ffmpeg: Path, sources: Path, outputs: Path) -> None:
        write_film(sources / "film.mp4")
        assert run(sources, outputs, "--size", "96", "--fps", "5", tool="auto") == 0
        said = (outputs / "film.mp4").read_text()
        assert "fps=5,scale=w='if(gt(iw,ih),2*trunc(96*iw/ih/2),96)'" in said and '"-an"' in said

    @pytest.mark.parametrize(
        ("flags", "parts"),
        [
            (["--keep-audio"], ["-map", "0:a:0?"]),
            (["--only-audio"], ["-map", "0:a:0"]),
            (["--file-type", "audio", "--sample-rate", "16000"], ["-ar", "16000", "-ac", "1"]),
        ],
    )
    def test_kinds_of_output(
        self, ffmpeg: Path, sources: Path, outputs: Path, flags: list[str], parts: list[str]
    ) -> None:
        write_film(sources / "a.mp4", sound=True)
        if "audio" in flags:
            (sources / "a.mp4").rename(sources / "a.m4a")
        assert run(sources, outputs, *flags, tool="ffmpeg") == 0
        (output,) = outputs.iterdir()
        assert ", ".join(f'"{part}"' for part in parts) in output.read_text()

    def test_its_failures_leave_nothing_behind(self, ffmpeg: Path, sources: Path, outputs: Path) -> None:
        write_film(sources / "broken.mp4")
        write_film(sources / "void.mp4")
        assert run(sources, outputs, tool="auto") == 1
        assert failures(outputs) == {
            "broken.mp4": "ffmpeg: Invalid data found",
            "void.mp4": "nothing could be converted",
        }
        assert files(outputs) == [FAILURES]

    def test_it_may_not_take_for_ever(self, ffmpeg: Path, sources: Path, outputs: Path) -> None:
        write_film(sources / "slow.mp4")
        assert run(sources, outputs, "--timeout", "0.5", tool="auto") == 1
        assert failures(outputs) == {"slow.mp4": "took more than 0.5 s"}

    def test_it_gets_no_film_that_was_cut_off(self, ffmpeg: Path, sources: Path, outputs: Path) -> None:
        data = write_film(sources / "film.mp4", container_options={"movflags": "faststart"}).read_bytes()
        (sources / "film.mp4").write_bytes(data[: len(data) // 2])
        assert run(sources, outputs, tool="auto") == 1
        assert "cut off" in failures(outputs)["film.mp4"]

    def test_asked_for_but_missing(
        self, sources: Path, outputs: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(SystemExit):
            run(sources, outputs, tool="ffmpeg")


def test_stopped_in_the_middle_leaves_no_output(sources: Path, outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(source: Path, scratch: Path, plan: Plan) -> None:
        scratch.write_bytes(b"half a film")
        raise KeyboardInterrupt

    monkeypatch.setattr(compress_videos, "_convert_to", stopped)
    high_film(sources / "film.mp4")
    with pytest.raises(KeyboardInterrupt):
        convert_all([Job("film.mp4", sources / "film.mp4", outputs / "film.mp4")], Plan(fps=Fraction(3)), 1)
    assert files(outputs) == []


def test_help_says_what_it_does(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "--input-file-list-path" in capsys.readouterr().out
