"""Options that all UnIVAL tasks share; annotations are real objects because fairseq derives flags from them."""

from dataclasses import dataclass, field
from typing import Any, Optional

from fairseq.dataclass import ChoiceEnum, FairseqDataclass


def option(default: Any, help: str) -> Any:
    """A field of a task's dataclass with its help text."""
    return field(default=default, metadata={"help": help})


@dataclass
class UnIVALTaskConfig(FairseqDataclass):
    """Flags of every task; names and defaults are the original's (UnIVAL, ``tasks/ofa_task.py``), our own come last."""

    data: Optional[str] = option(
        None, "files: train_1.tsv[,train_2.tsv,…],valid.tsv (epoch e trains on file e, cyclically); one file evaluates"
    )
    selected_cols: Optional[str] = option(
        None, "columns to read, counted from 0, in the order the task needs, e.g. 0,4,2"
    )
    bpe: Optional[str] = option(None, "tokenizer: gpt2 (default) or sentencepiece")
    bpe_dir: Optional[str] = option(None, "folder with GPT-2's encoder.json, vocab.bpe and fairseq's dict.txt")
    max_source_positions: int = option(1024, "longest source in tokens")
    max_target_positions: int = option(1024, "longest target in tokens")
    max_src_length: int = option(128, "longest source text in words")
    max_tgt_length: int = option(30, "longest target text in words")
    code_dict_size: int = option(8192, "number of image-code symbols in the dictionary")
    patch_image_size: int = option(480, "side in pixels to which pictures are resized")
    orig_patch_image_size: int = option(256, "picture size of pretraining, for --interpolate-position")
    num_bins: int = option(1000, "number of coordinate symbols in the dictionary")
    imagenet_default_mean_and_std: bool = option(False, "normalise with ImageNet's mean and deviation instead of 0.5")
    constraint_range: Optional[str] = option(None, "only ids 0..3 and start..end-1 may be generated: start,end")
    zero_shot: bool = option(
        False, "constrain the search after the softmax (range, answers), as the original's zero-shot evaluation"
    )
    read_from_img_path: bool = option(False, "picture cells are paths below --image-dir instead of base64")
    image_dir: Optional[str] = option(None, "folder that paths of pictures, films and sounds are relative to")
    use_dataaug: bool = option(False, "augment training pictures (random size, crop and operations)")
    sample_patch_num: Optional[int] = option(None, "keep this many randomly drawn patches of a picture while training")
    patch_frame_size: int = option(224, "films: side in pixels to which frames are cropped; not used for others")
    num_frames: int = option(4, "films: frames taken of each; not used for others")
    sample_type: str = option(
        "rand",
        "films: which frames: rand (one at random from each of --num-frames parts; the middle ones in evaluation), "
        "middle, or fpsX such as fps1 (the middle one of every 1/X seconds, at most --num-frames)",
    )
    max_audio_len: int = option(480_000, "sounds: samples given to the network, at 48 kHz 10 seconds")
    audio_sample_rate: bool = option(
        False, "sounds: resample to --sample-rate as the original does, which takes the first channel only"
    )
    sample_rate: int = option(
        48_000, "sounds: Hz to which files of other rates are resampled; 0: never, as the original"
    )
    audio_cfg: Optional[str] = option(None, "accepted for old scripts: its one useful entry is --max-audio-len")
    ast: bool = option(False, "accepted for old scripts: the original does not use it")
    use_ema_weights_to_init_param: bool = option(
        False, "start training from the averaged weights (EMA) of --restore-file, where it holds an average"
    )
    use_latest_weights_to_init_ema: bool = option(
        False, "with --store-ema: start the average from the latest weights of --restore-file, not from its average"
    )
    ema_eval: bool = option(False, "fairseq-validate and fairseq-generate: evaluate the checkpoint's averaged weights")

    sentencepiece_model: Optional[str] = option(None, "model file of --bpe sentencepiece")
    row_order: ChoiceEnum(["shuffled", "file"]) = option(  # type: ignore[valid-type]
        "shuffled", "order of training rows: shuffled anew each epoch, or as in the file (files shuffled off-line)"
    )
    on_bad_row: ChoiceEnum(["raise", "skip"]) = option(  # type: ignore[valid-type]
        "raise", "what to do with a row that cannot be used: stop with its place, or leave it out, count and report it"
    )
    random_eval: bool = option(
        False, "draw frames and parts of long sounds at random in evaluation as well, as the original does"
    )
    max_media_seconds: float = option(7200.0, "refuse films and sounds that are longer, before decoding them")
    max_image_pixels: int = option(178_956_970, "refuse pictures with more pixels than this before decoding them")
    autocast: ChoiceEnum(["none", "bf16", "fp16"]) = option(  # type: ignore[valid-type]
        "none", "compute in this precision where it is safe, weights stay fp32 (bf16 on CPU and GPU; fp16 on GPU)"
    )
