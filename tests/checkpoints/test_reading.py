"""Safe reading: good files of every age come back whole, bad ones give one line, and nothing is ever executed."""

from __future__ import annotations

import argparse
import functools
import io
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_files import Payload
from omegaconf import AnyNode, DictConfig, ListConfig, OmegaConf
from omegaconf.base import ContainerMetadata

from unival_plugin.checkpoints.export import Export, convert
from unival_plugin.checkpoints.reading import (
    average_of,
    is_intact,
    newest_intact,
    read_checkpoint,
    refused_objects,
    weights_of,
)
from unival_plugin.errors import CheckpointError

WEIGHTS = {"encoder.a": torch.arange(6.0).reshape(2, 3), "encoder.b": torch.tensor([1, 2])}


@pytest.fixture
def mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that exists once a payload was executed."""
    monkeypatch.setenv("UNIVAL_TEST_MARK", str(tmp_path / "executed"))
    return tmp_path / "executed"


# ---- good files


@pytest.mark.parametrize("legacy", [False, True], ids=["today", "before 2020"])
@pytest.mark.parametrize("mmap", [False, True])
def test_files_of_every_age_are_read(tmp_path: Path, legacy: bool, mmap: bool):
    state = {"args": argparse.Namespace(arch="bart_base", lr=[0.1]), "model": WEIGHTS, "extra_state": {"epoch": 3}}
    torch.save(state, tmp_path / "x.pt", _use_new_zipfile_serialization=not legacy)
    read = read_checkpoint(tmp_path / "x.pt", mmap=mmap)
    assert read["args"] == state["args"] and read["extra_state"] == {"epoch": 3}
    assert all(torch.equal(read["model"][key], value) for key, value in WEIGHTS.items())


def test_options_of_omegaconf_become_plain_data_without_running_its_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    options = {"a": 1, "b": [1, "x", None, 2.5, True], "c": {"d": "${a}", "e": "???", "f": {}}, "g": None}
    torch.save({"cfg": OmegaConf.create(options), "model": WEIGHTS}, tmp_path / "x.pt")

    def forbidden(*_: Any, **__: Any) -> None:
        raise AssertionError("code of OmegaConf was run")

    for kind in (AnyNode, DictConfig, ListConfig, ContainerMetadata):
        for method in ("__init__", "__setstate__"):
            monkeypatch.setattr(kind, method, forbidden, raising=False)
    assert read_checkpoint(tmp_path / "x.pt")["cfg"] == options


def test_reading_leaves_the_program_its_own_list_of_safe_objects(tmp_path: Path):
    torch.save({"w": torch.ones(1)}, tmp_path / "x.pt")
    before = torch.serialization.get_safe_globals()
    torch.serialization.add_safe_globals([argparse.Namespace])
    try:
        read_checkpoint(tmp_path / "x.pt")
        assert argparse.Namespace in torch.serialization.get_safe_globals()
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(before)


def test_a_program_may_allow_more(tmp_path: Path):
    torch.save({"path": Path("x"), "w": torch.ones(1)}, tmp_path / "x.pt")
    refused = refused_objects(tmp_path / "x.pt")
    assert refused == [f"pathlib.{type(Path()).__name__}"]
    with pytest.raises(CheckpointError, match=refused[0]):
        read_checkpoint(tmp_path / "x.pt")
    with torch.serialization.safe_globals([type(Path())]):
        assert refused_objects(tmp_path / "x.pt") == []
        assert read_checkpoint(tmp_path / "x.pt")["path"] == Path("x")


# ---- files that ask for execution


def _old(path: Path) -> None:
    torch.save({"model": Payload()}, path, _use_new_zipfile_serialization=False)


HOSTILE: dict[str, Callable[[Path], Any]] = {
    "torch": lambda path: torch.save({"model": WEIGHTS, "extra": Payload()}, path),
    "torch before 2020": _old,
    "torch, protocol 4": lambda path: torch.save({"model": Payload()}, path, pickle_protocol=4),
    **{
        f"pickle, protocol {protocol}": lambda path, protocol=protocol: path.write_bytes(  # type: ignore[misc]
            pickle.dumps({"model": Payload()}, protocol=protocol)
        )
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
    },
}


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("allowed", [None, "1"], ids=["", "with the environment variable of torch"])
def test_payloads_are_named_and_not_executed(
    tmp_path: Path, mark: Path, monkeypatch: pytest.MonkeyPatch, kind: str, allowed: str | None
):
    HOSTILE[kind](tmp_path / "x.pt")
    if allowed:
        monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", allowed)
    assert refused_objects(tmp_path / "x.pt") == ["builtins.exec"]
    with pytest.raises(CheckpointError, match=r"x\.pt: asks for builtins\.exec, which safe reading does not") as caught:
        read_checkpoint(tmp_path / "x.pt")
    assert len(str(caught.value).splitlines()) == 1
    assert not mark.exists()


def test_the_payload_works_where_reading_is_not_safe(tmp_path: Path, mark: Path):
    HOSTILE["torch"](tmp_path / "x.pt")
    torch.load(tmp_path / "x.pt", weights_only=False)
    assert mark.exists()


def test_names_in_a_pickle_cannot_forge_lines(tmp_path: Path):
    (tmp_path / "x.pt").write_bytes(b"\x80\x02cevil\x1b[2K\rmodule\nname\n)R.")
    assert refused_objects(tmp_path / "x.pt") == ["evil?[2K?module.name"]


# ---- damaged files


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A small checkpoint file."""
    torch.save({"model": {"w": torch.arange(1000.0)}}, tmp_path / "checkpoint_last.pt")
    return tmp_path / "checkpoint_last.pt"


