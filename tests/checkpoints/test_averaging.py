"""Merging of files: what is merged, copied, refused and told, and that the result appears whole or not at all."""

from __future__ import annotations

import argparse
import errno
import hashlib
import itertools
import json
import os
import zipfile
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from unival_plugin.checkpoints.averaging import MergePlan, merge
from unival_plugin.checkpoints.mapped import MappedFile
from unival_plugin.checkpoints.provenance import provenance
from unival_plugin.checkpoints.reading import is_intact, read_checkpoint
from unival_plugin.errors import CheckpointError, ConfigError


def state(seed: int = 0, **changes: Any) -> dict[str, Any]:
    """Contents like those of fairseq's checkpoints, with numbers of many types."""
    torch.manual_seed(seed)
    words = torch.randn(5, 3)
    model: OrderedDict[str, Tensor] = OrderedDict(
        [
            ("encoder.embed_tokens.weight", words),
            ("decoder.embed_tokens.weight", words),
            ("half", torch.randn(4).half()),
            ("brain", torch.randn(4).bfloat16()),
            ("double", torch.randn(4).double()),
            ("turned", torch.randn(2, 3).t()),
            ("none", torch.zeros(0, 2)),
            ("norm.running_mean", torch.randn(2)),
            ("norm.running_var", torch.rand(2)),
            ("norm.num_batches_tracked", torch.tensor(seed)),
            ("table", torch.tensor([seed, 7])),
        ]
    )
    model._metadata = OrderedDict([("", {"version": 1})])  # type: ignore[attr-defined]
    average = {key: value * 2 if value.is_floating_point() else value for key, value in model.items()}
    whole = {
        "args": None,
        "cfg": {"model": argparse.Namespace(_name="unival_base"), "task": {"_name": "caption"}},
        "model": model,
        "optimizer_history": [{"num_updates": 3 + seed}],
        "extra_state": {"train_iterator": {"epoch": 4}, "ema": average, "best": seed},
        "last_optimizer_state": {"state": {0: torch.ones(3)}},
    }
    return {**whole, **changes}


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, ...]:
    """Two files."""
    for seed, name in enumerate("ab"):
        torch.save(state(seed), tmp_path / f"{name}.pt")
    return tmp_path / "a.pt", tmp_path / "b.pt"


def merged(plan: MergePlan, name: str = "out.pt") -> dict[str, Any]:
    output = plan.paths[0].with_name(name)
    merge(plan, output, progress=False)
    return read_checkpoint(output)


def saved(folder: Path, **models: dict[str, Tensor]) -> tuple[Path, ...]:
    for name, model in models.items():
        torch.save({"model": model}, folder / f"{name}.pt")
    return tuple(folder / f"{name}.pt" for name in models)


def bits(tensor: Tensor) -> list[int]:
    return tensor.contiguous().reshape(-1).view(torch.uint8).tolist() if tensor.numel() else []


def same_model(one: dict[str, Tensor], two: dict[str, Tensor]) -> bool:
    return list(one) == list(two) and all(
        one[key].dtype == two[key].dtype and one[key].shape == two[key].shape and bits(one[key]) == bits(two[key])
        for key in one
    )


# ---- identities


@pytest.mark.parametrize("name", ["out.pt", "out.safetensors"])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_mean_of_a_file_with_itself_is_the_file(files: tuple[Path, ...], count: int, name: str):
    result, before = merged(MergePlan(files[:1] * count), name), read_checkpoint(files[0])
    assert same_model(result["model"], before["model"])
    assert same_model(result["extra_state"]["ema"], before["extra_state"]["ema"])


@pytest.mark.parametrize("method", ["weighted", "slerp"])
def test_the_ends_of_an_interpolation_are_the_files(files: tuple[Path, ...], method: str):
    one, two = (read_checkpoint(path)["model"] for path in files)
    assert same_model(merged(MergePlan(files, method, (1.0, 0.0)))["model"], one)
    end = merged(MergePlan(files, method, (0.0, 1.0)))["model"]
    integers = {key: one[key] for key in ("norm.num_batches_tracked", "table")}
    assert same_model(end, {**two, **integers})


