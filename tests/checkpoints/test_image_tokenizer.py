"""Files of the released VQGAN's layout: read, written, refused."""

from __future__ import annotations

import pickle
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from made_files import Payload

from unival_plugin.checkpoints.image_tokenizer import MAX_CONFIG_BYTES, read_image_tokenizer, write_image_tokenizer
from unival_plugin.errors import CheckpointError, ConfigError
from unival_plugin.modules.vqgan import VQGAN, VQGANConfig

CONFIG = VQGANConfig(
    embed_dim=32, n_embed=12, z_channels=32, resolution=8, ch=32, ch_mult=(1, 2), num_res_blocks=1,
    attn_resolutions=(4,),
)  # fmt: skip
YAML = """\
model:
  base_learning_rate: 4.5e-06
  target: taming.models.vqgan.GumbelVQ
  params:
    kl_weight: 1.0e-08
    embed_dim: 32
    n_embed: 12
    monitor: val/rec_loss
    temperature_scheduler_config:
      target: taming.lr_scheduler.LambdaWarmUpCosineScheduler
      params: {warm_up_steps: 0, max_decay_steps: 1000001, lr_start: 0.9, lr_max: 0.9, lr_min: 1.0e-06}
    ddconfig:
      double_z: false
      z_channels: 32
      resolution: 8
      in_channels: 3
      out_ch: 3
      ch: 32
      ch_mult: [1, 2]
      num_res_blocks: 1
      attn_resolutions: [4]
      dropout: 0.0
    lossconfig:
      target: taming.modules.losses.vqperceptual.DummyLoss
"""


@pytest.fixture
def network() -> VQGAN:
    torch.manual_seed(1)
    return VQGAN(CONFIG).eval()


def trainer_state(network: VQGAN) -> dict[str, Any]:
    """What the released file holds beside the weights, in small."""
    losses = {
        "loss.discriminator.main.0.weight": torch.rand(2, 2),
        "loss.perceptual_loss.lin0.model.1.weight": torch.rand(1),
    }
    return {
        "epoch": 3, "global_step": 17, "pytorch-lightning_version": "1.0.8",
        "callbacks": {"monitor": {"best_model_score": torch.tensor(0.3), "best_model_path": "/home/authors/x.ckpt"}},
        "optimizer_states": [{"state": {0: {"step": 4, "exp_avg": torch.rand(3)}}, "param_groups": [{"lr": 4.5e-6}]}],
        "lr_schedulers": [], "state_dict": {**network.state_dict(), **losses}, "hparams_name": "kwargs",
    }  # fmt: skip


class Files:
    """The two files in a folder."""

    def __init__(self, folder: Path, network: VQGAN) -> None:
        self.weights, self.config = folder / "last.ckpt", folder / "model.yaml"
        self.save(trainer_state(network))
        self.config.write_text(YAML)

    def save(self, content: Any) -> None:
        torch.save(content, self.weights)

    def change(self, old: str, new: str) -> None:
        text = self.config.read_text()
        assert old in text
        self.config.write_text(text.replace(old, new))

    def read(self) -> VQGAN:
        return read_image_tokenizer(self.weights, self.config)

    def refusal(self) -> str:
        """The one line that reading ends with."""
        with pytest.raises(CheckpointError) as caught:
            self.read()
        message = str(caught.value)
        assert "\n" not in message
        assert len(message) < 1000
        assert message.startswith((str(self.weights), str(self.config)))
        return message


@pytest.fixture
def files(tmp_path: Path, network: VQGAN) -> Files:
    return Files(tmp_path, network)


def same(first: VQGAN, second: VQGAN) -> bool:
    ours, others = first.state_dict(), second.state_dict()
    return ours.keys() == others.keys() and all(torch.equal(ours[key], others[key]) for key in ours)


