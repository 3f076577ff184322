"""Sounds: the sentence is what the samples hold (bursts, pitches, glides, noise); same seed, same bytes."""

from __future__ import annotations

import io
import json
import re
from collections import Counter

import numpy as np
import pytest

pytest.importorskip("soundfile")

import contact_sheet
import digits
import sentencepiece
import soundfile
from digits_sounds import PITCHES, SoundMaker
from PIL import Image

PLAN = digits.BuildPlan(tasks=("audio_caption",), sounds=6, val_rows=3, test_rows=4, epoch_files=2, easy_files=1)
PITCH = "(low|middle|high)"
PHRASE = rf"(?:a {PITCH} (beep|tone)|(two|three|four) {PITCH} beeps|a (rising|falling) tone|(noise))"
NUMBERS = {"two": 2, "three": 3, "four": 4}
STEP = 240  # samples in which loudness is measured


@pytest.fixture(scope="module")
def sounds():
    maker = SoundMaker(seed=7)
    return [maker.make("train", 1, row) for row in range(300)]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sounds") / "data"
    digits.build(folder, PLAN)
    return folder


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def rows(path):
    return [line.split("\t") for line in path.read_text().splitlines()]


def samples(sound):
    return soundfile.read(io.BytesIO(sound.data), dtype="float32")[0]


