"""Options of multitask pretraining; annotations are real objects because fairseq derives flags from them."""

from dataclasses import dataclass
from typing import Optional

from fairseq.dataclass import ChoiceEnum

from .config import UnIVALTaskConfig, option

_EVERY = "one of its rows is read after every so many rows of data"
_NO_EFFECT = "accepted for old scripts, has no effect"
_TYPES = f"{_NO_EFFECT}: the type of a row says what it is about"
_MASKS = f"{_NO_EFFECT}: nothing is masked, in the original neither"


@dataclass
class UnifyConfig(UnIVALTaskConfig):
    """Flags of ``--task unify_task``; names and defaults are the original's, our own come last."""

    data: Optional[str] = option(
        None, "files of rows to train on: train_1.tsv[,train_2.tsv,…] (epoch e reads file e, cyclically)"
    )
    neg_sample_dir: Optional[str] = option(
        None,
        "folder with all_captions.txt, object.txt and type2ans.json, which wrong captions and answers come from; "
        "dataset_tools/negative_samples.py makes it",
    )
    neg_captions_video: Optional[str] = option(
        None, "file with captions that may be wrong for a film, one a line; default: those of pictures"
    )
    neg_captions_audio: Optional[str] = option(
        None, "file with captions that may be wrong for a sound, one a line; default: those of pictures"
    )
    max_image_size: int = option(512, "pixels that the bins of a coordinate span; at least --patch-image-size")
    image_text_data: Optional[str] = option(None, "file of rows to be mixed in, e.g. captions from the web")
    image_text_cnt: int = option(2, f"--image-text-data: {_EVERY}")
    image_text_vqa_data: Optional[str] = option(None, "file of rows to be mixed in, e.g. questions about pictures")
    image_text_vqa_cnt: int = option(2, f"--image-text-vqa-data: {_EVERY}")
    image_text_ground_data: Optional[str] = option(None, "file of rows to be mixed in, e.g. regions of pictures")
    image_text_ground_cnt: int = option(2, f"--image-text-ground-data: {_EVERY}")
    video_data: Optional[str] = option(None, "file of rows to be mixed in, in a second batch of each step: films")
    video_cnt: int = option(2, f"--video-data: {_EVERY}")
    video_selected_cols: Optional[str] = option(None, "--selected-cols of --video-data, where they are others")
    video_text_data: Optional[str] = option(None, "file of rows to be mixed in, in the second batch: more films")
    video_text_cnt: int = option(2, f"--video-text-data: {_EVERY}")
    audio_data: Optional[str] = option(None, "file of rows to be mixed in: sounds")
    audio_cnt: int = option(2, f"--audio-data: {_EVERY}")
    audio_selected_cols: Optional[str] = option(None, "--selected-cols of --audio-data, where they are others")
    audio_text_data: Optional[str] = option(None, "file of rows to be mixed in: more sounds")
    audio_text_cnt: int = option(2, f"--audio-text-data: {_EVERY}")
    audio_with_video: bool = option(False, "rows of sounds go into the second batch of a step, not into the first")
    no_image_transform: bool = option(False, "pictures are only cropped to their middle: neither resized nor changed")
    pretrain_seed: int = option(7, "what the operations of --repeat-operations are drawn from, with the epoch")
    only_video_data: Optional[str] = option(None, _TYPES)
    only_audio_data: Optional[str] = option(None, _TYPES)
    mask_ratio: float = option(0.3, _MASKS)
    random_ratio: float = option(0.0, _MASKS)
    keep_ratio: float = option(0.0, _MASKS)
    mask_length: str = option("span-poisson", _MASKS)
    poisson_lambda: float = option(3.0, _MASKS)
    replace_length: int = option(1, _MASKS)
    other_data_cnt: int = option(8, _NO_EFFECT)
    init_image_text_data: Optional[str] = option(None, _NO_EFFECT)
    init_text_data: Optional[str] = option(None, _NO_EFFECT)
    init_dataset_epoch: int = option(3, _NO_EFFECT)
    text_selected_cols: Optional[str] = option(None, _NO_EFFECT)
    image_selected_cols: Optional[str] = option(None, _NO_EFFECT)
    detection_selected_cols: Optional[str] = option(None, _NO_EFFECT)

    valid_data: Optional[str] = option(
        None, "file of rows to validate on; default: the last file of data, which is trained on as well"
    )
    augmentation: ChoiceEnum(["all", "none"]) = option(  # type: ignore[valid-type]
        "all",
        "all: training pictures and films are resized, cropped and changed at random, as in the original; none: they "
        "are treated as in evaluation, which suits small pictures and little training",
    )
    repeat_operations: bool = option(
        False,
        "change all pictures of an epoch by the same two operations, as the original does, which seeds their draws anew"
        " for every row; otherwise they are drawn for each",
    )
