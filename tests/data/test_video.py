"""Films from strangers, the choice of frames, and the transforms."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from made_films import (
    CONTAINERS,
    HEIGHT,
    WIDTH,
    draw,
    numbers,
    turn,
    write_film,
    write_header_only,
    write_sound,
)

from unival_plugin.data.video import (
    DEFAULT_VIDEO_LIMITS,
    FilmEvalTransform,
    FilmTrainTransform,
    FrameSampling,
    VideoLimits,
    frame_indices,
    read_frames,
)
from unival_plugin.data.video_decord import load_decord
from unival_plugin.errors import ConfigError, DataError

pytest.importorskip("av", reason="films need PyAV")

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "unival_tasks" / "frames.json").read_text())
EIGHT = FrameSampling(8, "middle")
MIDDLES = [2, 7, 12, 17, 22, 27, 32, 37]
"""Of 40 frames."""

needs_decord = pytest.mark.skipif(load_decord() is None, reason="needs decord")
both_readers = pytest.mark.parametrize("reader", ["pyav", pytest.param("decord", marks=needs_decord)])


UNUSUAL: dict[str, dict] = {
    "av1.mp4": {"codec": "libsvtav1", "options": {"preset": "12", "svtav1-params": "lp=1"}},
    "h265.mp4": {"codec": "libx265", "options": {"x265-params": "log-level=none:bframes=4"}},
    "b_frames.mp4": {"options": {"bf": "3", "b_strategy": "0"}, "gop": 250},
    "open_gop.mkv": {"options": {"bf": "3", "x264-params": "open-gop=1"}, "gop": 8},
    "b_frames.avi": {"options": {"bf": "2"}},
    "vp8.webm": {"codec": "libvpx", "options": {"auto-alt-ref": "1", "lag-in-frames": "10", "cpu-used": "5"}},
    "fragments.mp4": {"container_options": {"movflags": "frag_keyframe+empty_moov"}},
    "stream.mpg": {"codec": "mpeg2video", "options": {"bf": "2"}},
    "stream.ts": {},
    "stream.flv": {"codec": "flv"},
}
"""Options of films that are unlike the usual ones."""


class PythonDraws:
    """Draws as UnIVAL does: from Python's generator, permutations from numpy's old one."""

    def __init__(self, seed: int) -> None:
        self.python = random.Random(seed)
        self.numpy = np.random.RandomState(seed)

    def integers(self, low: int, high: int) -> int:
        return self.python.choice(range(low, high))

    def permutation(self, x: int) -> np.ndarray:
        return self.numpy.permutation(x)


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Makes a film once for all tests that ask for the same one."""
    folder = tmp_path_factory.mktemp("films")
    made: dict[str, Path] = {}

    def make(name: str, **options: object) -> Path:
        if name not in made:
            usual = CONTAINERS.get(name.rpartition(".")[2], {})
            made[name] = write_film(folder / name, **{**usual, **options})
        return made[name]

    return make


class TestFrameIndices:
    @pytest.mark.parametrize("case", GOLDEN, ids=str)
    def test_equal_to_the_original(self, case: dict) -> None:
        sampling = FrameSampling(
            case["num_frames"], case["sample"], case.get("max_num_frames", -1), case.get("fix_start")
        )
        seed = case.get("seed_python_random_and_numpy")
        rng = None if seed is None else PythonDraws(seed)
        assert frame_indices(case["vlen"], sampling, case.get("input_fps", 25), rng) == case["indices"]

    def test_without_a_generator_random_becomes_middle(self) -> None:
        assert frame_indices(40, FrameSampling(8, "rand"), 25) == MIDDLES

    @given(st.integers(1, 500), st.integers(1, 40), st.integers(0, 9))
    def test_random_frames_ascend_and_their_number_is_right(self, length: int, count: int, seed: int) -> None:
        chosen = frame_indices(length, FrameSampling(count, "rand"), 25, np.random.default_rng(seed))
        assert len(chosen) == count
        assert chosen == sorted(chosen) and chosen[0] >= 0 and chosen[-1] < length
        assert all(isinstance(number, int) for number in chosen)

    @given(st.integers(1, 500), st.floats(0.1, 120), st.sampled_from(["fps0.1", "fps1", "fps3"]))
    def test_a_rate_always_gives_frames_of_the_film(self, length: int, fps: float, method: str) -> None:
        chosen = frame_indices(length, FrameSampling(1, method), fps)
        assert chosen and chosen == sorted(chosen) and chosen[0] >= 0 and chosen[-1] < length

    def test_a_fixed_start_stays_in_the_film(self) -> None:
        assert frame_indices(4, FrameSampling(4, "middle", fix_start=3), 25) == [3, 3, 3, 3]

    @pytest.mark.parametrize(
        "method", ["", "random", "fps", "fps0", "fps-1", "fpsx", "fpsnan", "fpsinf", "fps1e9", "headtail"]
    )
    def test_unknown_ways_are_refused(self, method: str) -> None:
        with pytest.raises(ConfigError, match="use rand, middle or fpsX"):
            FrameSampling(4, method)

    @pytest.mark.parametrize(
        "values", [{"num_frames": 0}, {"max_num_frames": 0}, {"fix_start": 1}, {"method": "middle", "fix_start": -1}]
    )
    def test_meaningless_numbers_are_refused(self, values: dict) -> None:
        with pytest.raises(ConfigError, match="use|goes with"):
            FrameSampling(**values)