def _zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "no weights")


def _script(path: Path) -> None:
    torch.jit.script(torch.nn.Linear(1, 1)).save(str(path))


DEFECTS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "missing": (lambda path: path.unlink(), "no such file; correct its path"),
    "folder": (lambda path: (path.unlink(), path.mkdir()), "is a folder"),
    "empty": (lambda path: path.write_bytes(b""), "the file is empty"),
    "cut": (lambda path: path.write_bytes(path.read_bytes()[:-200]), r"not a readable checkpoint \(damaged or cut"),
    "text": (lambda path: path.write_bytes(b"<html>"), "not a torch checkpoint, damaged, or cut short"),
    "archive": (_zip, "an archive, but not of torch.save"),
    "program": (_script, "an archive, but not of torch.save"),
    "list": (lambda path: torch.save([1, 2], path), "holds a list instead of weights"),
    "tensor": (lambda path: torch.save(torch.ones(2), path), "holds a Tensor instead of weights"),
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_defects_are_explained_in_one_line(saved: Path, defect: str):
    spoil, message = DEFECTS[defect]
    spoil(saved)
    with pytest.raises(CheckpointError, match=message) as caught:
        read_checkpoint(saved)
    assert str(caught.value).startswith(f"{saved}: ") and len(str(caught.value).splitlines()) == 1


@functools.lru_cache
def _written(legacy: bool) -> bytes:
    """A small checkpoint; written once, because the length of an old file depends on addresses of memory."""
    state = {"cfg": argparse.Namespace(a=(1, 2.5, "x")), "model": {"w": torch.arange(3)}}
    buffer = io.BytesIO()
    torch.save(state, buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


@pytest.mark.parametrize("legacy", [False, True], ids=["today", "before 2020"])
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_changed_or_missing_bytes_give_an_error_or_plain_data(tmp_path: Path, legacy: bool, data: st.DataObject):
    content = bytearray(_written(legacy))
    place = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        content[place] ^= data.draw(st.integers(1, 255))
    else:
        del content[place:]
    (tmp_path / "y.pt").write_bytes(content)
    is_intact(tmp_path / "y.pt")
    refused_objects(tmp_path / "y.pt")
    try:
        assert isinstance(read_checkpoint(tmp_path / "y.pt"), dict)
    except CheckpointError as error:
        assert len(str(error).splitlines()) == 1


# ---- safetensors


@pytest.fixture
def portable(tmp_path: Path) -> Path:
    """A safetensors file with its JSON."""
    torch.save({"cfg": {"model": argparse.Namespace(a=1)}, "model": WEIGHTS}, tmp_path / "x.pt")
    convert(tmp_path / "x.pt", tmp_path / "x.safetensors", Export())
    return tmp_path / "x.safetensors"


def test_safetensors_are_read_with_their_options_or_as_weights_alone(portable: Path):
    assert read_checkpoint(portable)["cfg"]["model"] == argparse.Namespace(a=1)
    portable.with_suffix(".json").unlink()
    assert read_checkpoint(portable).keys() == WEIGHTS.keys()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "damaged or cut short"),
        (lambda path: path.write_bytes(b"x"), "damaged or cut short"),
        (lambda path: path.with_suffix(".json").write_text("{"), "damaged JSON"),
        (lambda path: path.with_suffix(".json").write_text("[]"), "not the JSON that `unival convert`"),
        (
            lambda path: path.with_suffix(".json").write_text(
                path.with_suffix(".json").read_text().replace('"$tensor": "encoder.a"', '"$tensor": "gone"')
            ),
            "does not belong to the tensors",
        ),
        (
            lambda path: path.with_suffix(".json").write_text(
                path.with_suffix(".json").read_text().replace('"$namespace"', '"$os.system"')
            ),
            "does not belong to the tensors",
        ),
    ],
    ids=["cut", "text", "broken json", "other json", "other tensors", "unknown tag"],
)
def test_damaged_safetensors_are_explained(portable: Path, spoil: Callable[[Path], Any], message: str):
    spoil(portable)
    with pytest.raises(CheckpointError, match=message) as caught:
        read_checkpoint(portable)
    assert len(str(caught.value).splitlines()) == 1


