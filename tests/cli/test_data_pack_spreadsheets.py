"""``unival data pack`` from what spreadsheet programs write: other delimiters, encodings, names and paths."""

from __future__ import annotations

import base64
import codecs
import io
from pathlib import Path

import pytest
from PIL import Image

from unival_cli.main import main


def png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6), (200, 10, 10)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def photos(tmp_path):
    """a.png and cats/1.png."""
    folder = tmp_path / "photos"
    (folder / "cats").mkdir(parents=True)
    for name in ("a.png", "cats/1.png"):
        (folder / name).write_bytes(png())
    return folder


@pytest.fixture
def pack(photos, tmp_path, capsys):
    """Pack a table and give its rows, or None and the error."""

    def run(table, *flags, name="table.csv"):
        path = tmp_path / name
        path.write_bytes(table.encode() if isinstance(table, str) else table)
        output = tmp_path / "rows.tsv"
        output.unlink(missing_ok=True)
        command = ["--data", str(path), "--images", str(photos), "--output", str(output), "--paths", *flags]
        status = main(["data", "pack", *command])
        error = capsys.readouterr().err
        assert (status == 0) == (error == "") == output.exists() and error.count("\n") == (status != 0)
        if status:
            return None, error
        return [line.split("\t") for line in output.read_text().splitlines()], error

    return run


ROWS = [["0", "a.png", "red, not blue", "", "a.png"], ["1", "cats/1.png", "a cat", "", "cats/1.png"]]

# -------------------------------------------------------------------------------- form


@pytest.mark.parametrize(
    "table",
    [
        'image,caption\r\na.png,"red, not blue"\r\ncats/1.png,a cat\r\n',
        "image;caption\r\na.png;red, not blue\r\ncats/1.png;a cat\r\n",
        '"image";"caption"\n"a.png";"red, not blue"\n"cats/1.png";"a cat"',
        '"image, or path of it";"image";"caption"\nx;"a.png";"red, not blue"\ny;"cats/1.png";"a cat"',
        "image\tcaption\na.png\tred, not blue\ncats/1.png\ta cat\n",
        "sep=;\r\nimage;caption\r\na.png;red, not blue\r\ncats/1.png;a cat\r\n",
        "image;caption\ra.png;red, not blue\rcats/1.png;a cat\r",
        "\n;;\nimage;caption;\n;;\na.png;red, not blue;\ncats/1.png;a cat;\n; ;\n\n",
        "image;caption\na.png;red, not blue;;\ncats/1.png;a cat;;\n",
    ],
    ids=["commas", "semicolons", "all quoted", "a comma in a name", "tabs", "sep", "old Mac", "blank rows", "padded"],
)
@pytest.mark.parametrize("mark", [b"", codecs.BOM_UTF8], ids=["", "BOM"])
def test_tables_of_all_forms_give_the_same_rows(pack, table, mark):
    assert pack(mark + table.encode())[0] == ROWS


def test_line_ends_inside_of_quotes_belong_to_the_text(pack):
    assert pack('image;caption\r\na.png;"red,\r\nnot blue"\r\ncats/1.png;"a\ncat"\r\n')[0] == ROWS


@pytest.mark.parametrize(
    ("header", "flags"),
    [
        ("Image,Caption", []),
        ("IMAGE, caption ", []),
        ("File Name,Text", []),
        ("Image Path,Captions", []),
        ("image,Words", ["--caption-key", "Words"]),
    ],
)
def test_names_of_columns_may_be_written_in_other_ways(pack, header, flags):
    assert pack(f'{header}\na.png,"red, not blue"\ncats/1.png,a cat\n', *flags)[0] == ROWS


def test_other_tables_may_have_such_names_too(pack):
    assert pack('{"Image": "a.png", "Caption": "red, not blue"}\n', name="t.jsonl")[0] == ROWS[:1]


def test_a_name_that_is_written_as_documented_comes_first(pack):
    table = "Image,image,Caption,caption\nnone.png,a.png,wrong,right\n"
    assert pack(table)[0] == [["0", "a.png", "right", "", "a.png"]]