class TestReading:
    @pytest.mark.parametrize("ending", CONTAINERS)
    def test_containers(self, films: Callable[..., Path], ending: str) -> None:
        frames = read_frames(films(f"film.{ending}"), EIGHT, "row")
        assert frames.dtype == torch.uint8 and frames.shape == (8, 3, HEIGHT, WIDTH) and frames.is_contiguous()
        assert numbers(frames) == MIDDLES

    @pytest.mark.parametrize("name", UNUSUAL)
    def test_codecs_and_streams(self, films: Callable[..., Path], name: str) -> None:
        path = films(name, **UNUSUAL[name])
        assert numbers(read_frames(path, EIGHT, "row")) == MIDDLES
        every = FrameSampling(40, "middle")
        assert numbers(read_frames(path, every, "row", reader="pyav")) == list(range(40))

    @both_readers
    @pytest.mark.parametrize("ending", ["mp4", "mkv", "webm"])
    def test_variable_frame_rate(self, films: Callable[..., Path], ending: str, reader: str) -> None:
        times = np.cumsum(np.resize([40, 40, 170, 10, 350], 40)).tolist()
        path = films(f"variable.{ending}", times=times)
        assert numbers(read_frames(path, EIGHT, "row", reader=reader)) == MIDDLES

    @needs_decord
    @pytest.mark.parametrize("name", ["film.mp4", "film.avi", "film.mkv", "film.webm", "b_frames.mp4"])
    @settings(max_examples=20, deadline=None)
    @given(seed=st.integers(0, 1000))
    def test_both_readers_give_the_same_frames(self, films: Callable[..., Path], name: str, seed: int) -> None:
        sampling = FrameSampling(6, "rand")
        path = films(name, **UNUSUAL.get(name, {}))
        ours, other = (
            read_frames(path, sampling, "row", np.random.default_rng(seed), reader=reader)
            for reader in ("pyav", "decord")
        )
        assert numbers(ours) == numbers(other)
        assert (ours.int() - other.int()).abs().float().mean() < 0.5

    @both_readers
    def test_frames_do_not_depend_on_how_they_are_reached(self, films: Callable[..., Path], reader: str) -> None:
        path = films("film.mp4")
        all_frames = read_frames(path, FrameSampling(40, "middle"), "row", reader=reader)
        assert torch.equal(read_frames(path, EIGHT, "row", reader=reader), all_frames[MIDDLES])

    @both_readers
    @pytest.mark.parametrize("quarters", [1, 2, 3])
    def test_sideways_films_are_turned(
        self, films: Callable[..., Path], tmp_path: Path, reader: str, quarters: int
    ) -> None:
        path = turn(films("film.mp4"), tmp_path / "turned.mp4", quarters)
        upright = read_frames(films("film.mp4"), EIGHT, "row", reader=reader)
        assert torch.equal(read_frames(path, EIGHT, "row", reader=reader), upright.rot90(-quarters, (2, 3)))

    @both_readers
    def test_short_films_repeat_the_last_frame(self, films: Callable[..., Path], reader: str) -> None:
        path = films("short.mp4", frames=3)
        assert numbers(read_frames(path, FrameSampling(5, "middle"), "row", reader=reader)) == [0, 1, 2, 2, 2]

    def test_a_rate_takes_the_films_time_into_account(self, films: Callable[..., Path]) -> None:
        path = films("slow.mp4", fps=10)
        assert numbers(read_frames(path, FrameSampling(1, "fps1"), "row")) == [5, 15, 25, 35]

    def test_sound_beside_the_picture_does_no_harm(self, films: Callable[..., Path]) -> None:
        assert numbers(read_frames(films("loud.mp4", sound=True), EIGHT, "row")) == MIDDLES

    @pytest.mark.parametrize("name", ["av1.mp4", "h265.mp4", "open_gop.mkv", "stream.ts", "film.gif"])
    @needs_decord
    def test_decord_refuses_what_it_mistakes(self, films: Callable[..., Path], name: str) -> None:
        with pytest.raises(DataError, match="use reader pyav"):
            read_frames(films(name, **UNUSUAL.get(name, {})), EIGHT, "row", reader="decord")

    def test_decord_is_optional(self, films: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "decord", None)
        load_decord.cache_clear()
        try:
            assert numbers(read_frames(films("film.mp4"), EIGHT, "row")) == MIDDLES
            with pytest.raises(ConfigError, match=r"decord is missing: pip install"):
                read_frames(films("film.mp4"), EIGHT, "row", reader="decord")
        finally:
            load_decord.cache_clear()

    def test_unknown_reader(self, films: Callable[..., Path]) -> None:
        with pytest.raises(ConfigError, match="use auto, pyav, decord"):
            read_frames(films("film.mp4"), EIGHT, "row", reader="opencv")

    def test_missing_pyav_says_what_to_install(
        self, films: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "av", None)
        with pytest.raises(ConfigError, match=r"row: films need PyAV: pip install 'unival-plugin\[video\]'"):
            read_frames(films("film.mp4"), EIGHT, "row")

    def test_old_pyav_is_refused(self, films: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
        path = films("film.mp4")
        monkeypatch.setattr("av.__version__", "17.1.0")
        with pytest.raises(ConfigError, match=r"row: films need PyAV 18, not 17.1.0: pip install"):
            read_frames(path, EIGHT, "row")


def refused(path: Path, limits: VideoLimits = DEFAULT_VIDEO_LIMITS) -> str:
    with pytest.raises(DataError) as caught:
        read_frames(path, EIGHT, "train.tsv:row 3, column 4", limits=limits)
    message = str(caught.value)
    assert message.startswith(f"train.tsv:row 3, column 4: {path} ") and "\n" not in message
    return message


class TestBadFilms:
    @pytest.fixture(autouse=True)
    def nothing_on_the_terminal(self, capfd: pytest.CaptureFixture[str]):
        yield
        shown = capfd.readouterr()
        assert (shown.out, shown.err) == ("", "")

    def test_missing(self, tmp_path: Path) -> None:
        assert "correct the path" in refused(tmp_path / "none.mp4")

    def test_folder(self, tmp_path: Path) -> None:
        assert "is no file" in refused(tmp_path)

    def test_empty(self, tmp_path: Path) -> None:
        path = tmp_path / "empty.mp4"
        path.touch()
        assert "is empty" in refused(path)

    @pytest.mark.parametrize("text", ["a man walks his dog\n" * 100, "1\n00:00:01,000 --> 00:00:02,000\nHello\n"])
    def test_text(self, tmp_path: Path, text: str) -> None:
        path = tmp_path / "text.mp4"
        path.write_text(text)
        assert "is no film or damaged" in refused(path)

    @pytest.mark.parametrize("kind", ["hls", "concat"])
    def test_play_lists_do_not_lead_to_other_files(self, films: Callable[..., Path], tmp_path: Path, kind: str) -> None:
        path = tmp_path / "list.mp4"
        other = films("stream.ts")
        path.write_text(
            f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{other}\n#EXT-X-ENDLIST\n"
            if kind == "hls"
            else f"ffconcat version 1.0\nfile '{other}'\n"
        )
        assert "is no film or damaged" in refused(path)

    def test_no_frames(self, tmp_path: Path) -> None:
        assert "row" in refused(write_header_only(tmp_path / "none.mp4"))

    def test_only_sound(self, tmp_path: Path) -> None:
        assert "only sound" in refused(write_sound(tmp_path / "sound.mp4"))

    @pytest.mark.parametrize("share", [0.3, 0.7])
    @pytest.mark.parametrize("name", ["film.mp4", "fast.mp4", "film.avi", "film.mkv", "film.webm"])
    def test_cut_off(self, films: Callable[..., Path], tmp_path: Path, name: str, share: float) -> None:
        fast = {"container_options": {"movflags": "faststart"}} if name == "fast.mp4" else {}
        data = films(name, **fast).read_bytes()
        path = tmp_path / name
        path.write_bytes(data[: int(len(data) * share)])
        message = refused(path)
        assert "is no film or damaged" in message or "has no frame" in message

    @pytest.mark.parametrize("name", ["film.webm", "film.mkv", "film.gif", "stream.ts", "fragments.mp4"])
    def test_what_is_left_of_streams_is_read_or_refused(
        self, films: Callable[..., Path], tmp_path: Path, name: str
    ) -> None:
        data = films(name, **UNUSUAL.get(name, {})).read_bytes()
        path = tmp_path / name
        for share in (0.05, 0.3, 0.6, 0.9):
            path.write_bytes(data[: int(len(data) * share)])
            try:
                frames = read_frames(path, EIGHT, "row")
            except DataError as error:
                assert "is no film or damaged" in str(error) or "has no frame" in str(error)
            else:
                assert numbers(frames) == sorted(numbers(frames))

    def test_damaged_inside(self, films: Callable[..., Path], tmp_path: Path) -> None:
        data = bytearray(films("film.mp4").read_bytes())
        start = data.index(b"mdat") + 4
        size = int.from_bytes(data[start - 8 : start - 4], "big") - 8
        data[start : start + size] = np.random.default_rng(1).integers(0, 256, size, dtype=np.uint8).tobytes()
        path = tmp_path / "noise.mp4"
        path.write_bytes(data)
        assert "is no film or damaged" in refused(path)

    @pytest.mark.parametrize(("lost", "left"), [(2, 38), (20, 0)])
    def test_frames_that_cannot_be_decoded(
        self, films: Callable[..., Path], tmp_path: Path, lost: int, left: int
    ) -> None:
        import av

        path = films("plain.mp4", gop=1)
        with av.open(str(path)) as film:
            packets = [(packet.pos, packet.size) for packet in film.demux(video=0) if packet.size]
        data = bytearray(path.read_bytes())
        for place, size in packets[len(packets) - lost :]:
            data[place : place + size] = bytes(size)
        broken = tmp_path / "broken.mp4"
        broken.write_bytes(data)
        if left:
            assert numbers(read_frames(broken, FrameSampling(left, "middle"), "row")) == list(range(left))
            assert numbers(read_frames(broken, FrameSampling(2, "middle"), "row")) == [9, 29]
            assert numbers(read_frames(broken, FrameSampling(40, "middle"), "row"))[-3:] == [37, 37, 37]
        else:
            assert "only 20 of 40 frames can be decoded" in refused(broken)

    def test_three_hours(self, films: Callable[..., Path]) -> None:
        message = refused(films("long.mp4", frames=13, fps=Fraction(1, 900), gop=4))
        assert "lasts 3:15:00, allowed are 2:00:00: cut it" in message

    def test_long_stream_without_a_stated_length(self, films: Callable[..., Path]) -> None:
        path = films("long.mp4", frames=13, fps=Fraction(1, 900), gop=4).with_name("fragments_long.mp4")
        options = {"movflags": "frag_keyframe+empty_moov"}
        write_film(path, frames=13, fps=Fraction(1, 900), gop=4, container_options=options)
        assert "allowed are 2:00:00" in refused(path)

    def test_too_many_bytes(self, films: Callable[..., Path]) -> None:
        assert "allowed are 100: shrink" in refused(films("film.mp4"), VideoLimits(max_bytes=100))

    def test_too_many_pixels(self, films: Callable[..., Path]) -> None:
        message = refused(films("film.mp4"), VideoLimits(max_pixels=WIDTH * HEIGHT - 1))
        assert f"frames of {WIDTH} x {HEIGHT} pixels" in message

    def test_a_gif_that_claims_to_be_huge(self, films: Callable[..., Path], tmp_path: Path) -> None:
        data = bytearray(films("film.gif").read_bytes())
        data[6:10] = b"\xff\xff\xff\xff"
        path = tmp_path / "huge.gif"
        path.write_bytes(data)
        assert "is no film or damaged" in refused(path)

    def test_too_many_frames(self, films: Callable[..., Path]) -> None:
        assert "more than the allowed 39 frames" in refused(films("film.mp4"), VideoLimits(max_frames=39))

    def test_too_much_to_decode(self, films: Callable[..., Path]) -> None:
        path = films("one_key.mp4", gop=250)
        limits = VideoLimits(max_decoded_pixels=20 * WIDTH * HEIGHT)
        assert "needs more than 20 frames decoded" in refused(path, limits)

    def test_too_much_memory(self, films: Callable[..., Path]) -> None:
        limits = VideoLimits(max_result_bytes=8 * 3 * WIDTH * HEIGHT - 1)
        assert "take fewer or shrink" in refused(films("film.mp4"), limits)


def clip(height: int = 40, width: int = 60, count: int = 3) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8, generator=torch.manual_seed(3))


