"""``unival data pack`` from tables that hold their pictures: Hugging Face data sets and WebDataset shards."""

from __future__ import annotations

import base64
import io
import json
import re
import shlex
import tarfile

import pytest
from PIL import Image

from unival_cli.main import main
from unival_cli.pack_sources import expand_braces


def png(red: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6), (red, 10, 10)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def pack(tmp_path, capsys):
    """Pack a table and give status, rows as lists of cells, and what was printed."""

    def run(table, *flags):
        output = tmp_path / "rows.tsv"
        status = main(["data", "pack", "--data", str(table), "--output", str(output), *flags])
        rows = [line.split("\t") for line in output.read_text().splitlines()] if output.exists() else None
        return status, rows, capsys.readouterr()

    return run


def is_valid(printed) -> bool:
    command = re.search(r"^next: unival (.+)$", printed.out, re.MULTILINE)[1]
    return main(shlex.split(command)) == 0


def pictures(rows, column=4) -> list[bytes]:
    return [base64.b64decode(row[column]) for row in rows]


# -------------------------------------------------------------------------------- Hugging Face


RECORDS = [
    {
        "image": {"bytes": png(k), "path": None},
        "caption": [f"cap {k}", f"more {k}"],
        "label": k % 3,
        "question": "how many?",
        "answers": [{"answer": "two", "answer_confidence": "yes"}] * 3 + [{"answer": "2", "answer_confidence": "no"}],
        "bbox": [1.0, 1.0, 4.25, 5.0],
    }
    for k in range(5)
]
FEATURES = {
    "image": {"_type": "Image"},
    "caption": {"feature": {"dtype": "string", "_type": "Value"}, "_type": "List"},
    "label": {"names": ["entailment", "neutral", "contradiction"], "_type": "ClassLabel"},
}


def table_of(records):
    pyarrow = pytest.importorskip("pyarrow")
    text, number = pyarrow.string(), pyarrow.float32()
    schema = pyarrow.schema(
        {
            "image": pyarrow.struct({"bytes": pyarrow.binary(), "path": text}),
            "caption": pyarrow.list_(text),
            "label": pyarrow.int64(),
            "question": text,
            "answers": pyarrow.list_(pyarrow.struct({"answer": text, "answer_confidence": text})),
            "bbox": pyarrow.list_(number, 4),
        },
        metadata={"huggingface": json.dumps({"info": {"features": FEATURES}})},
    )
    return pyarrow.Table.from_pylist(records, schema)


def save_to_disk(records, folder, files=1):
    """What ``datasets.Dataset.save_to_disk`` writes."""
    import pyarrow

    folder.mkdir(parents=True)
    names = [f"data-{k:05}-of-{files:05}.arrow" for k in range(files)]
    for k, name in enumerate(names):
        table = table_of(records[k::files])
        with pyarrow.OSFile(str(folder / name), "wb") as file, pyarrow.ipc.new_stream(file, table.schema) as out:
            out.write_table(table, max_chunksize=2)
    state = {"_data_files": [{"filename": name} for name in names], "_fingerprint": "0", "_split": None}
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "dataset_info.json").write_text(json.dumps({"features": FEATURES}))
    return folder


@pytest.fixture
def saved(tmp_path):
    pytest.importorskip("pyarrow")
    return save_to_disk(RECORDS, tmp_path / "saved")


@pytest.mark.parametrize(
    ("task", "flags", "first"),
    [
        ("caption", ["--join"], ["0", "0", "cap 0&&more 0", "", "P"]),
        ("vqa_gen", [], ["0", "0", "how many?", "0.9|!+two&&0.3|!+2", "", "P"]),
        ("refcoco", ["--expression-key", "question"], ["0", "0", "how many?", "1,1,4.25,5", "P"]),
        ("snli_ve", ["--hypothesis-key", "question", "--caption-key", "question"], ["0", "0", "P"] + ["how many?"] * 2),
        ("unify_task", ["--row-type", "qa"], ["0", "P", "", "how many?", "0.9|!+two&&0.3|!+2", "", "", "qa"]),
    ],
)
def test_saved_data_sets_give_rows_of_all_tasks(pack, saved, task, flags, first):
    status, rows, printed = pack(saved, "--task", task, *flags)
    assert status == 0 and len(rows) == 5 and is_valid(printed)
    place = first.index("P")
    assert pictures(rows, place) == [record["image"]["bytes"] for record in RECORDS]
    assert [*rows[0][:place], "P", *rows[0][place + 1 :]][: len(first)] == first


