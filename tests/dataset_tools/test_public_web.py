"""Rows of pretraining out of what img2dataset makes of lists of pictures, and out of WebVid's lists of films."""

from __future__ import annotations

import base64
import csv
import io
import json
import os
import random
import tarfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
from build import main as build
from PIL import Image
from public import web
from public.web import CC3M, CC12M, SBU, WEBVID
from raw_pictures import picture

from unival_cli.main import main
from unival_plugin.data.pretraining import COLUMNS

Members = list[tuple[str, bytes]]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    folder = tmp_path_factory.mktemp("pictures")
    return [picture(folder / f"{number}.jpg", seed=number) for number in range(6)]


def run(name: str, raw: Path, output: Path, *flags: str) -> int:
    return build([name, "--raw", str(raw), "--output", str(output), *flags])


def rows(path: Path) -> list[dict[str, str]]:
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    return [dict(zip(COLUMNS, line.split("\t"), strict=True)) for line in lines]


def sample(key: str, caption: Any, content: bytes, **facts: Any) -> Members:
    """The files of a picture, as img2dataset writes them."""
    meta = {"caption": caption, "url": "http://a.b/c.jpg", "key": key, "status": "success", "error_message": None}
    meta |= {"width": 8, "height": 6, "exif": "{}", "sha256": "0"} | facts
    text = caption.encode() if isinstance(caption, str) else b""
    return [(f"{key}.jpg", content), (f"{key}.json", json.dumps(meta, indent=4).encode()), (f"{key}.txt", text)]