class TestTransforms:
    @pytest.mark.parametrize(("height", "width"), [(40, 60), (33, 47), (20, 60), (21, 13), (32, 32)])
    def test_evaluation_equals_torchvision(self, height: int, width: int) -> None:
        from torchvision import transforms

        frames = clip(height, width)
        reference = transforms.Compose(
            [
                transforms.CenterCrop(32),
                transforms.Lambda(lambda x: x.float().div(255.0)),
                transforms.Normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
            ]
        )
        out = FilmEvalTransform(32)(frames)
        assert out.dtype == torch.float32 and out.is_contiguous()
        assert torch.equal(out, reference(frames).permute(1, 0, 2, 3))

    def test_what_is_missing_is_black(self) -> None:
        out = FilmEvalTransform(64)(clip(32, 32))
        assert out.shape == (3, 3, 64, 64) and (out[:, :, :16] == -1).all()

    def test_frames_given_are_not_changed(self) -> None:
        frames = clip()
        FilmEvalTransform(32)(frames)
        FilmTrainTransform(32)(frames, np.random.default_rng(1))
        assert torch.equal(frames, clip())

    def test_training_equals_torchvision_with_the_same_seed(self) -> None:
        from torchvision import transforms

        frames, rng = clip(), np.random.default_rng(5)
        reference = transforms.Compose(
            [
                transforms.RandAugment(),
                transforms.RandomResizedCrop(32, scale=(0.5, 1.0), interpolation=transforms.InterpolationMode.BICUBIC),
                transforms.RandomHorizontalFlip(),
                transforms.Lambda(lambda x: x.float().div(255.0)),
                transforms.Normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
            ]
        )
        out = FilmTrainTransform(32)(frames, rng)
        torch.manual_seed(int(np.random.default_rng(5).integers(2**63)))
        assert torch.equal(out, reference(frames).permute(1, 0, 2, 3))

    def test_all_randomness_comes_from_the_generator(self) -> None:
        transform, frames = FilmTrainTransform(32), clip()
        torch.manual_seed(1)
        first = transform(frames, np.random.default_rng(9))
        torch.manual_seed(2)
        state = torch.get_rng_state()
        assert torch.equal(first, transform(frames, np.random.default_rng(9)))
        assert torch.equal(state, torch.get_rng_state())
        rng = np.random.default_rng(9)
        assert not torch.equal(transform(frames, rng), transform(frames, rng))

    def test_all_frames_are_treated_alike(self) -> None:
        frames = clip(count=1).expand(4, -1, -1, -1)
        out = FilmTrainTransform(32)(frames, np.random.default_rng(2))
        assert (out == out[:, :1]).all()
        assert not torch.equal(out, FilmEvalTransform(32)(frames))


def test_made_films_show_their_numbers() -> None:
    for number in (0, 1, 5, 511, 1023):
        assert numbers(torch.from_numpy(draw(number)).permute(2, 0, 1)[None]) == [number]