def test_numbers_of_classes_become_their_names(pack, saved):
    rows = pack(saved, "--task", "snli_ve", "--hypothesis-key", "question", "--caption-key", "question")[1]
    assert [row[5] for row in rows] == ["entailment", "neutral", "contradiction", "entailment", "neutral"]


def test_files_of_a_saved_data_set_follow_each_other(pack, tmp_path):
    pytest.importorskip("pyarrow")
    status, rows, printed = pack(save_to_disk(RECORDS, tmp_path / "two", files=2))
    captions = [f"{name} {k}" for k in (0, 2, 4, 1, 3) for name in ("cap", "more")]
    assert status == 0 and [row[2] for row in rows] == captions
    assert "10 rows, 5 pictures, 20 words" in printed.out


def test_a_split_is_chosen(pack, tmp_path):
    pytest.importorskip("pyarrow")
    for name, records in (("train", RECORDS), ("val", RECORDS[3:])):
        save_to_disk(records, tmp_path / "splits" / name)
    (tmp_path / "splits" / "dataset_dict.json").write_text('{"splits": ["train", "val"]}')
    assert [row[2] for row in pack(tmp_path / "splits", "--split", "val", "--join")[1]] == [
        "cap 3&&more 3",
        "cap 4&&more 4",
    ]
    for flags in ([], ["--split", "test"]):
        status, _, printed = pack(tmp_path / "splits", "--overwrite", *flags)
        assert status == 2 and "has the splits train, val" in printed.err


@pytest.mark.parametrize(
    "names",
    [
        ["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet", "data/test-00000-of-00001.parquet"],
        ["train.parquet", "test.parquet"],
        ["default/train/0000.parquet", "default/train/0001.parquet", "default/test/0000.parquet"],
    ],
)
def test_parquet_files_as_the_hub_has_them(pack, tmp_path, names):
    parquet = pytest.importorskip("pyarrow.parquet")
    for k, name in enumerate(names):
        (tmp_path / "hub" / name).parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(table_of(RECORDS[k : k + 1]), tmp_path / "hub" / name)
    status, rows, printed = pack(tmp_path / "hub", "--split", "train", "--join")
    assert status == 0 and is_valid(printed)
    assert pictures(rows) == [png(k) for k in range(len(names) - 1)]
    status, _, printed = pack(tmp_path / "hub", "--overwrite")
    assert status == 2 and "--split" in printed.err


def test_a_parquet_file_alone(pack, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(table_of(RECORDS), tmp_path / "some.parquet")
    assert len(pack(tmp_path / "some.parquet")[1]) == 10


def test_pictures_that_are_only_named_are_read_from_the_folder(pack, tmp_path):
    pytest.importorskip("pyarrow")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "7.png").write_bytes(png(7))
    folder = save_to_disk([{**RECORDS[0], "image": {"bytes": None, "path": "7.png"}}], tmp_path / "named")
    status, rows, printed = pack(folder, "--images", str(tmp_path / "photos"), "--join")
    assert status == 0 and rows[0][1] == "7.png" and pictures(rows) == [png(7)] and is_valid(printed)


