"""The tasks for films and sounds, each its picture twin with another medium (UnIVAL, ``tasks/mm_tasks``).

Registered as ``video_caption``, ``video_vqa_gen`` and ``audio_caption``.
"""

from pathlib import Path
from typing import Any

from fairseq.tasks import register_task

from ...data.audio import SoundOptions
from ...data.audio_readers import AudioLimits
from ...data.media import Films, Sounds
from ...data.video import FilmEvalTransform, FilmTrainTransform, FrameSampling
from ...data.video_readers import VideoLimits
from .base import UnIVALTask, normalisation
from .caption import CaptionConfig, CaptionTask
from .vqa_gen import VqaGenConfig, VqaGenTask


def films(cfg: Any, training: bool, transform: FilmEvalTransform | FilmTrainTransform) -> Films:
    """Films as the flags say; random frames when ``training``."""
    return Films(
        transform,
        FrameSampling(cfg.num_frames, str(cfg.sample_type), cfg.num_frames),
        **_common(cfg, training),
        limits=VideoLimits(max_seconds=cfg.max_media_seconds),
    )


def sounds(cfg: Any, training: bool) -> Sounds:
    """Sounds as the flags say; a random part of long ones when ``training``."""
    channels = "first" if cfg.audio_sample_rate else "mean"
    return Sounds(
        SoundOptions(cfg.max_audio_len, cfg.sample_rate or None, channels, int16=not cfg.audio_sample_rate),
        **_common(cfg, training),
        limits=AudioLimits(max_seconds=cfg.max_media_seconds),
    )


def _common(cfg: Any, training: bool) -> dict[str, Any]:
    return {
        "folder": Path(cfg.image_dir) if cfg.image_dir else None,
        "picture_size": cfg.patch_image_size,
        "draws": training or bool(cfg.random_eval),
    }


class FilmTask(UnIVALTask):
    """What tasks for films have in common."""

    def medium(self, training: bool = False) -> Films:
        """Films, augmented when ``training`` and ``--use-dataaug``."""
        make = FilmTrainTransform if training and self.cfg.use_dataaug else FilmEvalTransform
        return films(self.cfg, training, make(self.cfg.patch_frame_size, *normalisation(self.cfg)))


class SoundTask(UnIVALTask):
    """What tasks for sounds have in common."""

    def medium(self, training: bool = False) -> Sounds:
        """See :func:`sounds`."""
        return sounds(self.cfg, training)


@register_task("video_caption", dataclass=CaptionConfig)
class VideoCaptionTask(FilmTask, CaptionTask):
    """Captions for films."""

    columns = ("id", "film", "caption")
    question = " what does the video describe?"


@register_task("video_vqa_gen", dataclass=VqaGenConfig)
class VideoVqaGenTask(FilmTask, VqaGenTask):
    """Questions about films with answers from a set."""

    columns = ("id", "film", "question", "answers", "objects")


@register_task("audio_caption", dataclass=CaptionConfig)
class AudioCaptionTask(SoundTask, CaptionTask):
    """Captions for sounds; the original asks what the video describes in finetuning, too."""

    columns = ("id", "sound", "caption")
    question = " what does the video describe?"
