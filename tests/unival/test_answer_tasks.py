"""Tasks vqa_gen, snli_ve and refcoco: rows to batches as the reference does, answers, scores and result lines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fairseq import utils
from golden_rows import compare, gradient
from omegaconf import OmegaConf

from unival_plugin.data.answer_files import read_answers
from unival_plugin.data.answers import AnswerSet
from unival_plugin.data.boxes import BoxCodec
from unival_plugin.errors import ConfigError, DataError
from unival_plugin.generation.generator import SequenceGenerator
from unival_plugin.unival.tasks.refcoco import RefcocoConfig, RefcocoTask
from unival_plugin.unival.tasks.snli_ve import SnliVeConfig, SnliVeTask
from unival_plugin.unival.tasks.vqa_gen import VqaGenConfig, VqaGenTask

GOLDEN_FOLDER = Path(__file__).parents[1] / "golden" / "unival_tasks"
GOLDEN = json.loads((GOLDEN_FOLDER / "answer_rows.json").read_text())
BOXES = json.loads((GOLDEN_FOLDER / "boxes.json").read_text())
ANSWERS = json.dumps({answer: number for number, answer in enumerate(GOLDEN["answers"])})


def write(path: Path, rows: list[list[str]]) -> str:
    path.write_text("".join("\t".join(row) + "\n" for row in rows), encoding="utf-8")
    return f"{path},{path}"


def samples_of(task: Any, split: str = "valid") -> tuple[list[Any], Any]:
    task.load_dataset(split)
    dataset = task.dataset(split)
    samples = [dataset[i] for i in range(len(dataset))]
    return samples, dataset.collater(samples)


def check_golden(task: Any, case: str) -> None:
    samples, batch = samples_of(task)
    described = GOLDEN["cases"][case]
    for sample, wanted in zip(samples, described["items"], strict=True):
        check_masks([sample.get("constraint_mask")], [wanted.pop("constraint_mask", None)])
        compare(sample, wanted)
    check_masks(batch.get("constraint_masks"), described["batch"].pop("constraint_masks", None))
    for name in ("ref_dict", "decoder_prompts"):  # described by the beginnings of their texts
        if wanted := described["batch"].pop(name, None):
            texts = [str(value) for value in batch[name]]
            assert all(text.startswith(start) for text, start in zip(texts, map(str, wanted["value"]), strict=True))
    compare(batch, described["batch"])


def check_masks(got: Any, wanted: Any) -> None:
    """``wanted``: shape, numbers of allowed words, and which, where they are few."""
    if wanted is None or wanted == [None]:
        return
    rows = torch.as_tensor(np.concatenate([mask.reshape(-1, mask.shape[-1]) for mask in got]))
    wanted = wanted[0] if isinstance(wanted, list) else wanted
    counts = np.ravel(wanted["true_per_row"]).tolist()
    assert rows.sum(dim=1).tolist() == counts
    for row, positions in zip(rows, wanted["true_positions"], strict=True):
        assert positions == "many" or row.nonzero().flatten().tolist() == positions


@pytest.mark.parametrize("case", [case for case in GOLDEN["cases"] if case.startswith("vqa")])
def test_question_rows_become_the_references_samples(case: str, tmp_path: Path, gpt2_bpe_dir: Path) -> None:
    prompt, objects = case.removeprefix("vqa_").rsplit("_obj", 1)
    rows = [
        [row_id, gradient(64, 48), question, answers, objs]
        for row_id, _, question, answers, objs in GOLDEN["rows"]["vqa"]
    ]
    config = VqaGenConfig(
        data=write(tmp_path / "x.tsv", rows), selected_cols="0,1,2,3,4", bpe_dir=str(gpt2_bpe_dir), patch_image_size=32,
        prompt_type=prompt, add_object=objects == "True", max_object_length=2, ans2label_dict=ANSWERS,
    )  # fmt: skip
    check_golden(VqaGenTask.setup_task(OmegaConf.structured(config)), case)


@pytest.mark.parametrize("case", [case for case in GOLDEN["cases"] if case.startswith("snli")])
def test_entailment_rows_become_the_references_samples(case: str, tmp_path: Path, gpt2_bpe_dir: Path) -> None:
    prompt, caption = case.removeprefix("snli_").rsplit("_cap", 1)
    rows = [[row_id, gradient(64, 48), *texts] for row_id, _, *texts in GOLDEN["rows"]["snli"]]
    config = SnliVeConfig(
        data=write(tmp_path / "x.tsv", rows), selected_cols="0,1,2,3,4", bpe_dir=str(gpt2_bpe_dir), patch_image_size=32,
        prompt_type=prompt, add_caption=caption == "True",
    )  # fmt: skip
    check_golden(SnliVeTask.setup_task(OmegaConf.structured(config)), case)


def test_grounding_rows_become_the_references_samples(tmp_path: Path, gpt2_bpe_dir: Path) -> None:
    sizes = [(64, 48), (30, 70)]
    rows = [
        [row_id, gradient(*size, urlsafe=False), text, box]
        for size, (row_id, _, text, box) in zip(sizes, GOLDEN["rows"]["refcoco"], strict=True)
    ]
    config = RefcocoConfig(
        data=write(tmp_path / "x.tsv", rows), selected_cols="0,1,2,3", bpe_dir=str(gpt2_bpe_dir), patch_image_size=64,
        max_image_size=64,
    )  # fmt: skip
    check_golden(RefcocoTask.setup_task(OmegaConf.structured(config)), "refcoco_p64_m64")


@pytest.mark.parametrize("case", BOXES["boxes"], ids=lambda case: case["key"])
def test_boxes_become_the_references_bins_and_come_back(case: dict[str, Any]) -> None:
    codec = BoxCodec(1000, case["max_image_size"], case["patch_image_size"])
    ratios = codec.ratios((case["w"], case["h"]))
    assert ratios.tolist() == [case["w_resize_ratio"], case["h_resize_ratio"]]
    bins = codec.encode(torch.tensor(case["box"], dtype=torch.float32), ratios)
    assert bins.tolist() == case["bins"]
    decoded = codec.decode(bins[None], ratios[None])[0]
    np.testing.assert_allclose(decoded, case["dequantised"], rtol=1e-6)


# ---- answers and scores with the digits' vocabulary


ROWS = [
    ["1", gradient(32, 32), "what is it?", "1.0|!+a two&&0.5|!+two", "x"],
    ["2", gradient(32, 32), "is it a two", "0.6|!+two", "x"],
]


def vqa(digits: Path, tmp_path: Path, **options: Any) -> VqaGenTask:
    config = VqaGenConfig(**{
        "data": write(tmp_path / "x.tsv", ROWS), "selected_cols": "0,1,2,3,4", "bpe": "sentencepiece",
        "sentencepiece_model": f"{digits}/digits.model", "code_dict_size": 8, "num_bins": 8, "patch_image_size": 32,
        "prompt_type": "none", "ans2label_dict": '{"two": 0, "a two": 1, "three": 2}', **options,
    })  # fmt: skip
    return VqaGenTask.setup_task(OmegaConf.structured(config))


def test_soft_scores_of_answers(digits: Path, tmp_path: Path) -> None:
    task = vqa(digits, tmp_path)
    _, batch = samples_of(task)
    references = task.references(batch)
    assert task.score(["two", "three"], references)["vqa_score"].tolist() == [0.5, 0.0]
    assert task.result("12", "two") == {"question_id": 12, "answer": "two"}
    official = vqa(digits, tmp_path, official_score=True)
    assert official.score(["The two.", "a two"], references)["vqa_score"].tolist() == pytest.approx([1.0, 0.6])


@pytest.mark.parametrize(
    "kind, prompt",
    [*(("allcand", prompt) for prompt in ("none", "src", "prev_output")), ("beamsearch", "none"),
     ("beamsearch", "prev_output")],
)  # fmt: skip
def test_answers_come_from_the_set_without_the_prompt(digits: Path, tmp_path: Path, prompt: str, kind: str) -> None:
    from small_size import tiny

    task = vqa(digits, tmp_path, prompt_type=prompt, val_inference_type=kind)
    torch.manual_seed(1)
    net = tiny(symbols=len(task.target_dictionary)).eval()
    _, batch = samples_of(task)
    generator = SequenceGenerator([net], task.target_dictionary, task.eval_options)
    hypotheses = task.inference_step(generator, [net], batch)
    assert set(task.predictions(hypotheses)) <= set(task.answers.answers)
    assert all(len(row) == 3 for row in hypotheses)


def test_both_ways_of_answering_agree(digits: Path, tmp_path: Path) -> None:
    from small_size import tiny

    found = []
    for kind in ("allcand", "beamsearch"):
        task = vqa(digits, tmp_path, prompt_type="prev_output", val_inference_type=kind)
        net = tiny(symbols=len(task.target_dictionary)).eval()
        _, batch = samples_of(task)
        generator = SequenceGenerator([net], task.target_dictionary, task.eval_options)
        found.append(task.predictions(task.inference_step(generator, [net], batch)))
    assert found[0] == found[1]


def grounding(digits: Path, tmp_path: Path, **options: Any) -> RefcocoTask:
    rows = [["a", gradient(64, 48), "the two", "10,5,40,30"], ["b", gradient(30, 70), "it", "0,0,30,70"]]
    config = RefcocoConfig(**{
        "data": write(tmp_path / "x.tsv", rows), "selected_cols": "0,1,2,3", "bpe": "sentencepiece",
        "sentencepiece_model": f"{digits}/digits.model", "code_dict_size": 8, "num_bins": 1000, "patch_image_size": 64,
        "max_image_size": 64, "eval_acc": True, **options,
    })  # fmt: skip
    return RefcocoTask.setup_task(OmegaConf.structured(config))


def test_the_right_symbols_are_the_right_box(digits: Path, tmp_path: Path) -> None:
    task = grounding(digits, tmp_path, acc_thresh="0.9,0.5", min_area_size=1000.0, max_area_size=900.0)
    _, batch = samples_of(task)
    boxes = task.predictions([[{"tokens": target}] for target in batch["target"]], batch)
    scores = task.score(boxes, task.references(batch))
    assert scores["score"].tolist() == scores["acc0.9"].tolist() == [1.0, 1.0]
    assert scores["small"].tolist() == [1.0, 0.0] and scores["large"].tolist() == [0.0, 1.0]
    nonsense = task.predictions([[{"tokens": torch.tensor([5, 6, 2])}], []], batch)
    assert task.score(nonsense, task.references(batch))["score"].tolist() == [0.0, 0.0]
    assert set(task.result("a", boxes[0])) == {"uniq_id", "box"}


def test_validation_with_the_average_asks_fairseq_for_it(digits: Path, tmp_path: Path) -> None:
    assert vqa(digits, tmp_path, uses_ema=True).uses_ema
    assert not vqa(digits, tmp_path).uses_ema


def test_boxes_keep_their_precision_in_a_batch_of_halves(digits: Path, tmp_path: Path) -> None:
    """With --fp16 fairseq halves every floating-point tensor of a batch; at 640 pixels that is half a pixel."""
    task = grounding(digits, tmp_path)
    task.cfg.data = write(tmp_path / "wide.tsv", [["a", gradient(1600, 48), "it", "1001.3,5,1500.7,30"]])
    _, batch = samples_of(task)
    halved = utils.apply_to_sample(lambda tensor: tensor.half() if tensor.is_floating_point() else tensor, batch)
    hypotheses = [[{"tokens": target}] for target in batch["target"]]
    assert torch.equal(task.predictions(hypotheses, halved)[0], task.predictions(hypotheses, batch)[0])
    np.testing.assert_allclose(task.references(halved)[0], [1001.3, 5, 1500.7, 30], rtol=1e-6)


class TestMistakes:
    def test_no_prompt_type(self, digits: Path, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="--prompt-type None: give one of none, src, prev_output"):
            vqa(digits, tmp_path, prompt_type=None)

    def test_a_search_behind_an_end_symbol(self, digits: Path, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="--prompt-type src .*use prev_output, or --val-inference-type allcand"):
            vqa(digits, tmp_path, prompt_type="src", val_inference_type="beamsearch")

    def test_answers_of_a_pickle(self) -> None:
        with pytest.raises(ConfigError, match="unival data convert-answers"):
            read_answers(Path("trainval_ans2label.pkl"))

    @pytest.mark.parametrize("content", ["{}", "[]", "[1]", "{", '"x"', '["a", "b", "a"]'])
    def test_files_without_answers(self, tmp_path: Path, content: str) -> None:
        (tmp_path / "x.json").write_text(content)
        with pytest.raises(ConfigError, match=r"x\.json: "):
            read_answers(tmp_path / "x.json")

    @pytest.mark.parametrize(
        "column, cell, message",
        [
            (2, " ", "question is empty"),
            (3, "two", "no answer"),
            (3, "x|!+two", "no answer"),
            (3, "1|!+", "no answer"),
        ],
    )
    def test_bad_question_rows(self, digits: Path, tmp_path: Path, column: int, cell: str, message: str) -> None:
        task = vqa(digits, tmp_path)
        row = [*ROWS[0][:column], cell, *ROWS[0][column + 1 :]]
        task.cfg.data = write(tmp_path / "bad.tsv", [row])
        with pytest.raises(DataError, match=rf"bad\.tsv:row 1, column {column}: .*{message}"):
            samples_of(task)

    @pytest.mark.parametrize("box", ["1,2,3", "1,2,x,4", "5,5,5,9", "1,2,nan,4", ""])
    def test_bad_boxes(self, digits: Path, tmp_path: Path, box: str) -> None:
        task = grounding(digits, tmp_path)
        task.cfg.data = write(tmp_path / "bad.tsv", [["a", gradient(8, 8), "it", box]])
        with pytest.raises(DataError, match=r"bad\.tsv:row 1, column 3: .*box"):
            samples_of(task)

    def test_pictures_larger_than_the_bins_span(self, digits: Path, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="--patch-image-size 96 is larger than --max-image-size 64"):
            grounding(digits, tmp_path, patch_image_size=96)


def entailment(digits: Path, tmp_path: Path, **options: Any) -> SnliVeTask:
    config = SnliVeConfig(**{
        "data": write(tmp_path / "x.tsv", [["1", gradient(32, 32), "it is a two", "a two", "entailment"]]),
        "selected_cols": "0,1,2,3,4", "bpe": "sentencepiece", "sentencepiece_model": f"{digits}/digits.model",
        "code_dict_size": 8, "num_bins": 8, "patch_image_size": 32, "prompt_type": "none", **options,
    })  # fmt: skip
    return SnliVeTask.setup_task(OmegaConf.structured(config))


def test_an_answer_outside_the_set_is_unbound_in_evaluation(digits: Path, tmp_path: Path) -> None:
    answers = AnswerSet(["two", "a two"], vqa(digits, tmp_path).text)
    assert answers.allowed(answers.text.encode(" three")).all()
    assert answers.allowed(answers.text.encode(" a")).all()  # the beginning of one is none
    assert not answers.allowed(answers.text.encode(" two")).all()


@pytest.mark.parametrize("build, column", [(vqa, 3), (entailment, 4)])
def test_an_answer_outside_the_set_cannot_be_learned(digits: Path, tmp_path: Path, build: Any, column: int) -> None:
    task = build(digits, tmp_path, ans2label_dict='{"four": 0}')
    with pytest.raises(DataError, match=rf"x\.tsv:row 1, column {column}: the answer .* is not among the 1 answers"):
        samples_of(task, "train")
    samples, batch = samples_of(task, "valid")
    assert len(samples) == len(batch["id"]) > 0
    task = build(digits, tmp_path, ans2label_dict='{"four": 0}', noconstraints=True)
    assert samples_of(task, "train")[0]


def test_an_empty_statement_is_named(digits: Path, tmp_path: Path) -> None:
    task = entailment(digits, tmp_path)
    task.cfg.data = write(tmp_path / "bad.tsv", [["1", gradient(32, 32), "  ", "a two", "entailment"]])
    with pytest.raises(DataError, match=r"bad\.tsv:row 1, column 2: the hypothesis is empty"):
        samples_of(task)


@pytest.mark.parametrize("box", ["70,5,90,30", "0,48,9,60", "-9,-9,0,9"])
def test_a_box_outside_the_picture_is_named(digits: Path, tmp_path: Path, box: str) -> None:
    task = grounding(digits, tmp_path)
    task.cfg.data = write(tmp_path / "bad.tsv", [["a", gradient(64, 48), "it", box]])
    with pytest.raises(
        DataError, match=rf"bad\.tsv:row 1, column 1: the box {box} lies outside the picture of 64 x 48"
    ):
        samples_of(task)