def bursts(wave):
    """(first, last) sample of everything that is heard over the background, by the envelope alone."""
    envelope = np.sqrt((wave[: len(wave) // STEP * STEP].reshape(-1, STEP) ** 2).mean(axis=1))
    loud = np.concatenate([[0], envelope > 0.02, [0]]).astype(int)
    changes = np.flatnonzero(np.diff(loud)) * STEP
    return list(zip(changes[::2].tolist(), changes[1::2].tolist(), strict=True))


def peak(wave):
    """The loudest frequency in Hz."""
    power = np.abs(np.fft.rfft(wave * np.hanning(len(wave)), 1 << 16))
    return float(power.argmax() * 48_000 / (1 << 16))


def flatness(wave):
    """1 for white noise, near 0 for tones."""
    power = np.abs(np.fft.rfft(wave * np.hanning(len(wave)))) ** 2
    return float(np.exp(np.log(power).mean()) / power.mean())


def heard(wave, spans):
    """What a group of bursts is: one of the phrases, told from its samples."""
    pieces = [wave[first:last] for first, last in spans]
    if flatness(pieces[0]) > 0.3:
        return "noise"
    third = len(pieces[0]) // 3
    begin, end = peak(pieces[0][:third]), peak(pieces[0][-third:])
    if max(begin, end) / min(begin, end) > 1.5:
        return "a rising tone" if end > begin else "a falling tone"
    pitch = next(name for name, (low, high) in PITCHES.items() if 0.9 * low < peak(pieces[0]) < 1.1 * high)
    if len(pieces[0]) > 0.2 * 48_000:
        return f"a {pitch} tone"
    return f"a {pitch} beep" if len(pieces) == 1 else f"{list(NUMBERS)[len(pieces) - 2]} {pitch} beeps"


def told(caption):
    """For each phrase of a caption how many bursts it has."""
    found = [re.fullmatch(PHRASE, phrase) for phrase in caption.split(" then ")]
    assert all(found), caption
    return [NUMBERS.get(match[3], 1) for match in found]


def test_a_sound_is_one_second_of_mono_flac(sounds):
    info = soundfile.info(io.BytesIO(sounds[0].data))
    assert (info.format, info.samplerate, info.channels, info.frames) == ("FLAC", 48_000, 1, 48_000)


def test_the_sound_has_as_many_bursts_as_the_caption_says(sounds):
    for sound in sounds:
        assert len(bursts(samples(sound))) == sum(told(sound.caption)), sound.caption


def test_what_is_heard_is_what_the_caption_says(sounds):
    for sound in sounds:
        wave, phrases = samples(sound), []
        left = bursts(wave)
        for count in told(sound.caption):
            phrases.append(heard(wave, left[:count]))
            left = left[count:]
        assert " then ".join(phrases) == sound.caption


def test_bursts_lie_where_the_spans_say(sounds):
    for sound in sounds[:100]:
        spans = [span for event in sound.events for span in event.spans]
        for (first, last), (begin, end) in zip(bursts(samples(sound)), spans, strict=True):
            assert abs(first / 48_000 - begin) < 0.015 and abs(last / 48_000 - end) < 0.015


def test_beeps_of_one_pitch_are_one_group_and_nothing_comes_twice(sounds):
    for sound in sounds:
        kinds = [(event.kind, event.pitch) for event in sound.events]
        assert len(set(kinds)) == len(kinds)


def test_everything_is_heard_and_no_sentence_often(sounds):
    phrases = {phrase for sound in sounds for phrase in sound.caption.split(" then ")}
    assert len(phrases) == 18
    assert max(Counter(sound.caption for sound in sounds).values()) < 0.1 * len(sounds)
    assert 100 < sum(len(sound.events) == 2 for sound in sounds) < 200


def test_sounds_with_the_same_sentence_differ(sounds):
    same = [sound for sound in sounds if sound.caption == "noise" or sound.caption == "a rising tone"]
    assert len({sound.data for sound in same}) == len(same) > 5
    assert np.std([event.spans[0][0] for sound in same for event in sound.events]) > 0.1


def test_nothing_is_cut_off(sounds):
    for sound in sounds:
        wave = samples(sound)
        assert np.abs(wave).max() < 0.95
        assert sound.events[0].spans[0][0] > 0 and sound.events[-1].spans[-1][1] < 1


def test_a_sound_depends_on_its_row_number_only(sounds):
    maker = SoundMaker(seed=7)
    assert maker.make("train", 1, 9) == sounds[9]
    assert maker.make("test", 901, 9).data != sounds[9].data != SoundMaker(seed=8).make("train", 1, 9).data


def test_same_seed_gives_the_same_bytes(built, tmp_path):
    digits.build(tmp_path / "again", PLAN)
    assert contents(tmp_path / "again") == contents(built)


def test_rows_name_sounds_of_the_folder(built):
    for stem, number in {"train_1": 6, "train_2": 6, "val": 3, "test": 4}.items():
        table = rows(built / f"audio_{stem}.tsv")
        assert [cells[4] for cells in table] == [f"sounds/{stem}/{row:06d}.flac" for row in range(number)]
        assert all(cells[3] == "" and told(cells[2]) and (built / cells[4]).is_file() for cells in table)
    assert len({cells[0] for path in built.glob("*.tsv") for cells in rows(path)}) == 6 + 6 + 3 + 4


def test_easy_files_have_one_thing_a_sound(built):
    assert not any(" then " in cells[2] for cells in rows(built / "audio_train_1.tsv"))
    assert any(" then " in cells[2] for cells in rows(built / "audio_train_2.tsv"))


def test_the_manifest_tells_the_library_that_coded(built):
    manifest = json.loads((built / "manifest.json").read_text())
    assert manifest["versions"]["soundfile"] == soundfile.__version__
    assert "source_digits" not in manifest and "scans" not in (built / "README.txt").read_text()


def test_every_word_is_one_piece_of_the_vocabulary(built, sounds):
    model = sentencepiece.SentencePieceProcessor(model_file=str(built / "digits.model"))
    words = {word for sound in sounds for word in sound.caption.split()}
    assert len(words) == 14
    assert [word for word in sorted(words) if len(model.encode(word)) != 1] == []


def test_a_contact_sheet_shows_spectrograms(built, tmp_path):
    output = tmp_path / "sheet.png"
    flags = ["--tsv", str(built / "audio_test.tsv"), "--task", "audio_caption", "--output", str(output)]
    assert contact_sheet.main(flags) == 0
    with Image.open(output) as sheet:
        assert sheet.width == 4 * (240 + 8) + 8


def test_a_spectrogram_is_dark_where_the_tone_is(tmp_path):
    from unival_cli.sheet_media import spectrogram

    time = np.arange(48_000) / 48_000
    wave = np.where(time < 0.5, np.sin(2 * np.pi * 200 * time), np.sin(2 * np.pi * 5000 * time))
    soundfile.write(tmp_path / "two.wav", 0.5 * wave, 48_000)
    picture = np.asarray(spectrogram("two.wav", tmp_path).convert("L")).astype(int)
    half = picture.shape[1] // 2
    early, late = picture[:, : half - 8].mean(axis=1).argmin(), picture[:, half + 8 :].mean(axis=1).argmin()
    assert early > 1.5 * late  # low pitches are further down


@pytest.mark.parametrize("content", [b"", b"no sound at all", None])
def test_a_contact_sheet_names_the_row_of_a_bad_sound(tmp_path, capsys, content):
    if content is not None:
        (tmp_path / "bad.wav").write_bytes(content)
    (tmp_path / "t.tsv").write_text("1\tx\tnoise\t\tbad.wav\n")
    flags = ["--tsv", str(tmp_path / "t.tsv"), "--task", "audio_caption", "--output", str(tmp_path / "s.png")]
    assert contact_sheet.main(flags) == 2
    assert "t.tsv:row 1: bad.wav is no sound that can be read" in capsys.readouterr().err
