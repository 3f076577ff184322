"""``unival data``: each subcommand on small files, good and bad."""

from __future__ import annotations

import base64
import io
import json
import pickle
from collections import defaultdict

import pytest
from PIL import Image

from unival_cli.main import main


def png(size=(8, 6)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, (200, 10, 10)).save(buffer, "PNG")
    return buffer.getvalue()


PICTURE = base64.b64encode(png()).decode()


def row(number, caption="a red box", picture=PICTURE, image_id=None):
    return "\t".join([str(number), str(image_id or f"im{number}"), caption, "", picture])


def write(path, rows, end="\n"):
    path.write_bytes(b"".join((r if isinstance(r, bytes) else r.encode()) + end.encode() for r in rows))
    return path


@pytest.fixture
def good(tmp_path):
    return write(tmp_path / "good.tsv", [row(i, f"caption number {i}") for i in range(20)])


def scratch_files(folder):
    return [path.name for path in folder.rglob("*tmp*")]


# -------------------------------------------------------------------------------- index


def test_index_writes_the_side_car(good, capsys):
    assert main(["data", "index", str(good)]) == 0
    assert good.with_name("good.tsv.idx").is_file()
    assert "20 rows" in capsys.readouterr().out


def test_index_of_a_missing_file_is_one_line(tmp_path, capsys):
    assert main(["data", "index", str(tmp_path / "none.tsv")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("unival: error:") and "none.tsv" in error and error.count("\n") == 1


# -------------------------------------------------------------------------------- validate


@pytest.mark.parametrize("workers", ["1", "2"])
def test_good_rows_pass_with_statistics(good, capsys, workers):
    assert main(["data", "validate", str(good), "--selected-cols", "0,4,2", "--workers", workers]) == 0
    out = capsys.readouterr().out
    assert "20 rows checked, 0 bad" in out
    assert "words a caption: 3 to 3, median 3, mean 3.0" in out
    assert "picture width:   8 to 8" in out and "picture height:  6 to 6" in out


def test_every_bad_row_is_named(tmp_path, capsys):
    truncated = base64.b64encode(png((64, 64))[:60]).decode()
    rows = [
        row(0),
        row(1, caption=" "),
        row(2, picture="not base64!"),
        row(3, picture=base64.b64encode(b"plain text, no picture").decode()),
        row(4, picture=truncated),
        row(0),
        "5\ttoo\tfew",
        b"6\tim6\tcaf\xe9\t\t" + PICTURE.encode(),
        row(7, caption="one&&&&three"),
        row(8, picture=""),
        row(""),
        row(9),
    ]
    path = write(tmp_path / "bad.tsv", rows)
    assert main(["data", "validate", str(path), "--task", "caption"]) == 1
    lines = capsys.readouterr().out.splitlines()
    places = {line.removeprefix(f"{path}:").split(": ")[0] for line in lines if line.startswith(f"{path}:")}
    assert places - {" 12 rows checked, 10 bad"} == {
        "2:2",
        "3:4",
        "4:4",
        "5:4",
        "6:0",
        "7",
        "8:2",
        "9:2",
        "10:4",
        "11:0",
    }
    assert f"{path}: 12 rows checked, 10 bad" in lines
    assert any("id '0' is also in row 1" in line for line in lines)


def test_limit_checks_the_first_rows_only(tmp_path, capsys):
    path = write(tmp_path / "bad.tsv", [row(0), row(1), row(2, caption="")])
    assert main(["data", "validate", str(path), "--limit", "2"]) == 0
    assert "2 rows checked, 0 bad" in capsys.readouterr().out


def test_pictures_can_be_paths(tmp_path, capsys):
    (tmp_path / "one.png").write_bytes(png())
    path = write(tmp_path / "paths.tsv", [row(0, picture="one.png"), row(1, picture="two.png")])
    flags = ["--read-from-img-path", "--image-dir", str(tmp_path)]
    assert main(["data", "validate", str(path), *flags]) == 1
    out = capsys.readouterr().out
    assert f"{path}:2:4: " in out and f"{path}:1:" not in out


def test_all_files_are_checked_even_after_a_bad_one(good, tmp_path, capsys):
    bad = write(tmp_path / "bad.tsv", [row(0, caption="")])
    assert main(["data", "validate", str(bad), str(good)]) == 1
    assert f"{good}: 20 rows checked, 0 bad" in capsys.readouterr().out


@pytest.mark.parametrize(
    "flags", [["--selected-cols", "0,4"], ["--selected-cols", "a,b,c"], ["--workers", "0"], ["--read-from-img-path"]]
)
def test_wrong_validate_flags_are_user_errors(good, flags, capsys):
    assert main(["data", "validate", str(good), *flags]) == 2
    assert capsys.readouterr().err.startswith("unival: error:")


def test_an_empty_file_is_a_user_error(tmp_path):
    (tmp_path / "empty.tsv").write_bytes(b"")
    assert main(["data", "validate", str(tmp_path / "empty.tsv")]) == 2


# -------------------------------------------------------------------------------- shuffle


def test_shuffle_keeps_the_rows_and_changes_their_order(good, tmp_path):
    out = tmp_path / "out.tsv"
    assert main(["data", "shuffle", str(good), str(out), "--seed", "3"]) == 0
    before, after = good.read_bytes().splitlines(), out.read_bytes().splitlines()
    assert before != after and sorted(before) == sorted(after)
    assert scratch_files(tmp_path) == []


def test_shuffle_is_repeatable(good, tmp_path):
    for name in ("a.tsv", "b.tsv"):
        main(["data", "shuffle", str(good), str(tmp_path / name), "--seed", "3"])
    main(["data", "shuffle", str(good), str(tmp_path / "c.tsv"), "--seed", "4"])
    a, b, c = ((tmp_path / name).read_bytes() for name in ("a.tsv", "b.tsv", "c.tsv"))
    assert a == b != c


def test_copies_are_epoch_files_in_different_orders(good, tmp_path):
    assert main(["data", "shuffle", str(good), str(tmp_path / "out.tsv"), "--copies", "3"]) == 0
    copies = [(tmp_path / f"out_{k}.tsv").read_bytes() for k in (1, 2, 3)]
    assert len(set(copies)) == 3
    assert len({tuple(sorted(copy.splitlines())) for copy in copies}) == 1


def test_shuffle_mends_line_ends(tmp_path):
    path = tmp_path / "dos.tsv"
    path.write_bytes(b"1\ta\r\n2\tb\r\n3\tc")
    main(["data", "shuffle", str(path), str(tmp_path / "out.tsv")])
    assert sorted((tmp_path / "out.tsv").read_bytes().splitlines(keepends=True)) == [b"1\ta\n", b"2\tb\n", b"3\tc\n"]


def test_shuffle_refuses_to_overwrite(good, tmp_path, capsys):
    out = write(tmp_path / "out.tsv", ["precious"])
    assert main(["data", "shuffle", str(good), str(out)]) == 2
    assert "--overwrite" in capsys.readouterr().err and out.read_text() == "precious\n"
    assert main(["data", "shuffle", str(good), str(out), "--overwrite"]) == 0
    assert main(["data", "shuffle", str(good), str(good), "--overwrite"]) == 2


# -------------------------------------------------------------------------------- pack


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    (folder / "one.png").write_bytes(png())
    (folder / "sub" / "two.png").write_bytes(png((9, 9)))
    return folder


def pack(photos, captions, *flags):
    output = photos.parent / "packed.tsv"
    status = main(
        ["data", "pack", "--images", str(photos), "--captions", str(captions), "--output", str(output), *flags]
    )
    return status, [line.split("\t") for line in output.read_text().splitlines()] if output.exists() else None


def test_pack_csv_keeps_the_bytes_of_the_pictures(photos, tmp_path):
    captions = tmp_path / "c.csv"
    captions.write_text('image,caption\none.png,"a box, red"\nsub/two.png,a   square\t here\n')
    status, rows = pack(photos, captions)
    assert status == 0
    assert [cells[:4] for cells in rows] == [
        ["0", "one.png", "a box, red", ""],
        ["1", "sub/two.png", "a square here", ""],
    ]
    assert base64.b64decode(rows[0][4]) == (photos / "one.png").read_bytes()


def test_packed_rows_are_valid(photos, tmp_path):
    captions = tmp_path / "c.csv"
    captions.write_text("image,caption\none.png,a box\none.png,a red box\n")
    assert pack(photos, captions)[0] == 0
    assert main(["data", "validate", str(tmp_path / "packed.tsv")]) == 0


def test_pack_json_lines_with_own_keys_and_paths(photos, tmp_path):
    captions = tmp_path / "c.jsonl"
    captions.write_text(
        '{"file": "one.png", "text": ["a box", "red"], "image_id": 7}\n\n{"file": "sub/two.png", "text": "x"}\n'
    )
    status, rows = pack(photos, captions, "--image-key", "file", "--caption-key", "text", "--paths")
    assert status == 0
    assert [(cells[1], cells[2], cells[4]) for cells in rows] == [
        ("7", "a box", "one.png"),
        ("7", "red", "one.png"),
        ("sub/two.png", "x", "sub/two.png"),
    ]


def test_pack_coco_joins_the_captions_of_a_picture(photos, tmp_path):
    captions = tmp_path / "c.json"
    data = {
        "images": [{"id": 11, "file_name": "one.png"}, {"id": 12, "file_name": "sub/two.png"}],
        "annotations": [
            {"image_id": 12, "caption": "first"},
            {"image_id": 11, "caption": "a box"},
            {"image_id": 12, "caption": "second"},
        ],
    }
    captions.write_text(json.dumps(data))
    status, rows = pack(photos, captions, "--join", "--paths")
    assert status == 0
    assert [cells[:3] for cells in rows] == [["0", "12", "first&&second"], ["1", "11", "a box"]]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("c.csv", "image,caption\none.png,a\nnone.png,b\n", "c.csv:3"),
        ("c.csv", "image,caption\n../one.png,a\n", "outside"),
        ("c.csv", "picture,words\none.png,a\n", "must name the columns"),
        ("c.csv", "image,caption\none.png,\n", "c.csv:2: the caption is empty"),
        ("c.csv", "image,caption\none.png,a&&b\n", "&&"),
        ("c.csv", "image,caption\n", "no caption"),
        ("c.jsonl", '{"image": "one.png"}\n', "c.jsonl:1"),
        ("c.jsonl", "{broken\n", "c.jsonl:1: not valid JSON"),
        ("c.json", '{"images": []}', "not a COCO caption file"),
        ("c.json", '{"images": [], "annotations": [{"image_id": 1, "caption": "a"}]}', "not among the images"),
        ("c.txt", "one.png a", ".csv, .jsonl or .json"),
    ],
)
def test_bad_captions_are_one_line_and_leave_no_file(photos, tmp_path, capsys, name, text, message):
    (tmp_path / name).write_text(text)
    status, rows = pack(photos, tmp_path / name)
    error = capsys.readouterr().err
    assert status == 2 and rows is None and message in error and error.startswith("unival: error:")
    assert scratch_files(tmp_path) == []