class TestReleasedLayout:
    def test_it_is_read_and_draws(self, files: Files, network: VQGAN) -> None:
        read = files.read()
        assert read.config == CONFIG
        assert same(read, network)
        assert not read.training
        codes = torch.arange(12).view(1, 3, 4)
        assert read.decode(codes).shape == (1, 3, 6, 8)
        assert torch.equal(read.decode(codes), network.decode(codes))

    def test_half_precision_becomes_float32(self, files: Files, network: VQGAN) -> None:
        files.save({"state_dict": {key: tensor.half() for key, tensor in network.state_dict().items()}})
        assert {tensor.dtype for tensor in files.read().state_dict().values()} == {torch.float32}

    def test_the_file_may_vanish_after_reading(self, files: Files, network: VQGAN) -> None:
        read = files.read()
        files.weights.write_bytes(b"")
        assert same(read, network)

    def test_it_can_be_trained_on(self, files: Files) -> None:
        read = files.read().train()
        sum(value.square().mean() for value in read(torch.zeros(1, 3, 8, 8), 1.0)).backward()
        assert read.encoder.conv_in.weight.grad is not None

    @pytest.mark.parametrize("zipped", [True, False])
    def test_classes_of_the_trainer_are_not_imported(
        self, files: Files, network: VQGAN, monkeypatch: pytest.MonkeyPatch, zipped: bool
    ) -> None:
        state = trainer_state(network)
        with monkeypatch.context() as patch:
            trainer = _imported_trainer(patch)
            state["callbacks"] = {trainer.ModelCheckpoint: state["callbacks"]["monitor"]}
            state["kept"] = trainer.ModelCheckpoint()
            torch.save(state, files.weights, _use_new_zipfile_serialization=zipped)
        allowed = set(torch.serialization.get_safe_globals())
        assert same(files.read(), network)
        assert "pytorch_lightning" not in sys.modules
        assert set(torch.serialization.get_safe_globals()) == allowed

    def test_other_names_of_the_same_class_do(self, files: Files) -> None:
        files.change("taming.models.vqgan.GumbelVQ", "ofa.models.taming.models.vqgan.GumbelVQ")
        assert files.read().config == CONFIG


def _imported_trainer(patch: pytest.MonkeyPatch) -> types.ModuleType:
    """A module that is called as the trainer's module of callbacks, for as long as a file is written."""
    name = "pytorch_lightning.callbacks.model_checkpoint"
    module: Any = types.ModuleType(name)
    module.ModelCheckpoint = type("ModelCheckpoint", (), {"__module__": name})
    module.ModelCheckpoint.__init__ = lambda self: setattr(self, "monitor", "loss")
    parts = name.split(".")
    for count in range(1, len(parts)):
        patch.setitem(sys.modules, ".".join(parts[:count]), types.ModuleType(parts[count - 1]))
    patch.setitem(sys.modules, name, module)
    return module