def write_tar(path: Path, members: Iterable[tuple[str, bytes]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def write_folder(path: Path, members: Iterable[tuple[str, bytes]]) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    for name, content in members:
        (path / name).write_bytes(content)
    return path


@pytest.fixture
def samples(pictures: list[bytes]) -> list[Members]:
    """Two shards."""
    first = [*sample("000000000", "a cat", pictures[0]), *sample("000000001", "ein\tKäfer\nläuft ", pictures[1])]
    return [first, sample("000010004", '<PERSON> & a "dog"', pictures[2])]


CAPTIONS = ["a cat", "ein Käfer läuft", '<PERSON> & a "dog"']

# -------------------------------------------------------------------------------- pictures


def test_pictures_in_tar_files_become_rows_without_being_unpacked(
    raw: Path, output: Path, samples: list[Members], pictures: list[bytes]
) -> None:
    for number, members in enumerate(samples):
        write_tar(raw / "pictures" / f"{number:05d}.tar", members)
        (raw / "pictures" / f"{number:05d}_stats.json").write_text("{}")
        (raw / "pictures" / f"{number:05d}.parquet").write_bytes(b"PAR1")
    assert run(CC12M.name, raw, output) == 0
    found = rows(output / "cc12m.tsv")
    assert [row["id"] for row in found] == ["00000/000000000", "00000/000000001", "00001/000010004"]
    assert [row["caption"] for row in found] == CAPTIONS
    assert [base64.b64decode(row["medium"]) for row in found] == pictures[:3]
    assert {(row["question"], row["refs"], row["objects"], row["dataset"], row["type"]) for row in found} == {
        ("", "", "", "cc12m", "caption")
    }


@pytest.mark.parametrize("builder", [CC3M, SBU], ids=lambda builder: builder.name)
def test_folders_give_the_same_rows_as_tar_files(
    builder: web.Builder, raw: Path, output: Path, samples: list[Members], tmp_path: Path
) -> None:
    place = builder.splits[0].files[0]
    for number, members in enumerate(samples):
        write_tar(raw / place / f"{number:05d}.tar", members)
        write_folder(tmp_path / "folders" / place / f"{number:05d}", members)
    assert run(builder.name, raw, output) == 0
    assert run(builder.name, tmp_path / "folders", tmp_path / "other", "--workers", "3") == 0
    name = builder.splits[0].output
    assert (output / name).read_bytes() == (tmp_path / "other" / name).read_bytes()


def test_folders_may_be_named_by_paths_and_tar_files_may_not(
    raw: Path, output: Path, samples: list[Members], capsys: pytest.CaptureFixture[str]
) -> None:
    write_folder(raw / "pictures" / "00000", samples[0])
    assert run(SBU.name, raw, output, "--paths") == 0
    assert [row["medium"] for row in rows(output / "sbu.tsv")] == [
        "pictures/00000/000000000.jpg",
        "pictures/00000/000000001.jpg",
    ]
    write_tar(raw / "pictures" / "00001.tar", samples[1])
    assert run(SBU.name, raw, output, "--paths", "--overwrite") == 2
    assert "is inside" in capsys.readouterr().err


def test_members_of_a_tar_file_may_have_any_order(raw: Path, output: Path, pictures: list[bytes]) -> None:
    members = [
        member for number in range(6) for member in sample(f"00000000{number}", f"is {number}", pictures[number])
    ]
    random.Random(3).shuffle(members)
    write_tar(raw / "pictures" / "00000.tar", members)
    assert run(SBU.name, raw, output) == 0
    found = {row["id"]: (row["caption"], base64.b64decode(row["medium"])) for row in rows(output / "sbu.tsv")}
    assert found == {f"00000/00000000{number}": (f"is {number}", pictures[number]) for number in range(6)}


def test_keys_of_several_shards_may_be_the_same(raw: Path, output: Path, pictures: list[bytes]) -> None:
    for place in ("first/00000.tar", "second/00000.tar", "second/00001.tar"):
        write_tar(raw / "pictures" / place, sample("000000000", place, pictures[0]))
    write_folder(raw / "pictures" / "third" / "00000", sample("000000000", "folder", pictures[0]))
    assert run(SBU.name, raw, output) == 0
    assert [row["id"] for row in rows(output / "sbu.tsv")] == [
        "first/00000/000000000",
        "second/00000/000000000",
        "second/00001/000000000",
        "third/00000/000000000",
    ]


@pytest.mark.parametrize("write", [write_tar, write_folder], ids=["tar", "folder"])
def test_what_cannot_be_used_is_counted(
    write: Any, raw: Path, output: Path, pictures: list[bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    good, failed, bare = (sample(f"00000000{number}", "a cat", pictures[0]) for number in range(3))
    failed = sample("000000001", "a cat", pictures[0], status="failed_to_resize")
    damaged = [("000000003.jpg", pictures[0]), ("000000003.json", b'{"caption": "a c')]
    silent = [*sample("000000004", None, pictures[0]), *sample("000000005", " .. ", pictures[0])]
    shard = "00000.tar" if write is write_tar else "00000"
    write(raw / "pictures" / shard, [*good, *failed, *bare[1:], *damaged, *silent, ("notes.md", b"")])
    assert run(SBU.name, raw, output) == 0
    assert [row["id"] for row in rows(output / "sbu.tsv")] == ["00000/000000000"]
    printed = capsys.readouterr().out
    assert "left out: 1 that could not be downloaded" in printed
    assert "left out: 2 without a picture or a text, or damaged" in printed
    assert "left out: 2 without a caption" in printed


def test_a_caption_may_stand_in_one_of_both_files(raw: Path, output: Path, pictures: list[bytes]) -> None:
    text_only, json_only = sample("0", "text", pictures[0]), sample("1", "json", pictures[0])
    write_folder(raw / "pictures" / "00000", [*text_only[::2], *json_only[:2]])
    write_tar(raw / "pictures" / "00001.tar", [*text_only[::2], *json_only[:2]])
    assert run(SBU.name, raw, output) == 0
    assert [row["caption"] for row in rows(output / "sbu.tsv")] == ["text", "json", "text", "json"]


@pytest.mark.parametrize("part", [0.0, 0.1, 0.33, 0.5, 0.77, 0.99, "end"])
def test_a_tar_file_that_is_cut_is_named(
    raw: Path, output: Path, samples: list[Members], part: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_tar(raw / "pictures" / "00000.tar", samples[0])
    content = path.read_bytes()
    whole = content.rstrip(b"\0")
    size = -(-len(whole) // 512) * 512 if part == "end" else int(len(whole) * part)
    path.write_bytes(content[:size])
    assert run(SBU.name, raw, output) == 2
    error = capsys.readouterr().err
    assert f"{path} is cut off" in error and error.count("\n") == 1
    assert list(output.iterdir()) == []


def test_a_shard_in_both_forms_is_refused(
    raw: Path, output: Path, samples: list[Members], capsys: pytest.CaptureFixture[str]
) -> None:
    write_tar(raw / "pictures" / "00000.tar", samples[0])
    write_folder(raw / "pictures" / "00000", samples[0])
    assert run(SBU.name, raw, output) == 2
    assert "is both a folder and a tar file" in capsys.readouterr().err


def test_names_and_links_that_leave_the_folder_are_refused(
    raw: Path, output: Path, samples: list[Members], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_tar(raw / "pictures" / "00000.tar", [("../0.jpg", b""), ("../0.txt", b"a cat")])
    assert run(SBU.name, raw, output) == 2
    assert "'../0.jpg' leaves its folder" in capsys.readouterr().err
    path.unlink()
    (raw / "pictures" / "00000").symlink_to(write_folder(tmp_path / "elsewhere", samples[0]))
    assert run(SBU.name, raw, output) == 2
    assert "is a link that leaves" in capsys.readouterr().err


def test_a_folder_without_shards_is_named(raw: Path, output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (raw / "pictures").mkdir()
    assert run(SBU.name, raw, output) == 2
    assert "has no shards of img2dataset" in capsys.readouterr().err


def test_a_stopped_build_goes_on_with_the_same_rows(
    raw: Path, output: Path, samples: list[Members], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, members in enumerate(samples):
        write_tar(raw / "pictures" / f"{number:05d}.tar", members)
    assert run(SBU.name, raw, tmp_path / "whole") == 0
    opened, really_open = [], Image.open

    def stop(content: Any) -> Image.Image:
        opened.append(content)
        if len(opened) == 3:
            raise KeyboardInterrupt
        return really_open(content)

    with monkeypatch.context() as patch:
        patch.setattr("PIL.Image.open", stop)
        with pytest.raises(KeyboardInterrupt):
            run(SBU.name, raw, output)
    assert (output / ".sbu.tsv.part").stat().st_size > 0
    assert run(SBU.name, raw, output) == 0
    assert (output / "sbu.tsv").read_bytes() == (tmp_path / "whole" / "sbu.tsv").read_bytes()


@pytest.mark.parametrize("place", ["00000.tar", "deeper/00000.tar", "00000", "deeper/00000"])
def test_shards_that_changed_start_an_unfinished_table_anew(
    place: str, raw: Path, output: Path, pictures: list[bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    def download(captions: Sequence[str]) -> None:
        members = [member for k, text in enumerate(captions) for member in sample(f"00000000{k}", text, pictures[k])]
        path = raw / "pictures" / place
        if place.endswith(".tar"):
            write_tar(path, members)
        else:
            write_folder(path, members)

    download(["one", "two"])
    broken = write_folder(raw / "pictures" / "last" / "99999", sample("0", "none", b"no picture")) / "0.jpg"
    assert run(SBU.name, raw, output) == 2 and (output / ".sbu.tsv.part").stat().st_size > 0
    times = (raw / "pictures").stat()
    download(["one", "two", "three"])
    broken.write_bytes(pictures[0])
    os.utime(raw / "pictures", ns=(times.st_atime_ns, times.st_mtime_ns))
    capsys.readouterr()
    assert run(SBU.name, raw, output) == 0
    assert "is started anew" in capsys.readouterr().err
    assert [row["caption"] for row in rows(output / "sbu.tsv")] == ["one", "two", "three", "none"]


def test_shards_that_did_not_change_do_not_start_anew(
    raw: Path, output: Path, samples: list[Members], pictures: list[bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    write_tar(raw / "pictures" / "00000.tar", samples[0])
    broken = write_folder(raw / "pictures" / "last" / "99999", sample("0", "none", b"no picture")) / "0.jpg"
    assert run(SBU.name, raw, output) == 2
    broken.write_bytes(pictures[0])
    capsys.readouterr()
    assert run(SBU.name, raw, output) == 0
    assert "is started anew" not in capsys.readouterr().err and len(rows(output / "sbu.tsv")) == 3


def test_rows_of_pictures_are_valid_for_pretraining_and_captions(
    raw: Path, output: Path, samples: list[Members]
) -> None:
    for number, members in enumerate(samples):
        write_tar(raw / "training" / f"{number:05d}.tar", members)
    assert run(CC3M.name, raw, output) == 0
    path = str(output / "cc3m.tsv")
    assert main(["data", "validate", path, "--task", "unify_task"]) == 0
    assert main(["data", "validate", path, "--task", "caption", "--selected-cols", "0,1,2"]) == 0


# -------------------------------------------------------------------------------- WebVid

HEADER = ["videoid", "contentUrl", "duration", "page_dir", "name"]


def write_csv(path: Path, *lines: Sequence[str], header: Sequence[str] = HEADER) -> None:
    with path.open("w", encoding="utf-8", newline="") as handle:
        csv.writer(handle).writerows([header, *lines])


def film_line(name: str, caption: str, page: str = "014001_014050") -> list[str]:
    return [name, f"https://a.b/{name}.mp4", "PT00H00M29S", page, caption]


def make_films(raw: Path, *names: str, content: bytes = b"a film that nobody opens") -> None:
    for name in names:
        (raw / name).parent.mkdir(parents=True, exist_ok=True)
        (raw / name).write_bytes(content)


def test_films_become_rows_with_paths(raw: Path, output: Path) -> None:
    lines = [film_line("21179416", 'Aerial, "shot"\nof Zürich'), film_line("5629184", "winter"), film_line("7", " ")]
    write_csv(raw / "results_2M_train.csv", *lines)
    make_films(raw, *(f"videos/014001_014050/{name}.mp4" for name in ("21179416", "5629184")))
    assert run(WEBVID.name, raw, output) == 0
    caption = 'Aerial, "shot" of Zürich'
    assert [list(row.values()) for row in rows(output / "webvid2m.tsv")] == [
        [
            "014001_014050/21179416",
            "videos/014001_014050/21179416.mp4",
            *(caption, "", "", "", "webvid", "video_caption"),
        ],
        ["014001_014050/5629184", "videos/014001_014050/5629184.mp4", "winter", "", "", "", "webvid", "video_caption"],
    ]


@pytest.mark.parametrize("place", ["014001_014050/5629184.mp4", "videos/5629184.mp4", "5629184.mp4"])
def test_films_may_lie_in_other_usual_places(raw: Path, output: Path, place: str) -> None:
    write_csv(raw / "results_10M_val.csv", film_line("5629184", "winter"))
    make_films(raw, place)
    assert run(WEBVID.name, raw, output, "--splits", "webvid10m_val") == 0
    assert [row["medium"] for row in rows(output / "webvid10m_val.tsv")] == [place]


def test_paths_of_films_may_start_in_a_folder_that_several_data_sets_share(raw: Path, output: Path) -> None:
    write_csv(raw / "results_2M_train.csv", film_line("1", "winter"))
    make_films(raw, "videos/1.mp4")
    assert run(WEBVID.name, raw, output, "--image-dir", str(raw.parent)) == 0
    assert [row["medium"] for row in rows(output / "webvid2m.tsv")] == ["raw/videos/1.mp4"]


def test_films_that_are_gone_are_counted_or_left_out(
    raw: Path, output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_csv(raw / "results_2M_train.csv", film_line("1", "here", page=""), film_line("2", "gone"))
    make_films(raw, "videos/1.mp4")
    assert run(WEBVID.name, raw, output) == 2
    assert "1 of 2 films are missing, e.g. " in capsys.readouterr().err
    assert run(WEBVID.name, raw, output, "--on-missing", "skip") == 0
    assert [row["id"] for row in rows(output / "webvid2m.tsv")] == ["1"]


@pytest.mark.parametrize(("name", "page"), [("../1", "a"), ("1", ".."), ("1", "../.."), ("/1", "a"), ("1", "a\\b")])
def test_films_outside_the_folder_are_refused(
    raw: Path, output: Path, name: str, page: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_csv(raw / "results_2M_train.csv", film_line(name, "a cat", page))
    make_films(raw.parent, "1.mp4")
    assert run(WEBVID.name, raw, output) == 2
    assert "results_2M_train.csv:2" in capsys.readouterr().err


def test_a_list_without_a_column_is_named(raw: Path, output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_csv(raw / "results_2M_train.csv", header=HEADER[:-1])
    assert run(WEBVID.name, raw, output) == 2
    assert "no column 'name'" in capsys.readouterr().err


def test_rows_of_films_are_valid_for_pretraining_and_captions(raw: Path, output: Path, tmp_path: Path) -> None:
    pytest.importorskip("av")
    from made_films import write_film

    film = write_film(tmp_path / "film.mp4", frames=8).read_bytes()
    write_csv(raw / "results_2M_train.csv", film_line("1", "a cat"), film_line("2", "a dog"))
    make_films(raw, *(f"videos/014001_014050/{name}.mp4" for name in "12"), content=film)
    assert run(WEBVID.name, raw, output) == 0
    command = ["data", "validate", str(output / "webvid2m.tsv"), "--image-dir", str(raw), "--task"]
    assert main([*command, "unify_task"]) == 0
    assert main([*command, "video_caption", "--selected-cols", "0,1,2"]) == 0