UTF16 = "image\tcaption\na.png\tred\n"


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.jsonl", "t.json"])
@pytest.mark.parametrize("code", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_utf_16_is_named_with_the_remedy(pack, name, code):
    assert "is UTF-16 or UTF-32: save it as UTF-8 (in Excel: CSV UTF-8)" in pack(UTF16.encode(code), name=name)[1]


def test_other_encodings_are_named_with_their_line(pack):
    lines = ["image;caption", *["a.png;red"] * 2000, "a.png;caf\u00e9", "a.png;red"]
    error = pack("\r\n".join(lines).encode("cp1252"))[1]
    assert "table.csv:2002 is not UTF-8: save it as UTF-8 (in Excel: CSV UTF-8)" in error


@pytest.mark.parametrize("name", ["t.csv", "t.xlsx", "t.xls", "t.ods"])
def test_workbooks_are_named_with_the_remedy(pack, name):
    assert "save the sheet as CSV UTF-8" in pack(b"PK\x03\x04\x14\x00\x06\x00", name=name)[1]


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        ("image,caption,Caption,caption\na.png,a,b,c\n", "table.csv:1 names the column 'caption' twice"),
        ("image,caption\na.png,red, not blue\n", "table.csv:2: more cells than the first line names"),
        ('image,caption\na.png,"red\na.png,blue\n', "table.csv:2: not valid CSV"),
        ('image,caption\na.png,x\na.png,"a "red" one"\n', "table.csv:3: not valid CSV"),
        ("a.png,red\ncats/1.png,a cat\n", "must name the columns image, caption; it has a.png, red"),
        ("", "table.csv is empty: its first line must name the columns"),
        ("image;caption,en\na.png;red,x\n", "must name the columns image, caption; it has image;caption, en"),
    ],
)
def test_what_cannot_be_read_is_one_line(pack, table, reason):
    assert reason in pack(table)[1]


# -------------------------------------------------------------------------------- paths


@pytest.mark.parametrize("path", ["cats\\1.png", ".\\cats\\1.png", " cats/1.png ", "cats/../cats/1.png"])
def test_paths_of_windows_and_with_blanks_are_files_below_the_folder(pack, photos, path):
    rows = pack(f"image,caption\n{path},a cat\n")[0]
    assert (photos / rows[0][4]).samefile(photos / "cats" / "1.png") and "\\" not in rows[0][4]


def test_absolute_paths_inside_of_the_folder_become_relative(pack, photos, tmp_path):
    (tmp_path / "link").symlink_to(photos)
    for folder in (photos, tmp_path / "link"):
        assert pack(f"image,caption\n{folder}/cats/1.png,a cat\n")[0][0][4] == "cats/1.png"


def test_a_file_whose_name_has_a_backslash_is_still_itself(pack, photos):
    (photos / "cats\\1.png").write_bytes(png())
    assert pack("image,caption\ncats\\1.png,a cat\n")[0][0][4] == "cats\\1.png"


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("cats/1.PNG", "there is {photos}/cats/1.png"),
        ("Cats\\1.PNG", "there is {photos}/cats/1.png"),
        ("cats/1.jpg", "there is {photos}/cats/1.png"),
        ("cats/1", "there is {photos}/cats/1.png"),
        ("photos/cats/1.png", "there is {photos}/cats/1.png"),
        ("C:\\Users\\me\\photos\\a.png", "is a path of another computer: write paths that start in {photos}"),
        ("C:/photos/a.png", "is a path of another computer"),
        ("\\\\server\\photos\\a.png", "is a path of another computer"),
        ("https://a.example/a.png", "is an address: download the pictures first"),
    ],
)
def test_paths_to_nothing_are_named_with_what_is_there(pack, photos, path, reason):
    error = pack(f"image;caption\n{path};a cat\n")[1]
    assert reason.format(photos=photos) in error and "table.csv:2" in error


def test_nothing_is_offered_for_a_file_that_is_simply_missing(pack, photos):
    assert "there is" not in pack("image;caption\ndogs/7.png;a dog\n")[1]


def test_pictures_are_found_by_such_paths_for_their_contents_too(pack, photos, tmp_path):
    output = tmp_path / "more.tsv"
    (tmp_path / "t.csv").write_text("Image;Caption\ncats\\1.png;a cat\n")
    flags = ["--data", str(tmp_path / "t.csv"), "--images", str(photos), "--output", str(output)]
    assert main(["data", "pack", *flags]) == 0
    assert base64.b64decode(Path(output).read_text().split("\t")[4]) == png()