class TestWriting:
    @pytest.mark.parametrize("changes", [{}, {"num_groups": 8, "dropout": 0.1, "attn_resolutions": ()}])
    def test_what_is_written_is_read(self, tmp_path: Path, changes: dict[str, Any]) -> None:
        network = VQGAN(VQGANConfig(**{**vars(CONFIG), **changes}))
        write_image_tokenizer(network, tmp_path / "last.ckpt", tmp_path / "model.yaml")
        read = read_image_tokenizer(tmp_path / "last.ckpt", tmp_path / "model.yaml")
        assert same(read, network)
        assert read.config == network.config
        assert sorted(path.name for path in tmp_path.iterdir()) == ["last.ckpt", "model.yaml"]

    def test_the_layout_is_the_released_one(self, tmp_path: Path, network: VQGAN) -> None:
        write_image_tokenizer(network, tmp_path / "last.ckpt", tmp_path / "model.yaml")
        released, written = (
            yaml.safe_load(YAML)["model"],
            yaml.safe_load((tmp_path / "model.yaml").read_text())["model"],
        )
        assert written["target"] == released["target"]
        assert written["params"] == {name: released["params"][name] for name in ("embed_dim", "n_embed", "ddconfig")}
        state = torch.load(tmp_path / "last.ckpt", weights_only=True)
        assert state["state_dict"].keys() == network.state_dict().keys()

    def test_a_failure_leaves_the_old_files(
        self, files: Files, network: VQGAN, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: Any, **__: Any) -> None:
            raise OSError("disk full")

        before = files.weights.read_bytes()
        monkeypatch.setattr(torch, "save", fail)
        with pytest.raises(OSError, match="disk full"):
            write_image_tokenizer(network, files.weights, files.config)
        assert files.weights.read_bytes() == before
        assert len(list(files.weights.parent.iterdir())) == 2

    def test_places_that_do_not_do_are_refused(self, tmp_path: Path, network: VQGAN) -> None:
        with pytest.raises(ConfigError, match="folder does not exist"):
            write_image_tokenizer(network, tmp_path / "gone" / "last.ckpt", tmp_path / "model.yaml")
        with pytest.raises(ConfigError, match="two files"):
            write_image_tokenizer(network, tmp_path / "x", tmp_path / "x")