def test_bad_rows_of_data_sets_are_named(pack, tmp_path):
    pytest.importorskip("pyarrow")
    broken = {**RECORDS[0], "image": {"bytes": b"no picture", "path": "x.png"}}
    outside = {**RECORDS[0], "bbox": [1.0, 1.0, 9.0, 5.0]}
    folder = save_to_disk([RECORDS[0], broken, outside, {**RECORDS[1], "caption": []}], tmp_path / "bad")
    flags = ["--task", "refcoco", "--expression-key", "caption"]
    status, rows, printed = pack(folder, *flags)
    assert (status, rows) == (2, None) and "arrow: row 4: the expression is" in printed.err
    status, rows, printed = pack(folder, *flags, "--on-bad-row", "skip")
    assert status == 0 and len(rows) == 2 and is_valid(printed)
    assert "arrow: row 2: the image is" in printed.err and "arrow: row 3: box 1,1,9,5 reaches outside" in printed.err
    assert "records left out: 3 (" in printed.out


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--caption-key", "words"], "it has image, caption, label"),
        (["--task", "audio_caption", "--media-key", "image"], "rows are to hold paths"),
        (["--paths"], "rows are to hold paths"),
        (["--split", "train"], "has the splits saved"),
    ],
)
def test_what_a_data_set_does_not_have_is_a_user_error(pack, saved, flags, reason):
    status, rows, printed = pack(saved, *flags)
    assert (status, rows) == (2, None) and reason in printed.err and printed.err.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("data-00000-of-00001.arrow", "no arrow", "cannot be read"),
        ("state.json", "{", "not what save_to_disk writes"),
        ("state.json", '{"_data_files": [{"filename": "../../x.arrow"}]}', "is no file in it"),
        ("state.json", '{"_data_files": []}', "names no files"),
    ],
)
def test_damaged_data_sets_are_user_errors(pack, saved, name, text, reason):
    (saved / name).write_text(text)
    status, _, printed = pack(saved)
    assert status == 2 and reason in printed.err and printed.err.count("\n") == 1


# -------------------------------------------------------------------------------- WebDataset


def shard(path, *members):
    """A tar of (name, content); content None makes a link."""
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if content is None:
                info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
            data = content.encode() if isinstance(content, str) else content or b""
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def test_shards_give_pictures_with_texts_and_fields(pack, tmp_path):
    record = '{"question": "what?", "answers": ["red"], "image": "elsewhere.jpg", "image_id": 12}'
    shard(tmp_path / "w" / "s-00.tar", ("d/0.5.png", png(1)), ("d/0.5.txt", "one\n"), ("d/0.5.json", record))
    shard(tmp_path / "w" / "s-01.tar", ("d/0.7.json", record), ("d/0.7.cls", "3"), ("d/0.7.png", png(2)))
    status, rows, printed = pack(tmp_path / "w" / "s-{00..01}.tar", "--task", "vqa_gen")
    assert status == 0 and pictures(rows, 5) == [png(1), png(2)] and is_valid(printed)
    assert rows[0][:5] == ["0", "12", "what?", "1.0|!+red", ""]


@pytest.mark.parametrize("pattern", ["s-*.tar", "s-{00..01}.tar", "s-0{0,1}.tar"])
def test_shards_are_named_by_patterns(pack, tmp_path, pattern):
    for k in range(2):
        shard(tmp_path / "w" / f"s-0{k}.tar", (f"key{k}.PNG", png(k)), (f"key{k}.txt", f"text {k}"))
    status, rows, printed = pack(tmp_path / "w" / pattern)
    assert status == 0 and [row[:3] for row in rows] == [["0", "key0", "text 0"], ["1", "key1", "text 1"]]
    assert is_valid(printed)


