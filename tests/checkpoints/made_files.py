"""Files that the tests of checkpoints make: one as the original's trainer writes it, and one with a payload."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf


class Payload:
    """A pickled object that makes a file named by an environment variable when it is executed."""

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, ("import os; open(os.environ['UNIVAL_TEST_MARK'], 'w').close()",)


SIZES = {
    "encoder_embed_dim": 32, "encoder_ffn_embed_dim": 64, "encoder_layers": 1, "decoder_layers": 1,
    "encoder_attention_heads": 2, "decoder_attention_heads": 2, "code_image_size": 32, "image_bucket_size": 4,
    "token_bucket_size": 16, "max_source_positions": 32, "max_target_positions": 64,
}  # fmt: skip


def released_state(digits: Path, task: str = "caption", average: bool = True) -> dict[str, Any]:
    """A file as the original's trainer writes it: fp16, merged options, others' paths, unknown options."""
    from unival_plugin.unival.model.registration import UnIVALModel
    from unival_plugin.unival.tasks.caption import CaptionConfig, CaptionTask

    task_options = {
        "_name": task, "data": "/home/authors/train.tsv,/home/authors/val.tsv", "selected_cols": "0,4,2",
        "bpe": "sentencepiece", "bpe_dir": "../../utils/BPE", "sentencepiece_model": str(digits / "digits.model"),
        "code_dict_size": 8, "num_bins": 8, "patch_image_size": 32, "max_source_positions": 32,
        "max_target_positions": 64, "eval_cider": False, "eval_args": '{"beam": 2, "max_len_b": 6}',
        "image_dir": "/home/authors/pictures", "strange_new_option": [1, 2], "num_frames": "four",
        "eval_cider_cached_tokens": None,
    }  # fmt: skip
    merged = {
        **SIZES, **task_options, "_name": "unival_tiny", "arch": "unival_tiny", "task": task, "criterion": "other",
        "resnet_model_path": "/home/authors/resnet101.pth", "unknown_model_option": 1,
    }  # fmt: skip
    known = {key: value for key, value in task_options.items() if key not in ("strange_new_option", "num_frames")}
    task_cfg = OmegaConf.structured(CaptionConfig)
    OmegaConf.set_struct(task_cfg, False)
    task_cfg.merge_with(known)
    torch.manual_seed(3)
    network = argparse.Namespace(**{**merged, "resnet_model_path": None})
    model = UnIVALModel.build_model(network, CaptionTask.setup_task(task_cfg))
    weights = {key: value.half() if value.is_floating_point() else value for key, value in model.state_dict().items()}
    extra: dict[str, Any] = {"train_iterator": {"version": 2, "epoch": 5, "iterations_in_epoch": 0, "shuffle": True}}
    if average:
        averaged = {key: value * 0.5 if value.is_floating_point() else value for key, value in weights.items()}
        extra["ema"] = averaged
        extra["ema_fp32_params"] = {
            key: value.float() if value.is_floating_point() else value for key, value in averaged.items()
        }
    cfg = {
        "_name": None,
        "common": {"fp16": True, "user_dir": "../../ofa_module", "seed": 7},
        "checkpoint": {"save_on_cuda": True, "use_ema_weights_to_init_param": False, "restore_file": "x.pt"},
        "model": argparse.Namespace(**merged),
        "task": task_options,
        "criterion": {"_name": "adjust_label_smoothed_encouraging_loss", "label_smoothing": 0.1, "log_end": 0.75},
        "lr_scheduler": {"_name": "polynomial_decay", "warmup_ratio": 0.06, "lr": [1e-5]},
        "optimizer": {"_name": "adam", "adam_betas": "(0.9,0.999)"},
    }
    return {"args": None, "cfg": cfg, "model": weights, "criterion": None, "extra_state": extra}
