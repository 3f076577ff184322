"""Prediction with a trained checkpoint: Python form and ``unival predict``."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from made_drawers import SIDE, Brightness, make_drawer
from made_models import COLOURS, make_checkpoint
from PIL import Image

from unival_cli.main import main
from unival_plugin.errors import CheckpointError, ConfigError, DataError
from unival_plugin.hub import Predictor, from_pretrained
from unival_plugin.unival.tasks.drawing import Drawer, Drawing


@pytest.fixture(scope="module")
def checkpoint(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained captioner in a file of fairseq's layout."""
    return make_checkpoint(digits, tmp_path_factory.mktemp("model"), "caption")


@pytest.fixture(scope="module")
def made(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Untrained models of the tasks with texts; the one for boxes gives nothing but boxes."""
    folder = tmp_path_factory.mktemp("models")
    return {task: make_checkpoint(digits, folder, task) for task in ("vqa_gen", "snli_ve", "refcoco")}


@pytest.fixture(scope="module")
def predictor(checkpoint: Path) -> Predictor:
    return from_pretrained(checkpoint, "cpu")


@pytest.fixture(scope="module")
def pictures(digits: Path) -> list[Path]:
    return sorted((digits / "pictures").glob("*.png"))


def test_paths_bytes_and_pictures_give_the_same_caption(predictor: Predictor, pictures: list[Path]) -> None:
    forms: list[Any] = [pictures[0], str(pictures[0]), pictures[0].read_bytes(), Image.open(pictures[0])]
    captions = predictor.caption(forms)
    assert len(set(captions)) == 1 and len(captions) == 4


def test_batches_and_workers_change_nothing(predictor: Predictor, pictures: list[Path]) -> None:
    alone = [prediction.text for prediction in predictor.stream(pictures, batch_size=1)]
    assert [prediction.text for prediction in predictor.stream(pictures, batch_size=3, workers=1)] == alone


def test_an_unreadable_picture_keeps_its_place(predictor: Predictor, pictures: list[Path], tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no picture")
    predictions = list(predictor.stream([pictures[0], tmp_path / "broken.png", pictures[1]]))
    assert [bool(prediction.error) for prediction in predictions] == [False, True, False]
    assert "broken.png" in predictions[1].error
    with pytest.raises(DataError, match=r"broken\.png"):
        predictor.caption([tmp_path / "broken.png"])


def test_generation_options_can_be_given(predictor: Predictor, pictures: list[Path]) -> None:
    assert len(predictor.caption(pictures[:1], beam_size=1, max_len_b=2)[0].split()) <= 2
    with pytest.raises(ConfigError, match="at least 1"):
        predictor.caption(pictures[:1], beam_size=0)


def test_a_moved_checkpoint_finds_its_tokenizer(checkpoint: Path, tmp_path: Path, pictures: list[Path]) -> None:
    state = torch.load(checkpoint, weights_only=True)
    state["cfg"]["task"]["sentencepiece_model"] = "somewhere/else/digits.model"
    torch.save(state, tmp_path / "moved.pt")
    with pytest.raises(ConfigError, match="does not exist"):
        from_pretrained(tmp_path / "moved.pt", "cpu")
    shutil.copy(checkpoint.parent / "digits.model", tmp_path)
    assert from_pretrained(tmp_path / "moved.pt", "cpu").caption(pictures[:1])


def test_files_that_are_no_checkpoints_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such file"):
        from_pretrained(tmp_path / "missing.pt")
    (tmp_path / "text.pt").write_text("no checkpoint")
    with pytest.raises(CheckpointError, match=r"text\.pt"):
        from_pretrained(tmp_path / "text.pt")
    torch.save({"model": {"w": torch.ones(1)}}, tmp_path / "weights.pt")
    with pytest.raises(CheckpointError, match="no configuration"):
        from_pretrained(tmp_path / "weights.pt")


class TestTexts:
    def test_answers_come_from_the_set(self, made: dict[str, Path], pictures: list[Path]) -> None:
        predictor = from_pretrained(made["vqa_gen"], "cpu")
        answers = predictor.answer(pictures, "what colour is it?")
        assert len(answers) == len(pictures) and set(answers) <= set(COLOURS)
        assert answers[:2] == predictor.answer(pictures[:2], ["What colour is it?", "what colour is it"])

    def test_statements_are_judged(self, made: dict[str, Path], pictures: list[Path]) -> None:
        assert set(from_pretrained(made["snli_ve"], "cpu").answer(pictures, "a red 7")) <= {"yes", "no", "maybe"}

    def test_a_context_is_told_to_a_model_that_was_trained_so(
        self, made: dict[str, Path], pictures: list[Path]
    ) -> None:
        predictor = from_pretrained(made["snli_ve"], "cpu")
        [without] = predictor.stream(pictures[:1], "a red 7")
        [told] = predictor.stream(pictures[:1], "a red 7", contexts="red 7 and blue 3")
        assert told.score != without.score

    def test_boxes_are_in_pixels_of_the_picture(self, made: dict[str, Path], pictures: list[Path]) -> None:
        predictor = from_pretrained(made["refcoco"], "cpu")
        image = Image.open(pictures[0]).convert("RGB").resize((32, 32), Image.Resampling.NEAREST)
        small, wide = predictor.ground([image, image.resize((96, 32), Image.Resampling.NEAREST)], "the red 7")
        assert len(small) == 4 and any(small)
        steps = torch.tensor(wide) / torch.tensor([3 * 64 / 15, 64 / 15, 3 * 64 / 15, 64 / 15])
        torch.testing.assert_close(steps, steps.round(), atol=1e-4, rtol=0)

    def test_no_box_is_an_error_of_the_row(self, digits: Path, tmp_path: Path, pictures: list[Path]) -> None:
        predictor = from_pretrained(make_checkpoint(digits, tmp_path, "refcoco", box_grammar="none"), "cpu")
        [prediction] = predictor.stream(pictures[:1], "the red 7")
        assert "no answer in the form of the task" in prediction.error and prediction.box is None

    def test_n_best_begin_with_the_answer_and_differ(self, made: dict[str, Path], pictures: list[Path]) -> None:
        for task in ("vqa_gen", "snli_ve", "refcoco"):
            predictor = from_pretrained(made[task], "cpu")
            for found in predictor.stream(pictures[:2], "what is red", n_best=3):
                first = found.n_best[0]
                assert (first.text, first.box, first.score) == (found.text, found.box, found.score)
                assert len({(each.text, each.box) for each in found.n_best}) == 3
                assert [each.score for each in found.n_best] == sorted((e.score for e in found.n_best), reverse=True)
        with pytest.raises(ConfigError, match="larger beam"):
            predictor.stream(pictures, "what is red", n_best=4)

    def test_batches_and_workers_change_nothing(self, made: dict[str, Path], pictures: list[Path]) -> None:
        texts = [f"what colour is the {number}" for number in range(len(pictures))]
        predictor = from_pretrained(made["vqa_gen"], "cpu")
        alone = [(each.index, each.text) for each in predictor.stream(pictures, texts, batch_size=1)]
        assert [(each.index, each.text) for each in predictor.stream(pictures, texts, 3, workers=1)] == alone

    @pytest.mark.parametrize("task", ["vqa_gen", "snli_ve", "refcoco"])
    def test_an_empty_text_is_an_error_of_its_row(self, made: dict[str, Path], pictures: list[Path], task: str) -> None:
        found = list(from_pretrained(made[task], "cpu").stream(pictures[:2], ["", "red"]))
        assert "is empty" in found[0].error and pictures[0].name in found[0].error
        assert not found[1].error

    def test_texts_are_needed_one_for_each(self, made: dict[str, Path], pictures: list[Path]) -> None:
        predictor = from_pretrained(made["vqa_gen"], "cpu")
        with pytest.raises(ConfigError, match="needs a text"):
            predictor.stream(pictures)
        with pytest.raises(ConfigError, match="2 texts for 1 files"):
            predictor.answer(pictures[:1], ["a", "b"])
        with pytest.raises(ConfigError, match=r"loaded for task vqa_gen.* for refcoco"):
            predictor.ground(pictures, "red")

    def test_a_model_trained_for_yes_and_no_says_them(self, digits: Path, tmp_path: Path, pictures: list[Path]) -> None:
        default = '{"no": 0, "yes": 1}'
        path = make_checkpoint(digits, tmp_path, "vqa_gen", ans2label_dict=default)
        assert set(from_pretrained(path, "cpu").answer(pictures, "is it red?")) <= {"yes", "no"}

    def test_another_tasks_file_needs_answers(self, checkpoint: Path, pictures: list[Path], tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="holds no answers.*--prompt-type.*--ans2label-file"):
            from_pretrained(checkpoint, "cpu", task="vqa_gen")
        (tmp_path / "answers.txt").write_text("one\ntwo\n")
        options = {"prompt_type": "none", "ans2label_file": str(tmp_path / "answers.txt")}
        predictor = from_pretrained(checkpoint, "cpu", task="vqa_gen", **options)
        assert set(predictor.answer(pictures, "how many?")) <= {"one", "two"}


class TestDrawing:
    @pytest.fixture(scope="class")
    def drawer(self, digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Predictor:
        return from_pretrained(make_drawer(digits, tmp_path_factory.mktemp("drawer")), "cpu")

    def test_captions_become_pictures(self, drawer: Predictor) -> None:
        drawings = drawer.draw(["one", "a two", "three"], batch_size=2, beam_size=4)
        assert [drawing.caption for drawing in drawings] == ["one", "a two", "three"]
        for drawing in drawings:
            assert [picture.size for picture in drawing.pictures] == [(SIDE, SIDE)] * 4
            assert len(drawing.codes) == 4 and drawing.scores == sorted(drawing.scores, reverse=True)
            assert max(drawing.scores) <= 0  # log-probabilities
        assert [drawing.caption for drawing in drawer.draw("one")] == ["one"] and drawer.draw([]) == []

    def test_the_best_by_clip_comes_first(self, drawer: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Drawer, "clip", Brightness())
        monkeypatch.setattr(drawer.task.drawer, "clip_model_path", "clip.pt")
        [drawing] = drawer.draw("one", beam_size=6)
        assert drawing.scores == Brightness().similarity(drawing.pictures, []).tolist()
        assert drawing.scores == sorted(drawing.scores, reverse=True) and drawing.scores[0] > drawing.scores[-1]

    def test_torchs_seed_decides(self, drawer: Predictor) -> None:
        drawn = []
        for seed in (1, 1, 2):
            torch.manual_seed(seed)
            drawn.append([drawing.best_codes for drawing in drawer.draw([str(n) for n in range(6)])])
        assert drawn[0] == drawn[1] != drawn[2]

    def test_an_empty_caption_keeps_its_place(self, drawer: Predictor) -> None:
        found = list(drawer.draw_each(["one", " ", "three"]))
        assert [isinstance(each, Drawing) for each in found] == [True, False, True]
        assert str(found[1]) == "text 1: the caption is empty; fill it in or delete the row"
        with pytest.raises(DataError, match="text 0: the caption is empty"):
            drawer.draw([""])

    def test_what_cannot_be_drawn(
        self, drawer: Predictor, predictor: Predictor, pictures: list[Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with pytest.raises(ConfigError, match=r"loaded for task caption.* for image_gen"):
            predictor.draw(["one"])
        with pytest.raises(ConfigError, match="use draw"):
            drawer.stream(pictures[:1], "one")
        with pytest.raises(ConfigError, match="batch size 0"):
            drawer.draw(["one"], batch_size=0)
        monkeypatch.setattr(drawer.task, "drawer", Drawer(SIDE, 4))
        with pytest.raises(ConfigError, match="drawn by a tokenizer: give --vqgan-model-path"):
            drawer.draw_each(["one"])  # told at once, not with the first picture
        monkeypatch.setattr(drawer.task, "drawer", Drawer(SIDE, 4, "gone.ckpt", "gone.yaml"))
        with pytest.raises(CheckpointError, match="gone"):
            drawer.draw(["one"])


class TestCommand:
    def run(self, checkpoint: Path, *arguments: object) -> int:
        words = ["predict", "--task", "caption", "--path", checkpoint, "--device", "cpu", *arguments]
        return main([str(word) for word in words])

    def test_a_folder_gives_a_line_for_each_picture(
        self, checkpoint: Path, pictures: list[Path], capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert self.run(checkpoint, pictures[0].parent) == 0
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert [line["image"] for line in lines] == [str(path) for path in pictures]
        assert all(set(line) == {"image", "caption", "score"} for line in lines)

    def test_an_interrupted_output_is_continued(self, checkpoint: Path, pictures: list[Path], tmp_path: Path) -> None:
        output = tmp_path / "out.jsonl"
        assert self.run(checkpoint, pictures[0].parent, "--output", output) == 0
        whole = output.read_bytes()
        lines = whole.splitlines(keepends=True)
        output.write_bytes(b"".join(lines[:2]) + lines[2][:10])
        assert self.run(checkpoint, pictures[0].parent, "--output", output) == 0
        assert output.read_bytes() == whole

    def test_other_options_do_not_continue_a_file(
        self, checkpoint: Path, pictures: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        output = tmp_path / "out.jsonl"
        assert self.run(checkpoint, pictures[0], "--output", output) == 0
        assert self.run(checkpoint, pictures[0], "--output", output, "--beam", 1) == 2
        assert "other options" in capsys.readouterr().err
        assert self.run(checkpoint, pictures[0], "--output", output, "--beam", 1, "--overwrite") == 0

    def test_unreadable_pictures_are_reported(
        self, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert self.run(checkpoint, tmp_path / "missing.png") == 1
        streams = capsys.readouterr()
        assert "missing.png" in json.loads(streams.out)["error"]
        assert "1 of 1 files could not be read" in streams.err

    def test_nothing_found(self, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert self.run(checkpoint, tmp_path / "*.png") == 2
        assert "nothing found in" in capsys.readouterr().err