@pytest.mark.parametrize("method", ["ties", "dare"])
def test_density_1_is_task_arithmetic(files: tuple[Path, ...], method: str):
    torch.save(state(9), files[0].with_name("base.pt"))
    plan = MergePlan(files, "task_arithmetic", (0.7, 0.6), files[0].with_name("base.pt"))
    expected = merged(plan)["model"]
    assert same_model(merged(replace(plan, method=method, options={"density": 1.0}))["model"], expected)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.floats(0.01, 1), min_size=3, max_size=3))
def test_the_order_of_files_matters_to_rounding_only(tmp_path: Path, sizes: list[float]):
    torch.manual_seed(1)
    paths = saved(tmp_path, **{name: {"w": torch.randn(20)} for name in "abc"})
    results = [
        merged(MergePlan(tuple(paths[i] for i in order), coefficients=tuple(sizes[i] / sum(sizes) for i in order)))
        for order in itertools.permutations(range(3))
    ]
    assert all(torch.allclose(results[0]["model"]["w"], result["model"]["w"], atol=1e-6) for result in results)


# ---- what becomes of the contents


def test_numbers_are_averaged_in_the_first_files_types(files: tuple[Path, ...]):
    one, two = (read_checkpoint(path)["model"] for path in files)
    model = merged(MergePlan(files, coefficients=(0.25, 0.75)))["model"]
    for key in ("half", "brain", "double", "turned", "encoder.embed_tokens.weight"):
        expected = (0.25 * one[key].double() + 0.75 * two[key].double()).to(one[key].dtype)
        assert model[key].dtype == one[key].dtype
        assert torch.allclose(model[key].double(), expected.double(), rtol=1e-6, atol=1e-6)


def test_integers_are_the_first_files_and_statistics_are_averaged(files: tuple[Path, ...]):
    one, two = (read_checkpoint(path)["model"] for path in files)
    model = merged(MergePlan(files[::-1]))["model"]
    assert model["norm.num_batches_tracked"] == 1 and model["table"].tolist() == [1, 7]
    for key in ("norm.running_mean", "norm.running_var"):
        assert torch.allclose(model[key], (one[key] + two[key]) / 2)


@pytest.mark.parametrize("method", ["task_arithmetic", "ties", "dare"])
def test_a_variance_never_falls_below_those_of_the_files(tmp_path: Path, method: str):
    small = {"n.running_var": torch.tensor([0.1, 1.0]), "n.running_mean": torch.tensor([1.0, 2.0])}
    large = {"n.running_var": torch.tensor([5.0, 1.0]), "n.running_mean": torch.tensor([0.0, 0.0])}
    *paths, base = saved(tmp_path, a=small, b=small, base=large)
    model = merged(MergePlan(tuple(paths), method, (1.0, 1.0), base))["model"]
    assert torch.allclose(model["n.running_var"], torch.tensor([0.1, 1.0]))
    assert model["n.running_mean"].tolist() == [2.0, 4.0]


def test_tied_tensors_stay_tied_unless_a_file_unties_them(files: tuple[Path, ...]):
    first, second = "encoder.embed_tokens.weight", "decoder.embed_tokens.weight"
    model = merged(MergePlan(files))["model"]
    assert model[first].data_ptr() == model[second].data_ptr()
    untied = state(1)
    untied["model"][second] = untied["model"][second] + 1
    torch.save(untied, files[1])
    model = merged(MergePlan(files))["model"]
    assert torch.allclose(model[second], model[first] + 0.5)


