"""Untrained small models of every task in files of fairseq's layout."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from fairseq.tasks import TASK_DATACLASS_REGISTRY, TASK_REGISTRY
from omegaconf import OmegaConf

from unival_plugin.unival.model.registration import UnIVALModel, UnIVALModelConfig

SIZES = {
    "encoder_embed_dim": 16, "encoder_ffn_embed_dim": 16, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
    "encoder_layers": 1, "decoder_layers": 1,
}  # fmt: skip
COLOURS = ["red", "green", "blue", "light red"]
TASKS: dict[str, dict[str, Any]] = {
    "caption": {"eval_args": '{"beam": 2, "max_len_b": 6}'},
    "vqa_gen": {"prompt_type": "prev_output", "ans2label_dict": '{"red": 0, "green": 1, "blue": 2, "light red": 3}'},
    "snli_ve": {"prompt_type": "prev_output", "add_caption": True, "val_inference_type": "beamsearch"},
    "refcoco": {"max_image_size": 64, "eval_args": '{"beam": 3}'},
    "video_caption": {"eval_args": '{"beam": 2, "max_len_b": 6}', "patch_frame_size": 32},
    "audio_caption": {"eval_args": '{"beam": 2, "max_len_b": 6}', "max_audio_len": 9600},
}
TRUNKS = {"video_caption": {"video_encoder_name": "timm_tiny"}, "audio_caption": {"audio_encoder_name": "pann_tiny"}}
BINS = 16


def make_checkpoint(digits: Path, folder: Path, task: str, **options: Any) -> Path:
    """``folder/<task>.pt``, a model with weights of its own seed; the tokenizer lies beside it."""
    shutil.copy(digits / "digits.model", folder)
    config = TASK_DATACLASS_REGISTRY[task](
        data="gone.tsv", bpe="sentencepiece", sentencepiece_model=str(folder / "digits.model"), code_dict_size=4,
        num_bins=BINS, patch_image_size=32, max_source_positions=64, max_target_positions=64,
        **{**TASKS[task], **options},
    )  # fmt: skip
    task_cfg = OmegaConf.structured(config)
    OmegaConf.set_struct(task_cfg, False)
    task_cfg._name = task
    sizes = {**SIZES, **TRUNKS.get(task, {}), "max_source_positions": 64, "max_target_positions": 64}
    model_cfg = OmegaConf.structured(UnIVALModelConfig(_name="unival_tiny", **sizes))
    torch.manual_seed(0)
    built = TASK_REGISTRY[task].setup_task(task_cfg)
    model = UnIVALModel.build_model(model_cfg, built)
    if not task.endswith("caption"):
        _make_decided(model)
    cfg = {"task": OmegaConf.to_container(task_cfg, enum_to_str=True), "model": OmegaConf.to_container(model_cfg)}
    torch.save({"cfg": cfg, "args": None, "model": model.state_dict()}, folder / f"{task}.pt")
    return folder / f"{task}.pt"


@torch.no_grad()
def _make_decided(model: torch.nn.Module) -> None:
    """Makes answers differ from row to row: fresh weights say the same about everything, or the start symbol."""
    for name, weight in model.named_parameters():
        if name.endswith("embed_tokens.weight"):
            weight[:4] = 0  # the special symbols are never preferred
        elif weight.dim() == 2 and "embed" not in name:
            weight *= 12
