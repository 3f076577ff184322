"""Every mistake in a file gives one line that says what is wrong, where, and what to do; or the row is left out."""

from __future__ import annotations

import base64
import collections
import json
import os
import re
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import (
    NETWORK,
    PLUGIN,
    SEARCH,
    Change,
    Data,
    checkpoint,
    copy_with,
    differing,
    generate,
    kill_when,
    run,
    succeed,
    train,
    update_logged,
    validate,
)
from fairseq import options
from PIL import ImageFile

from unival_plugin.compat import user_error
from unival_plugin.errors import DataError, UnivalError
from unival_plugin.unival.tasks.caption import CaptionConfig, CaptionTask

ID, CAPTION, PICTURE = 0, 2, 4  # columns of the files


def _png(width: int, height: int) -> bytes:
    """A black grey-scale picture of any size in a few hundred kilobytes."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = zlib.compress(bytes((width + 1) * height), 1)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def _cell(column: int, content: bytes, rows: range = range(2, 3)) -> Change:
    """Puts ``content`` into a column of some rows (counted from 0)."""
    return lambda i, cells: [content if i in rows and k == column else cell for k, cell in enumerate(cells)]


def _half_picture(i: int, cells: list[bytes]) -> list[bytes]:
    if i == 2:
        jpeg = base64.b64decode(cells[PICTURE])
        cells[PICTURE] = base64.b64encode(jpeg[: len(jpeg) // 2])
    return cells


def _stray_tab(i: int, cells: list[bytes]) -> list[bytes]:
    return [*cells, b"more"] if i == 2 else cells


@pytest.fixture
def spoil(data: Data, tmp_path: Path) -> Callable[[Change], Data]:
    """The data set with a changed ``train_1.tsv``."""

    def copy(change: Change) -> Data:
        for name in ("train_2.tsv", "val.tsv", "digits.model"):
            shutil.copy(data.file(name), tmp_path)
        copy_with(data.file("train_1.tsv"), tmp_path / "train_1.tsv", change)
        return Data(tmp_path)

    return copy


def _task(data: Data, files: str = "train_1.tsv,train_2.tsv,val.tsv", **flags: Any) -> CaptionTask:
    values = {
        "data": ",".join(str(data.file(name)) for name in files.split(",")),
        "selected_cols": f"{ID},{PICTURE},{CAPTION}",
        "bpe": "sentencepiece",
        "sentencepiece_model": str(data.file("digits.model")),
        "patch_image_size": 32,
        "code_dict_size": 8,
        "num_bins": 8,
        **flags,
    }
    return CaptionTask.setup_task(CaptionConfig(**values))


def _batches(task: CaptionTask, split: str = "train", workers: int = 0, epoch: int = 1) -> list[Any]:
    """All batches of an epoch, by the way fairseq takes."""
    task.load_dataset(split, epoch=epoch)
    iterator = task.get_batch_iterator(task.dataset(split), max_sentences=4, epoch=epoch, num_workers=workers)
    return list(iterator.next_epoch_itr(shuffle=False))


def _complaint(data: Data, split: str = "train", workers: int = 0, **flags: Any) -> str:
    with pytest.raises(UnivalError) as caught:
        _batches(_task(data, **flags), split, workers)
    line = user_error(caught.value)
    assert line
    assert len(line.splitlines()) == 1
    return line


# ---- rows: in process, the place and the advice


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("change", "column", "what"),
    [
        (_cell(PICTURE, b"not base64!"), PICTURE, "base64"),
        (_cell(PICTURE, b""), PICTURE, "empty"),
        (_cell(PICTURE, base64.b64encode(b"<html>gone</html>")), PICTURE, "not a picture"),
        (_half_picture, PICTURE, "cut|trunc|incomplete|damaged"),
        (_cell(CAPTION, b"a \xff\xfe"), CAPTION, "UTF-8"),
        (_cell(ID, b"\xff"), ID, "UTF-8"),
    ],
    ids=["not base64", "no picture", "not a picture", "truncated JPEG", "caption not UTF-8", "id not UTF-8"],
)
def test_a_bad_cell_is_named(spoil: Any, change: Change, column: int, what: str, workers: int):
    data = spoil(change)
    line = _complaint(data, workers=workers)
    assert f"{data.file('train_1.tsv')}:row 3, column {column}" in line
    assert re.search(what, line, re.IGNORECASE), line


def test_a_row_with_too_many_columns_is_named(spoil: Any):
    data = spoil(_stray_tab)
    line = _complaint(data)
    assert f"{data.file('train_1.tsv')}:row 3" in line
    assert "columns" in line


def test_a_huge_picture_is_refused_before_it_is_decoded(spoil: Any, monkeypatch: pytest.MonkeyPatch):
    data = spoil(_cell(PICTURE, base64.b64encode(_png(14_000, 14_000))))

    stock = ImageFile.ImageFile.load

    def load(self: Any) -> Any:
        assert self.width * self.height < 1_000_000, "decoded"
        return stock(self)

    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    line = _complaint(data)
    assert f"row 3, column {PICTURE}" in line
    assert "196000000" in line
    assert "pixels" in line


@pytest.mark.parametrize(("split", "name"), [("train", "train_1.tsv"), ("valid", "val.tsv")])
def test_missing_empty_and_forbidden_files_are_named(
    spoil: Any, monkeypatch: pytest.MonkeyPatch, split: str, name: str
):
    data = spoil(lambda i, cells: cells)
    data.file(name).write_bytes(b"")
    assert f"{data.file(name)}: the file is empty" in _complaint(data, split)
    data.file(name).unlink()
    assert f"{data.file(name)} does not exist" in _complaint(data, split)
    data.file(name).mkdir()
    assert f"{data.file(name)} is a directory" in _complaint(data, split)
    data.file(name).rmdir()
    stock = Path.open

    def forbidden(self: Path, *args: Any, **kwargs: Any) -> Any:  # the tests may run as root, who may read everything
        if self == data.file(name):
            raise PermissionError(13, "Permission denied")
        return stock(self, *args, **kwargs)

    monkeypatch.setattr(Path, "open", forbidden)
    assert f"{data.file(name)} must not be read by this user" in _complaint(data, split)


def test_columns_that_do_not_exist_or_do_not_suffice_are_named(data: Data):
    line = _complaint(data, selected_cols="0,9,2")
    assert str(data.file("train_1.tsv")) in line
    assert "column 9 is selected" in line
    assert "--selected-cols" in _complaint(data, selected_cols="0,4")


def test_windows_line_ends_make_no_difference(data: Data, tmp_path: Path):
    for name in ("train_1.tsv", "train_2.tsv", "val.tsv"):
        (tmp_path / name).write_bytes(data.file(name).read_bytes().replace(b"\n", b"\r\n"))
    shutil.copy(data.file("digits.model"), tmp_path)
    for split in ("train", "valid"):
        for unix, windows in zip(_batches(_task(data), split), _batches(_task(Data(tmp_path)), split), strict=True):
            assert unix["id"].tolist() == windows["id"].tolist()
            assert torch.equal(unix["target"], windows["target"])


def test_an_unknown_flag_value_is_refused_by_the_parser(capsys: pytest.CaptureFixture[str]):
    parser = options.get_training_parser()
    flags = ["x.tsv", "--user-dir", str(PLUGIN), "--task", "caption", *NETWORK, "--on-bad-row", "perhaps"]
    with pytest.raises(SystemExit) as caught:
        options.parse_args_and_arch(parser, input_args=flags)
    assert caught.value.code == 2
    assert "argument --on-bad-row: invalid choice" in capsys.readouterr().err


# ---- rows: left out

BAD_ROWS = [0, 1, 2, 3, 9, 12, 13, 14, 15, 44]  # the first batch of four, one row, another batch, the last batch


def _several_bad(i: int, cells: list[bytes]) -> list[bytes]:
    if i not in BAD_ROWS:
        return cells
    changes = [_cell(PICTURE, b"?", range(45)), _cell(CAPTION, b"\xff", range(45)), lambda _, cells: [*cells, b"more"]]
    return changes[i % 3](i, cells)


@pytest.mark.parametrize("workers", [0, 2])
def test_bad_rows_are_left_out_and_nothing_else_changes(spoil: Any, data: Data, workers: int):
    bad = spoil(_several_bad)
    whole = _batches(_task(data, row_order="file"))
    batches = _batches(_task(bad, row_order="file", on_bad_row="skip"), workers=workers)
    rows = [row.split("\t")[0] for row in data.file("train_1.tsv").read_text().splitlines()]
    for number, (batch, full) in enumerate(zip(batches, whole, strict=True)):
        here = range(4 * number, min(4 * number + 4, len(rows)))
        assert batch["id"].tolist() == [rows[row] for row in here if row not in BAD_ROWS]
        assert batch["bad_rows"] == sum(row in BAD_ROWS for row in here)
        assert batch["is_dummy"] == (batch["bad_rows"] == len(here))
        if not batch["bad_rows"]:
            assert torch.equal(batch["net_input"]["patch_images"], full["net_input"]["patch_images"])


def test_a_file_without_a_usable_row_is_refused(spoil: Any):
    data = spoil(_cell(PICTURE, b"?", range(45)))
    assert f"{data.file('train_1.tsv')}: none of its 45 rows can be used" in _complaint(data, on_bad_row="skip")


def _left_out(text: str) -> collections.Counter[str]:
    return collections.Counter(re.findall(r"row left out: (\S+:row \d+)", text))


@pytest.mark.slow
def test_training_goes_on_without_bad_rows_and_resumes_exactly(spoil: Any, data: Data, tmp_path: Path):
    bad = spoil(_several_bad)
    copy_with(data.file("val.tsv"), bad.file("val.tsv"), _cell(CAPTION, b"\xff", range(0, 4)))
    flags = ["--on-bad-row", "skip", "--row-order", "file", "--use-dataaug", "--max-epoch", "3"]
    scores = ["--eval-cider", "--eval-args", json.dumps(SEARCH)]
    saves = ["--save-interval-updates", "5", "--keep-interval-updates", "1"]

    def command(name: str, workers: int) -> list[str]:
        return train(bad, tmp_path / name, *flags, *scores, *saves, "--num-workers", str(workers))

    whole = succeed(command("whole", 0))
    assert [float(epoch["train_bad_rows"]) for epoch in whole.logged("train")] == [10, 0, 10]
    assert all(float(epoch["valid_bad_rows"]) == 4 for epoch in whole.logged("valid"))
    file = bad.file("train_1.tsv")
    named = {place: count for place, count in _left_out(whole.stdout).items() if str(file) in place}
    assert named == {f"{file}:row {row + 1}": 2 for row in BAD_ROWS}  # the file serves the epochs 1 and 3

    kill_when(command("killed", 0), update_logged(7))
    succeed(command("killed", 2))
    first, second = (checkpoint(tmp_path / name / "checkpoint_last.pt") for name in ("whole", "killed"))
    for part in ("model", "last_optimizer_state"):
        assert differing(first[part], second[part]) == []


# ---- the programs


def test_a_missing_file_ends_the_program_with_one_line(spoil: Any, tmp_path: Path):
    data = spoil(lambda i, cells: cells)
    data.file("train_1.tsv").unlink()
    line = run(train(data, tmp_path / "run", "--max-epoch", "1")).complaint()
    assert line == (f"fairseq-train: error: {data.file('train_1.tsv')} does not exist: check the path of the data file")


def test_a_damaged_picture_in_a_worker_ends_the_program_with_one_line(spoil: Any, tmp_path: Path):
    data = spoil(_half_picture)
    line = run(train(data, tmp_path / "run", "--max-epoch", "1", "--num-workers", "2")).complaint()
    assert line.startswith(f"fairseq-train: error: {data.file('train_1.tsv')}:row 3, column {PICTURE}")


@pytest.fixture
def weights(pretrained: dict[str, Any], tmp_path: Path) -> Path:
    """A file with the weights and options of the very small network."""
    torch.save(pretrained, tmp_path / "weights.pt")
    return tmp_path / "weights.pt"


def test_a_checkpoint_of_another_size_ends_training_with_one_line(data: Data, weights: Path, tmp_path: Path):
    wider = ["--max-epoch", "1", "--encoder-embed-dim", "64", "--finetune-from-model", str(weights)]
    line = run(train(data, tmp_path / "run", *wider)).complaint()
    assert f"{weights}: the checkpoint is of another size" in line
    assert "--arch" in line


def test_a_checkpoint_of_another_architecture_ends_generation_with_one_line(
    data: Data, pretrained: dict[str, Any], tmp_path: Path
):
    foreign = tmp_path / "foreign.pt"
    torch.save({**pretrained, "model": {"encoder.bert.weight": torch.zeros(3, 3)}}, foreign)
    line = run(generate(data, foreign, tmp_path / "results")).complaint()
    assert f"{foreign}: the checkpoint is of another architecture" in line
    assert "encoder.bert.weight" in line


def test_a_missing_checkpoint_ends_validation_with_one_line(data: Data, tmp_path: Path):
    line = run(validate(data, tmp_path / "missing.pt")).complaint()
    assert str(tmp_path / "missing.pt") in line
    assert "--path" in line


class _Malicious:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.marker}",)


def test_a_malicious_checkpoint_is_refused_and_nothing_is_executed(data: Data, pretrained: Any, tmp_path: Path):
    marker, file = tmp_path / "executed", tmp_path / "malicious.pt"
    torch.save({**pretrained, "extra_state": _Malicious(marker)}, file)
    line = run(validate(data, file)).complaint()
    assert not marker.exists()
    assert f"{file}: asks for" in line
    assert "system" in line


def test_errors_of_a_worker_keep_their_type(spoil: Any):
    with pytest.raises(DataError):
        _batches(_task(spoil(_half_picture)), workers=2)