def test_everything_else_is_the_first_files_but_the_optimizer(files: tuple[Path, ...]):
    result, first = merged(MergePlan(files)), read_checkpoint(files[0])
    assert "last_optimizer_state" not in result
    assert (result["cfg"], result["optimizer_history"]) == (first["cfg"], first["optimizer_history"])
    assert result["extra_state"]["train_iterator"] == {"epoch": 4} and result["extra_state"]["best"] == 0
    assert result["model"]._metadata == first["model"]._metadata


def test_plain_state_dicts_become_checkpoints(tmp_path: Path):
    for name, value in (("a", 1.0), ("b", 3.0)):
        torch.save({"w": torch.full((2,), value)}, tmp_path / f"{name}.pt")
    result = merged(MergePlan((tmp_path / "a.pt", tmp_path / "b.pt")))
    assert result["model"]["w"].tolist() == [2.0, 2.0] and result["optimizer_history"]


def test_files_of_before_2020_can_be_merged(tmp_path: Path):
    for name, value in (("a", 1.0), ("b", 3.0)):
        model = {"model": {"w": torch.full((30_000,), value)}}
        torch.save(model, tmp_path / f"{name}.pt", _use_new_zipfile_serialization=False)
    assert merged(MergePlan((tmp_path / "a.pt", tmp_path / "b.pt")))["model"]["w"].unique().tolist() == [2.0]


def test_averages_of_all_files_are_merged(files: tuple[Path, ...]):
    one, two = (read_checkpoint(path)["extra_state"]["ema"] for path in files)
    average = merged(MergePlan(files))["extra_state"]["ema"]
    assert torch.allclose(average["turned"], (one["turned"] + two["turned"]) / 2)


def test_averages_that_a_file_lacks_are_left_out_and_said(files: tuple[Path, ...], tmp_path: Path):
    torch.save(state(1, extra_state={}), files[1])
    report = merge(MergePlan(files), tmp_path / "out.pt", progress=False)
    assert report["averages"] == "dropped" and any("average of weights" in note for note in report["notes"])
    assert "ema" not in read_checkpoint(tmp_path / "out.pt")["extra_state"]


def test_the_averages_can_be_what_is_merged(files: tuple[Path, ...]):
    one, two = (read_checkpoint(path)["extra_state"]["ema"] for path in files)
    result = merged(MergePlan(files, source="ema"))
    for part in (result["model"], result["extra_state"]["ema"]):
        assert torch.allclose(part["turned"], (one["turned"] + two["turned"]) / 2)
    assert result["model"]["turned"].data_ptr() == result["extra_state"]["ema"]["turned"].data_ptr()
    with pytest.raises(CheckpointError, match=r"c\.pt: holds no average of weights"):
        torch.save(state(extra_state={}), files[0].with_name("c.pt"))
        merged(MergePlan((files[0], files[0].with_name("c.pt")), source="ema"))


def test_the_precise_average_counts(tmp_path: Path):
    for name, value in (("a", 1.0), ("b", 2.0)):
        extra = {"ema": {"w": torch.full((1,), value).half()}, "ema_fp32_params": {"w": torch.full((1,), value / 3)}}
        torch.save({"model": {"w": torch.ones(1).half()}, "extra_state": extra}, tmp_path / f"{name}.pt")
    result = merged(MergePlan((tmp_path / "a.pt", tmp_path / "b.pt"), source="ema"))
    assert result["model"]["w"].dtype == torch.float32 and float(result["model"]["w"]) == pytest.approx(0.5)
    assert "ema_fp32_params" not in result["extra_state"]


# ---- names and shapes


def two_models(folder: Path, one: dict[str, int], two: dict[str, int]) -> tuple[Path, ...]:
    """Files with vectors of so many ones and threes."""
    return saved(
        folder,
        a={key: torch.ones(n) for key, n in one.items()},
        b={key: torch.full((n,), 3.0) for key, n in two.items()},
    )