# ---- parts


@pytest.mark.parametrize("layout", [lambda w: {"model": w}, lambda w: {"epoch": 1, "state_dict": w}, lambda w: w])
def test_weights_are_found_in_every_layout(layout: Callable[[Any], Any]):
    assert weights_of(layout(WEIGHTS)).keys() == WEIGHTS.keys()


@pytest.mark.parametrize("state", [{}, {"model": {}}, {"model": [1]}, {"a": 1}])
def test_files_without_weights_are_refused(state: dict[str, Any]):
    with pytest.raises(CheckpointError, match="holds no weights by name"):
        weights_of(state)


def test_the_precise_average_wins_and_gaps_are_filled_with_weights():
    half = {"encoder.a": torch.zeros(2, 3).half()}
    precise = {"encoder.a": torch.ones(2, 3)}
    assert average_of({"model": WEIGHTS}) is None
    assert average_of({"model": WEIGHTS, "extra_state": {"ema": {}}}) is None
    only = average_of({"model": WEIGHTS, "extra_state": {"ema": half}})
    both = average_of({"model": WEIGHTS, "extra_state": {"ema": half, "ema_fp32_params": precise}})
    assert only is not None and only["encoder.a"] is half["encoder.a"] and only["encoder.b"] is WEIGHTS["encoder.b"]
    assert both is not None and both["encoder.a"] is precise["encoder.a"]


# ---- intact files


def test_intact_means_complete_and_unchanged(saved: Path):
    assert is_intact(saved)
    with zipfile.ZipFile(saved) as archive:
        place = max(archive.infolist(), key=lambda entry: entry.file_size).header_offset + 1000
    content = bytearray(saved.read_bytes())
    content[place] ^= 1
    saved.write_bytes(content)
    assert not is_intact(saved)


@pytest.mark.parametrize("left", [0, 1, 100, -200, -1])
def test_cut_files_are_not_intact(saved: Path, left: int):
    saved.write_bytes(saved.read_bytes()[:left])
    assert not is_intact(saved)
    assert not is_intact(saved.with_name("missing.pt"))


def test_the_newest_intact_checkpoint_is_the_one_written_last(saved: Path):
    names = ["checkpoint_best.pt", "checkpoint3.pt", "checkpoint_4_7.pt", "pretrained.pt", "crash.pt"]
    for age, name in enumerate(names):
        saved.with_name(name).write_bytes(saved.read_bytes())
        os.utime(saved.with_name(name), (age, age))
    saved.with_name("checkpoint_4_7.pt").write_bytes(saved.read_bytes()[:-200])
    os.utime(saved.with_name("checkpoint_4_7.pt"), (9, 9))
    saved.unlink()
    assert newest_intact(saved.parent) == saved.with_name("checkpoint3.pt")
    assert newest_intact(saved.parent / "nowhere") is None