class TestWeightsThatAreRefused:
    @pytest.mark.parametrize("zipped", [True, False])
    def test_a_file_with_a_payload(
        self, files: Files, network: VQGAN, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zipped: bool
    ) -> None:
        mark = tmp_path / "mark"
        monkeypatch.setenv("UNIVAL_TEST_MARK", str(mark))
        state = {**trainer_state(network), "callbacks": Payload()}
        torch.save(state, files.weights, _use_new_zipfile_serialization=zipped)
        assert "builtins.exec" in files.refusal()
        assert not mark.exists()

    def test_a_bare_pickle_with_a_payload(self, files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        mark = tmp_path / "mark"
        monkeypatch.setenv("UNIVAL_TEST_MARK", str(mark))
        files.weights.write_bytes(pickle.dumps(Payload()))
        assert "exec" in files.refusal()
        assert not mark.exists()

    def test_a_missing_file(self, files: Files) -> None:
        files.weights.unlink()
        assert "no such file" in files.refusal()

    def test_a_file_that_is_cut_short(self, files: Files) -> None:
        files.weights.write_bytes(files.weights.read_bytes()[:-5000])
        assert "copy it anew" in files.refusal()

    def test_no_weights(self, files: Files) -> None:
        files.save({"epoch": 3})
        assert "holds no weights" in files.refusal()

    def test_a_weight_that_lacks(self, files: Files, network: VQGAN) -> None:
        state = network.state_dict()
        del state["quantize.proj.bias"]
        files.save({"state_dict": state})
        assert "quantize.proj.bias" in files.refusal()

    def test_a_weight_of_another_network(self, files: Files, network: VQGAN) -> None:
        files.save({"state_dict": {**network.state_dict(), "decoder.bad\nname": torch.zeros(1)}})
        assert "decoder.bad?name" in files.refusal()

    @pytest.mark.parametrize(
        "tensor",
        [
            torch.zeros(11, 32),
            torch.zeros(12, 32).long(),
            torch.zeros(12, 32).to_sparse(),
            torch.zeros(12, 32, device="meta"),
        ],
    )
    def test_a_weight_of_another_kind(self, files: Files, network: VQGAN, tensor: torch.Tensor) -> None:
        files.save({"state_dict": {**network.state_dict(), "quantize.embed.weight": tensor}})
        assert "quantize.embed.weight" in files.refusal()


class TestSizesThatAreRefused:
    @pytest.mark.parametrize(
        ("old", "new", "reason"),
        [
            ("GumbelVQ", "VQModel", "'taming.models.vqgan.VQModel', and only a GumbelVQ"),
            ("taming.models.vqgan.GumbelVQ", "[GumbelVQ]", "model.target is a list"),
            ("    n_embed: 12\n", "", "model.params lacks n_embed"),
            ("      ch: 32\n", "", "model.params.ddconfig lacks ch"),
            ("model:", "other:", "the file lacks model"),
            (YAML, "", "the file is None"),
            ("n_embed: 12", "n_embed: 12\n    surprise: 1", "'surprise', which is not known"),
            ("ch: 32", "ch: 32\n      give_pre_end: true", "'give_pre_end', which is not known"),
            ("n_embed: 12", "n_embed: 12\n    remap: used.npy", "renames codes"),
            ("double_z: false", "double_z: true", "double_z is True"),
            ("in_channels: 3", "in_channels: 4", "in_channels is 4"),
            ("n_embed: 12", "n_embed: twelve", "n_embed must be a whole number"),
            ("n_embed: 12", "n_embed: -1", "n_embed must be a whole number"),
            ("n_embed: 12", "n_embed: 99999999999999999999", "n_embed must be a whole number"),
            ("n_embed: 12", "n_embed: 0x" + "f" * 9999, "n_embed must be a whole number"),
            ("in_channels: 3", "in_channels: 0x" + "f" * 9999, "in_channels is a int"),
            ("z_channels: 32", "z_channels: 1.5", "z_channels must be a whole number"),
            ("resolution: 8", "resolution: 7", "resolution"),
            ("ch_mult: [1, 2]", "ch_mult: 2", "ch_mult must be"),
            ("ch_mult: [1, 2]", "ch_mult: [1, 1000000]", "ch_mult must be"),
            ("ch_mult: [1, 2]", "ch_mult: [1, [2]]", "ch_mult must be"),
            ("dropout: 0.0", "dropout: .nan", "dropout must be"),
        ],
    )
    def test_wrong_missing_and_unknown_values(self, files: Files, old: str, new: str, reason: str) -> None:
        files.change(old, new)
        assert reason in files.refusal()

    def test_sizes_that_do_not_belong_to_the_weights(self, files: Files) -> None:
        files.change("n_embed: 12", "n_embed: 13")
        assert "quantize.proj.weight" in files.refusal()

    def test_sizes_within_the_limits_that_need_gigabytes(self, files: Files) -> None:
        files.change("ch: 32", "ch: 512")
        files.change("ch_mult: [1, 2]", "ch_mult: [16, 16]")
        assert "more than 200,000,000 weights" in files.refusal()

    @pytest.mark.parametrize(
        "text",
        [
            "model: !!python/object/apply:os.system ['exit 3']",
            "model: !!python/name:os.system",
            "model: {a: &a [1], b: *a}",
            "a: &a {x: 1}\nb: {<<: [*a, *a]}",
            "model: [",
            "n: " + "9" * 10000,
            "d: 2001-99-99",
            "\x00",
        ],
    )
    def test_what_is_not_plain_yaml(self, files: Files, text: str) -> None:
        files.config.write_text(text)
        message = files.refusal()
        assert "not plain YAML" in message or "write the values out" in message

    @pytest.mark.parametrize("text", ["[" * 10000, "model: " + "{a: " * 4000, "? " * 5000])
    def test_deep_nesting(self, files: Files, text: str) -> None:
        files.config.write_text(text)
        assert "nested more than" in files.refusal()

    def test_a_file_that_is_too_large(self, files: Files) -> None:
        files.config.write_text(YAML + "#" * MAX_CONFIG_BYTES)
        assert "larger than" in files.refusal()

    def test_bytes_that_are_no_text(self, files: Files) -> None:
        files.config.write_bytes(b"model: \xff\xfe\x00")
        assert "not plain YAML" in files.refusal()

    def test_a_missing_file_and_a_folder(self, files: Files) -> None:
        files.config.unlink()
        assert "no such file" in files.refusal()
        files.config.mkdir()
        assert "is a directory" in files.refusal()