@pytest.mark.parametrize(
    ("one", "two", "message"),
    [
        ({"w": 2, "x": 2, "y": 1}, {"w": 2}, r"b\.pt: lacks x, y, which .*a\.pt has"),
        ({"w": 2}, {"w": 2, "z": 2}, r"b\.pt: has z, which .*a\.pt, the first file, lacks"),
        ({"w": 2}, {"w": 3}, r"b\.pt: w is 3, but 2 in .*a\.pt"),
        ({"encoder.embed_tokens.weight": 4}, {"encoder.embed_tokens.weight": 5}, "another dictionary .*5 rows instead"),
    ],
)
def test_files_that_do_not_fit_are_errors(tmp_path: Path, one: dict[str, int], two: dict[str, int], message: str):
    with pytest.raises(CheckpointError, match=message) as caught:
        merged(MergePlan(two_models(tmp_path, one, two)))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out.pt").exists()


def test_another_shape_is_an_error_with_renormalising_too(tmp_path: Path):
    with pytest.raises(CheckpointError, match="w is 3, but 2"):
        merged(MergePlan(two_models(tmp_path, {"w": 2}, {"w": 3}), missing="renormalise"))


def test_renormalising_shares_the_coefficient_out(tmp_path: Path):
    a, b = two_models(tmp_path, {"w": 1, "x": 1}, {"w": 1, "z": 1})
    [c] = saved(tmp_path, c={"w": torch.tensor([7.0]), "x": torch.tensor([5.0])})
    plan = MergePlan((a, b, c), coefficients=(0.5, 0.25, 0.25), missing="renormalise")
    report = merge(plan, tmp_path / "out.pt", progress=False)
    model = read_checkpoint(tmp_path / "out.pt")["model"]
    assert model["w"].tolist() == [3.0] and model["x"].tolist() == pytest.approx([7 / 3]) and "z" not in model
    assert (report["incomplete"], report["dropped"]) == (1, 1)
    assert any("x" in note for note in report["notes"]) and any("z" in note for note in report["notes"])


def test_renormalising_nothing_keeps_what_is_there(tmp_path: Path):
    plan = MergePlan(two_models(tmp_path, {"w": 1, "x": 1}, {"w": 1}), coefficients=(0.0, 1.0), missing="renormalise")
    assert merged(plan)["model"]["x"].tolist() == [1.0]


def test_the_running_rule_counts_the_sum_so_far(tmp_path: Path):
    a, b = two_models(tmp_path, {"w": 1, "x": 1}, {"w": 1})
    plan = MergePlan((a, b, a), coefficients=(0.5, 0.25, 0.25), missing="running")
    assert merged(plan)["model"]["x"].tolist() == [0.5 * 1.25 + 0.25]


@pytest.mark.parametrize("pattern", ["w$", "[a-w]$", "w"])
def test_skipped_names_stay_the_first_files(tmp_path: Path, pattern: str):
    paths = two_models(tmp_path, {"w": 1, "x": 1}, {"w": 2, "x": 1})
    model = merged(MergePlan(paths, skip=(pattern,)))["model"]
    assert model["w"].tolist() == [1.0] and model["x"].tolist() == [2.0]


def test_a_base_of_another_architecture_is_an_error(tmp_path: Path):
    a, b = two_models(tmp_path, {"w": 2}, {"w": 2})
    for model, message in (
        ({"v": torch.ones(2)}, "base.pt: lacks w"),
        ({"w": torch.ones(1)}, "base.pt: w is 1, but 2"),
    ):
        [base] = saved(tmp_path, base=model)
        with pytest.raises(CheckpointError, match=message):
            merged(MergePlan((a, b), "ties", base=base))