def test_boxes_of_packed_pictures_are_compared_with_their_size(pack, tmp_path):
    good, bad = (json.dumps({"expression": "it", "bbox": [1, 1, edge, 4]}) for edge in (8, 12))
    path = shard(tmp_path / "w" / "s.tar", ("0.png", png(1)), ("0.json", good), ("1.png", png(1)), ("1.json", bad))
    status, _, printed = pack(path, "--task", "refcoco")
    assert status == 2 and "s.tar: 1: box 1,1,12,4 reaches outside" in printed.err
    assert len(pack(path, "--task", "refcoco", "--on-bad-row", "skip")[1]) == 1


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ([("0.png", b"x")], "has no text: add 0.txt or 0.json"),
        ([("0.txt", "a")], "has no picture"),
        ([("0.png", b"x"), ("0.jpg", b"x"), ("0.txt", "a")], "has both 0.png and 0.jpg"),
        ([("0.png", b"x"), ("0.json", "[1]")], "needs an object"),
        ([("0.png", b"x"), ("0.json", "{")], "Expecting"),
        ([("0.png", b"x"), ("0.txt", b"caf\xe9")], "0.txt is not UTF-8"),
        ([("0.png", b"no picture"), ("0.txt", "a")], "0.png"),
        ([("../0.png", b"x"), ("../0.txt", "a")], "leaves its folder"),
        ([("/0.png", b"x"), ("/0.txt", "a")], "leaves its folder"),
        ([("0.png", None), ("0.txt", "a")], "is a link"),
        ([("a\nb.png", b"x")], "is no text"),
    ],
)
def test_bad_members_are_named(pack, tmp_path, members, reason):
    path = shard(tmp_path / "w" / "s.tar", *members)
    status, rows, printed = pack(path)
    assert (status, rows) == (2, None)
    assert "s.tar" in printed.err and reason in printed.err and printed.err.count("\n") == 1
    assert not (tmp_path / "0.png").exists()


def test_damaged_missing_and_compressed_shards_are_user_errors(pack, tmp_path):
    cut = shard(tmp_path / "w" / "cut.tar", ("0.png", png(1)), ("0.txt", "a" * 5000))
    cut.write_bytes(cut.read_bytes()[:3000])
    (tmp_path / "w" / "none.tar").write_bytes(b"x" * 600)
    (tmp_path / "w" / "packed.tar.gz").write_bytes(b"\x1f\x8b")
    for name in ("cut.tar", "none.tar", "packed.tar.gz", "s-{0..3}.tar", "z*.tar"):
        status, _, printed = pack(tmp_path / "w" / name)
        assert status == 2 and printed.err.startswith("unival: error:") and printed.err.count("\n") == 1


@pytest.mark.parametrize("size", [0, 300, 3072, 3072 + 300, 3072 + 512, 6144, 6144 + 512])
def test_shards_without_an_end_are_cut_off_wherever_they_stop(pack, tmp_path, size):
    members = [(f"{k}.{kind}", text) for k in range(3) for kind, text in (("png", png(k)), ("txt", "a"))]
    path = shard(tmp_path / "w" / "s.tar", *members)
    path.write_bytes(path.read_bytes()[:size])
    status, rows, printed = pack(path)
    assert (status, rows) == (2, None) and f"{path} is cut off" in printed.err and printed.err.count("\n") == 1


def test_what_stands_behind_a_damaged_header_or_the_end_is_not_lost_silently(pack, tmp_path):
    members = [(f"{k}.{kind}", text) for k in range(3) for kind, text in (("png", png(k)), ("txt", "a"))]
    path = shard(tmp_path / "w" / "s.tar", *members)
    whole = path.read_bytes()
    path.write_bytes(whole[:2048] + b"x" * 512 + whole[2560:])
    status, rows, printed = pack(path)
    assert (status, rows) == (2, None) and f"{path} is damaged at byte 2049" in printed.err
    path.write_bytes(whole * 2)
    status, rows, printed = pack(path)
    assert (status, rows) == (2, None) and f"{path} is damaged at byte {len(whole) + 1}" in printed.err
    assert printed.err.count("\n") == 1
    path.write_bytes(whole)
    assert pack(path)[0] == 0


def test_braces():
    assert expand_braces("a-{08..10}.tar") == ["a-08.tar", "a-09.tar", "a-10.tar"]
    assert expand_braces("{a,b}{0..1}") == ["a0", "a1", "b0", "b1"]
