"""Rows of captions of sounds: AudioCaps and Clotho."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from unival_cli.row_writer import Item, LeftOut, Record

from .media_parts import SOUNDS, WITHOUT_CAPTION, NamedFiles, coco_format
from .parts import Builder, Document, Split, bad_file, captions_document, joined, read_csv, sentence

CAPTIONS = "data/ofa/audio_data/caption_data"
"""Where the scripts look for rows."""

FOLDER = "sounds"
SOUND_NOTE = f"""Sounds (wav, flac, mp3, ogg, m4a ...) lie anywhere below; if there is a folder {FOLDER}/, only those in
it count. Rows have paths that start in the raw folder: train with AUDIO_DIR=RAW."""

# -------------------------------------------------------------------------------- AudioCaps

AUDIOCAPS_COLUMNS = ("audiocap_id", "youtube_id", "start_time", "caption")
CLIP_SECONDS = 10


def _clip_names(video: str, start: str, where: str) -> list[str]:
    """Names that downloaders give to ten seconds of a film of YouTube."""
    try:
        first = float(start)
    except ValueError as error:
        raise bad_file(f"{where}: start_time {start[:20]!a} is no number: download the file again") from error
    last = first + CLIP_SECONDS
    spans = [f"{first:g}", f"{first:g}_{last:g}", f"{first:.3f}_{last:.3f}", f"{1000 * first:.0f}_{1000 * last:.0f}"]
    return [video, f"Y{video}", *(f"{prefix}{video}_{span}" for span in spans for prefix in ("", "Y"))]


def audiocaps_rows(raw: Path, part: str) -> Iterator[Item]:
    """A row a caption."""
    sounds = NamedFiles(raw, FOLDER, SOUNDS)
    for where, row in read_csv(raw / f"{part}.csv", AUDIOCAPS_COLUMNS):
        if not (text := sentence(row["caption"])):
            yield LeftOut(WITHOUT_CAPTION)
            continue
        own, video = row["audiocap_id"], row["youtube_id"]
        sound = sounds.find(where, *_clip_names(video, row["start_time"], where), own)
        yield Record((own, video, text, "", sound), where)


def audiocaps_joined_rows(raw: Path, part: str) -> Iterator[Item]:
    """A row a sound, whose id is the film's name; the file has a line for each of its five captions."""
    captions: dict[tuple[str, str], list[str]] = {}
    places: dict[tuple[str, str], tuple[str, list[str]]] = {}
    for where, row in read_csv(raw / f"{part}.csv", AUDIOCAPS_COLUMNS):
        key = (row["youtube_id"], row["start_time"])
        captions.setdefault(key, []).append(row["caption"])
        places.setdefault(key, (where, []))[1].append(row["audiocap_id"])
    sounds = NamedFiles(raw, FOLDER, SOUNDS)
    for (video, start), texts in captions.items():
        where, own = places[video, start]
        if text := joined(texts):
            sound = sounds.find(where, *_clip_names(video, start, where), *own)
            yield Record((video, video, text, "", sound), where)
        else:
            yield LeftOut(WITHOUT_CAPTION)


def _document(split: str, rows: partial[Iterator[Item]], file: str) -> Document:
    return captions_document(f"{split}_coco_format", partial(coco_format, rows=rows), file, "sounds")


_AUDIOCAPS_TEST = partial(audiocaps_joined_rows, part="test")

AUDIOCAPS = Builder(
    name="audiocaps",
    task="audio_caption",
    title="AudioCaps 1.0",
    licence="captions for academic purposes only; sounds are their owners' (YouTube)",
    links=("audiocaps-train", "audiocaps-val", "audiocaps-test", "audiocaps-sounds"),
    layout=f"""train.csv, val.csv, test.csv
train/r1nicOVtvkQ.wav ..., also named r1nicOVtvkQ_130, r1nicOVtvkQ_130_140, r1nicOVtvkQ_130000_140000, with a Y before
that, or by audiocap_id; many films are no longer there: --on-missing skip
{SOUND_NOTE}""",
    folder=CAPTIONS,
    splits=(
        Split("audiocaps_train", partial(audiocaps_rows, part="train"), ("train.csv",), 49_838),
        Split("audiocaps_val", partial(audiocaps_joined_rows, part="val"), ("val.csv",), 495),
        Split("audiocaps_test", _AUDIOCAPS_TEST, ("test.csv",), 975, note="a row a sound, its five captions joined"),
    ),
    documents=(_document("audiocaps_test", _AUDIOCAPS_TEST, "test.csv"),),
)

# -------------------------------------------------------------------------------- Clotho

CLOTHO_CAPTIONS = tuple(f"caption_{number}" for number in range(1, 6))


def _clotho_file(part: str) -> str:
    return f"clotho_captions_{part}.csv"


def clotho_rows(raw: Path, part: str, join: bool) -> Iterator[Item]:
    """A row a caption or, joined, a row a sound, whose id is the name of its file."""
    sounds = NamedFiles(raw, FOLDER, SOUNDS, inside=part)
    for where, row in read_csv(raw / _clotho_file(part), ("file_name", *CLOTHO_CAPTIONS)):
        name = row["file_name"].removesuffix(".wav")
        captions = [text for text in (sentence(row[key]) for key in CLOTHO_CAPTIONS) if text]
        if not captions:
            yield LeftOut(WITHOUT_CAPTION)
            continue
        sound = sounds.find(where, name, name.strip())
        if join:
            yield Record((name, name, joined(captions), "", sound), where)
            continue
        for number, text in enumerate(captions, start=1):
            yield Record((f"{name}_{number}", name, text, "", sound), where)


_CLOTHO_TEST = partial(clotho_rows, part="evaluation", join=True)

CLOTHO = Builder(
    name="clotho",
    task="audio_caption",
    title="Clotho 2.1 or 1 (UnIVAL: 1, with fewer sounds for training and the same for evaluation)",
    licence="captions: Tampere University's, not for commercial use; each sound its own Creative Commons licence",
    links=(
        *(f"clotho-{what}-{part}" for what in ("captions", "sounds") for part in ("development", "evaluation")),
        *(f"clotho-{what}-validation" for what in ("captions", "sounds")),
        *(f"clotho-v1-{what}-development" for what in ("captions", "sounds")),
    ),
    layout=f"""clotho_captions_development.csv, clotho_captions_evaluation.csv; since version 2 ..._validation.csv
development/*.wav, validation/*.wav, evaluation/*.wav, as the 7z files unpack
{SOUND_NOTE}""",
    folder=CAPTIONS,
    splits=(
        Split(
            "clotho_development",
            partial(clotho_rows, part="development", join=False),
            (_clotho_file("development"),),
            19_195,
            note="a row a caption; version 1 has 14,465",
        ),
        Split(
            "clotho_validation",
            partial(clotho_rows, part="validation", join=True),
            (_clotho_file("validation"),),
            1045,
            usual=False,
            note="from version 2 on",
        ),
        Split(
            "clotho_evaluation",
            _CLOTHO_TEST,
            (_clotho_file("evaluation"),),
            1045,
            note="a row a sound, its five captions joined",
        ),
    ),
    documents=(_document("clotho_evaluation", _CLOTHO_TEST, _clotho_file("evaluation")),),
)

BUILDERS: tuple[Builder, ...] = (AUDIOCAPS, CLOTHO)