# ---- plans that cannot be


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"coefficients": (0.5,)}, "1 for 2 files"),
        ({"coefficients": (0.5, float("nan"))}, "not all finite"),
        ({"method": "magic"}, "unknown; choose one of weighted"),
        ({"method": "ties"}, "needs --base"),
        ({"base": Path("x.pt")}, "no use for it"),
        ({"method": "slerp", "coefficients": (0.5, 0.6)}, "must sum up to 1"),
        ({"options": {"density": 0.5}}, "has no such option"),
        ({"method": "ties", "base": Path("a.pt"), "options": {"density": 0.0}}, "more than 0"),
        ({"method": "dare", "base": Path("a.pt"), "options": {"seed": 0.5}}, "whole number"),
        ({"missing": "ignore"}, "choose one of error"),
        ({"source": "head"}, "choose one of model"),
        ({"method": "slerp", "missing": "running"}, "weighted only"),
        ({"skip": ("(",)}, "no regular expression"),
        ({"paths": ()}, "nothing to merge"),
        ({"keep": ("model",)}, "can be kept"),
    ],
)
def test_plans_that_contradict_themselves_are_refused(
    files: tuple[Path, ...], tmp_path: Path, changes: dict[str, Any], message: str
):
    with pytest.raises(ConfigError, match=message):
        merge(replace(MergePlan(files), **changes), tmp_path / "out.pt", progress=False)


def test_three_files_have_no_arc(files: tuple[Path, ...]):
    with pytest.raises(ConfigError, match="merges two files, not 3"):
        merged(MergePlan((*files, files[0]), "slerp"))


def test_a_missing_file_is_named(files: tuple[Path, ...]):
    with pytest.raises(CheckpointError, match=r"gone\.pt: no such file"):
        merged(MergePlan((files[0], files[0].with_name("gone.pt"))))


def test_outputs_in_the_way_are_refused(files: tuple[Path, ...], tmp_path: Path):
    (tmp_path / "link.pt").symlink_to(files[1])
    for output in (files[0], tmp_path / "link.pt", tmp_path):
        with pytest.raises(ConfigError, match="choose another name"):
            merge(MergePlan(files), output, progress=False)
    with pytest.raises(ConfigError, match="folder does not exist"):
        merge(MergePlan(files), tmp_path / "gone" / "out.pt", progress=False)
    (tmp_path / "out.pt").write_text("mine")
    with pytest.raises(ConfigError, match="--overwrite"):
        merge(MergePlan(files), tmp_path / "out.pt", progress=False, overwrite=False)
    assert (tmp_path / "out.pt").read_text() == "mine"


def test_numbers_that_the_first_files_type_cannot_hold_are_refused(tmp_path: Path):
    paths = saved(tmp_path, a={"w": torch.ones(1).half()}, b={"w": torch.tensor([1e6])})
    with pytest.raises(CheckpointError, match=r"w: comes out as 5e\+05, which torch.float16"):
        merged(MergePlan(paths))


# ---- the file


