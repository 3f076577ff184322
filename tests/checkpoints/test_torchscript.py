"""TorchScript archives: their tensors come out, their programs and payloads do not run."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from made_files import Payload
from torch import nn

from unival_plugin.checkpoints.torchscript import is_torchscript, read_torchscript
from unival_plugin.errors import CheckpointError


class Scripted(nn.Module):
    """Parts of parts, numbers of several kinds, lists, and buffers of both kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 4), nn.Sequential(nn.BatchNorm1d(4)))
        self.scale = nn.Parameter(torch.tensor(2.5, dtype=torch.float16))
        self.sizes = [1, 2, 3]
        self.names = {"a": 1.5}
        self.register_buffer("count", torch.tensor(7))
        self.register_buffer("mask", torch.ones(2, dtype=torch.bool), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x) * self.scale + self.count * float(self.sizes[0])


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    torch.jit.script(Scripted()).save(str(tmp_path / "net.pt"))
    return tmp_path / "net.pt"


def test_tensors_are_those_of_torchs_own_reader(archive: Path) -> None:
    found = read_torchscript(archive)
    wanted = torch.jit.load(str(archive)).state_dict()
    assert found.keys() == {*wanted, "mask"}
    for name, tensor in wanted.items():
        assert torch.equal(found[name], tensor) and found[name].dtype == tensor.dtype, name
        assert not found[name].requires_grad


def test_programs_are_told_from_other_files(archive: Path, tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1)}, tmp_path / "state.pt")
    (tmp_path / "text.pt").write_text("hello")
    names = ("state.pt", "text.pt", "none.pt")
    assert is_torchscript(archive) and not any(is_torchscript(tmp_path / name) for name in names)
    for name in names:
        with pytest.raises(CheckpointError, match=name) as caught:
            read_torchscript(tmp_path / name)
        assert "\n" not in str(caught.value)


def rewritten(path: Path, change: Callable[[str, bytes], bytes], compression: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path) as old:
        parts = [(name, old.read(name)) for name in old.namelist()]
    with zipfile.ZipFile(path, "w", compression) as new:
        for name, content in parts:
            new.writestr(name, change(name, content))


def test_the_program_is_not_even_looked_at(archive: Path) -> None:
    wanted = read_torchscript(archive)
    rewritten(archive, lambda name, content: b"import os" if "/code/" in name or "constants" in name else content)
    assert read_torchscript(archive).keys() == wanted.keys()


@pytest.mark.parametrize("where", ["data.pkl", "constants.pkl"])
def test_payloads_are_not_executed(archive: Path, tmp_path: Path, monkeypatch: Any, where: str) -> None:
    mark = tmp_path / "mark"
    monkeypatch.setenv("UNIVAL_TEST_MARK", str(mark))
    payload = pickle.dumps(Payload(), protocol=2)
    rewritten(archive, lambda name, content: payload if name.endswith(where) else content)
    if where == "data.pkl":
        with pytest.raises(CheckpointError, match=r"asks for .*exec, which no archive needs") as caught:
            read_torchscript(archive)
        assert "\n" not in str(caught.value)
    else:
        read_torchscript(archive)
    assert not mark.exists()


@pytest.mark.parametrize("other", [b"subprocess.", b"os.path.", b"torch.hub."])
def test_names_of_the_program_cannot_stand_for_others(archive: Path, other: bytes) -> None:
    """Only classes of the program itself are replaced by empty objects; a library's stay refused."""

    def change(name: str, content: bytes) -> bytes:
        return content.replace(b"__torch__.", other) if name.endswith("data.pkl") else content

    rewritten(archive, change)
    with pytest.raises(CheckpointError, match=other.decode()) as caught:
        read_torchscript(archive)
    assert "\n" not in str(caught.value)


def test_circles_end(archive: Path) -> None:
    loop = b"\x80\x02c__torch__\nLoop\n)\x81q\x00}(X\x04\x00\x00\x00selfh\x00ub."
    rewritten(archive, lambda name, content: loop if name.endswith("data.pkl") else content)
    with pytest.raises(CheckpointError, match="without tensors"):
        read_torchscript(archive)


def test_archives_that_swell_are_refused(archive: Path) -> None:
    rewritten(archive, lambda name, content: content + bytes(10**5 * ("/data/" in name)), zipfile.ZIP_DEFLATED)
    with pytest.raises(CheckpointError, match="unpacked it is larger than the file"):
        read_torchscript(archive)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_cut_files_are_refused(archive: Path, share: float) -> None:
    content = archive.read_bytes()
    archive.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(CheckpointError, match=r"net\.pt"):
        read_torchscript(archive)


def test_missing_numbers_are_an_error(archive: Path, tmp_path: Path) -> None:
    cut = io.BytesIO()
    with zipfile.ZipFile(archive) as old, zipfile.ZipFile(cut, "w") as new:
        for name in old.namelist():
            if not name.endswith("/data/0"):
                new.writestr(name, old.read(name))
    archive.write_bytes(cut.getvalue())
    with pytest.raises(CheckpointError, match="no readable TorchScript archive"):
        read_torchscript(archive)


def test_the_programs_list_of_safe_objects_stays(archive: Path) -> None:
    before = set(torch.serialization.get_safe_globals())
    read_torchscript(archive)
    assert set(torch.serialization.get_safe_globals()) == before