# -------------------------------------------------------------------------------- document frequencies


def test_cider_df_counts_pictures(tmp_path, capsys):
    from unival_plugin.metrics.cider import DocumentFrequency

    path = write(tmp_path / "val.tsv", [row(0, "a cat.&&a cat sleeps"), row(1, "a dog")])
    output = tmp_path / "df.json"
    assert main(["data", "cider-df", str(path), "--selected-cols", "0,4,2", "--output", str(output)]) == 0
    frequency = DocumentFrequency.load(output)
    assert frequency.ref_len == 2
    assert (frequency.counts[("a",)], frequency.counts[("a", "cat")], frequency.counts[("dog",)]) == (2, 1, 1)
    assert "2 pictures, 3 captions" in capsys.readouterr().out


def test_cider_df_groups_rows_of_one_picture(tmp_path):
    from unival_plugin.metrics.cider import DocumentFrequency

    rows = [row(0, "a cat", image_id="x"), row(1, "a dog", image_id="y"), row(2, "the cat", image_id="x")]
    path = write(tmp_path / "train.tsv", rows)
    output = tmp_path / "df.json"
    assert main(["data", "cider-df", str(path), "--group-col", "1", "--output", str(output)]) == 0
    frequency = DocumentFrequency.load(output)
    assert frequency.ref_len == 2 and frequency.counts[("cat",)] == 1


def test_cider_df_counts_for_rewards_with_the_end_as_a_word(tmp_path):
    from unival_plugin.metrics.cider import DocumentFrequency

    path = write(tmp_path / "train.tsv", [row(0, "a cat.&&A cat sleeps!"), row(1, "a dog")])
    output = tmp_path / "df.json"
    assert main(["data", "cider-df", str(path), "--rewards", "--output", str(output)]) == 0
    counts = DocumentFrequency.load(output).counts
    assert (counts[("<eos>",)], counts[("sleeps", "<eos>")], counts[("dog", "<eos>")]) == (2, 1, 1)


def test_convert_df_reads_the_reference_pickle(tmp_path):
    from unival_plugin.metrics.cider import DocumentFrequency

    counts = defaultdict(float, {("a",): 3.0, ("a", "cat"): 1.0})
    source = tmp_path / "words.p"
    source.write_bytes(pickle.dumps({"document_frequency": counts, "ref_len": 4.0}))
    output = tmp_path / "words.json"
    assert main(["data", "convert-df", str(source), str(output)]) == 0
    assert DocumentFrequency.load(output).counts[("a", "cat")] == 1
    assert main(["data", "convert-df", str(source), str(output)]) == 2