@pytest.mark.parametrize("name", ["out.pt", "out.safetensors"])
@pytest.mark.parametrize("bytes_before", [0, 100])
def test_a_full_disk_leaves_the_old_file_and_nothing_else(
    files: tuple[Path, ...], name: str, bytes_before: int, monkeypatch: pytest.MonkeyPatch
):
    output = files[0].with_name(name)
    output.write_text("old")
    before = sorted(output.parent.iterdir())
    opened = Path.open

    class Full:
        """A file on a disk with little room."""

        def __init__(self, file: Any) -> None:
            self.file = file

        def __getattr__(self, attribute: str) -> Any:
            return getattr(self.file, attribute)

        def __enter__(self) -> Full:
            return self

        def __exit__(self, *_: object) -> None:
            self.file.close()

        def write(self, content: Any) -> int:
            if self.file.tell() + len(content) > bytes_before:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return self.file.write(content)

    def limited(path: Path, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        file = opened(path, mode, *args, **kwargs)
        return Full(file) if mode == "wb" else file

    monkeypatch.setattr(Path, "open", limited)
    with pytest.raises(OSError, match="No space left") as caught:
        merge(MergePlan(files), output, progress=False)
    assert caught.value.filename == str(output)
    assert output.read_text() == "old" and sorted(output.parent.iterdir()) == before


def test_torch_reads_the_file_in_every_way(files: tuple[Path, ...], tmp_path: Path):
    merge(MergePlan(files), tmp_path / "out.pt", progress=False)
    torch.serialization.add_safe_globals([argparse.Namespace])
    try:
        whole, mapped = (torch.load(tmp_path / "out.pt", weights_only=True, mmap=mmap) for mmap in (False, True))
    finally:
        torch.serialization.clear_safe_globals()
    assert same_model(whole["model"], mapped["model"])
    assert all(each.data_ptr() % 64 == 0 for each in mapped["model"].values())
    assert is_intact(tmp_path / "out.pt") and zipfile.is_zipfile(tmp_path / "out.pt")


def test_other_programs_read_the_safetensors(files: tuple[Path, ...], tmp_path: Path):
    from safetensors.torch import load_file

    merge(MergePlan(files), tmp_path / "out.safetensors", progress=False)
    merge(MergePlan(files), tmp_path / "out.pt", progress=False)
    expected, tensors = read_checkpoint(tmp_path / "out.pt"), load_file(tmp_path / "out.safetensors")
    assert torch.equal(tensors["turned"], expected["model"]["turned"])
    assert torch.equal(tensors["extra_state/ema/half"], expected["extra_state"]["ema"]["half"])
    assert same_model(read_checkpoint(tmp_path / "out.safetensors")["model"], expected["model"])


def test_safetensors_can_be_merged(files: tuple[Path, ...], tmp_path: Path):
    merge(MergePlan(files[:1]), tmp_path / "one.safetensors", progress=False)
    expected = merged(MergePlan(files))["model"]
    assert same_model(merged(MergePlan((tmp_path / "one.safetensors", files[1])))["model"], expected)


def test_the_result_tells_what_it_was_made_of(files: tuple[Path, ...], tmp_path: Path):
    first = merged(MergePlan(files, coefficients=(0.25, 0.75)))
    told = provenance(first)
    assert told is not None and json.loads(json.dumps(told)) == told
    assert (told["method"], told["source"], told["tensors"]["merged"]) == ("weighted", "model", 9)
    for entry, path, coefficient in zip(told["files"], files, (0.25, 0.75), strict=True):
        assert entry["path"] == str(path) and entry["coefficient"] == coefficient
        assert entry["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    again = merged(MergePlan((tmp_path / "out.pt", files[0]), "dare", base=files[1], options={"seed": 3}), "more.pt")
    more = provenance(again)
    assert more is not None and more["files"][0]["merge"] == told and "merge" not in more["files"][1]
    assert more["options"] == {"density": 0.2, "seed": 3.0} and more["base"]["path"] == str(files[1])
    assert provenance(read_checkpoint(files[0])) is None


def test_the_inputs_are_not_changed(files: tuple[Path, ...]):
    before = [path.read_bytes() for path in files]
    for source in ("model", "ema"):
        merged(MergePlan(files, source=source))
    assert [path.read_bytes() for path in files] == before


# ---- memory


def test_released_tensors_leave_memory_and_come_back(tmp_path: Path):
    torch.save({"model": {"w": torch.arange(4_000_000.0)}}, tmp_path / "a.pt")
    file = MappedFile(tmp_path / "a.pt")
    tensor = file.state["model"]["w"]

    def held() -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("RssFile")) * 1024

    if not Path("/proc/self/maps").exists():
        pytest.skip("memory maps cannot be read on this system")
    total = float(tensor.sum(dtype=torch.float64))
    before = held()
    file.release(tensor)
    assert held() < before - 12_000_000
    assert float(tensor.sum(dtype=torch.float64)) == total


def test_only_tensors_in_the_file_are_released(tmp_path: Path):
    torch.save({"model": {"w": torch.ones(30_000)}}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    file = MappedFile(tmp_path / "old.pt")
    other = torch.ones(30_000)
    for tensor in (file.state["model"]["w"], other, torch.zeros(0)):
        file.release(tensor)
    assert file.state["model"]["w"].unique().tolist() == other.unique().tolist() == [1.0]
