"""Reward criterions: the references' numbers, what is rewarded, and that models and processes stay as they should."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fairseq.criterions import CRITERION_DATACLASS_REGISTRY, CRITERION_REGISTRY
from fairseq.logging import metrics
from golden_rows import gradient
from omegaconf import OmegaConf
from small_size import tiny

from unival_plugin.errors import ConfigError
from unival_plugin.unival.tasks.caption import CaptionConfig, CaptionTask
from unival_plugin.unival.tasks.refcoco import RefcocoConfig, RefcocoTask

GOLDEN = Path(__file__).parents[1] / "golden" / "unival_tasks"
CASES = json.loads((GOLDEN / "reward_cases.json").read_text())
BOXES, CE, CIDER = (
    "refcoco_scst_reward_criterion", "adjust_label_smoothed_cross_entropy_scst", "scst_reward_criterion",
)  # fmt: skip
PAD, EOS, FIRST_BIN = 1, 2, 14


class FakeModel(torch.nn.Module):
    """Returns given scores and remembers how it was called."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits = torch.nn.Parameter(logits)
        self.calls: list[dict[str, Any]] = []

    def forward(self, **net_input: Any) -> tuple[torch.Tensor, dict[str, Any]]:
        self.calls.append({**net_input, "training": self.training})
        return self.logits, {}


class FakeSearch:
    """Finds given boxes, and remembers in which mode."""

    def __init__(self, bins: torch.Tensor) -> None:
        self.bins, self.modes = bins, []

    def generate(self, models: Any, sample: Any) -> list[list[dict[str, torch.Tensor]]]:
        self.modes.append((models[0].training, torch.is_grad_enabled()))
        end = torch.tensor([EOS])
        return [[{"tokens": torch.cat([bins + FIRST_BIN, end])}] for bins in self.bins]


class FakeDictionary(list):  # type: ignore[type-arg]
    def __init__(self) -> None:
        super().__init__(range(24))

    bos, pad, eos = (lambda self: 0), (lambda self: PAD), (lambda self: EOS)


def build(name: str, task: Any, **flags: Any) -> Any:
    config = CRITERION_DATACLASS_REGISTRY[name]()
    config.sentence_avg = False
    for key, value in flags.items():
        assert hasattr(config, key), key
        setattr(config, key, value)
    return CRITERION_REGISTRY[name].build_criterion(config, task)


def boxes_task(bins: torch.Tensor) -> Any:
    return SimpleNamespace(
        target_dictionary=FakeDictionary(),
        cfg=SimpleNamespace(num_bins=10, max_image_size=512),
        scst_generator=FakeSearch(bins),
    )


def tensors_of(name: str) -> dict[str, torch.Tensor]:
    arrays = np.load(GOLDEN / name)
    return {key[3:]: torch.from_numpy(arrays[key]) for key in arrays.files if key.startswith("in_")}


def batch(tensors: dict[str, torch.Tensor]) -> dict[str, Any]:
    keys = ("target", "region_coords", "w_resize_ratios", "h_resize_ratios")
    return {
        "net_input": {},
        "ntokens": 15,
        "nsentences": 3,
        "is_dummy": False,
        **{key: tensors[key] for key in keys},
    }


def reduced(criterion: Any, logs: list[dict[str, Any]]) -> dict[str, float]:
    metrics.reset()
    with metrics.aggregate("test"):
        criterion.reduce_metrics(logs)
    return dict(metrics.get_smoothed_values("test"))


def run_case(name: str, **flags: Any) -> tuple[Any, FakeModel, Any, Any]:
    tensors = tensors_of(name)
    task = boxes_task(tensors["hyp_bins"])
    criterion = build(BOXES if "refcoco" in name else CE, task, **{**CASES[name]["config"], **flags})
    model = FakeModel(tensors["logits"])
    return criterion, model, task, criterion(model, batch(tensors), update_num=10)


@pytest.mark.parametrize("name", sorted(CASES))
def test_numbers_of_the_reference(name: str) -> None:
    arrays, tolerance = np.load(GOLDEN / name), CASES[name]["tolerance"]
    criterion, model, _, (loss, sample_size, log) = run_case(name)
    ours = {"loss": loss, "sample_size": sample_size, **{f"log_{key}": value for key, value in log.items()}}
    ours |= {f"reduced_{key}": value for key, value in reduced(criterion, [log, log]).items()}
    for key in arrays.files:
        if not key.startswith("in_") and key != "allow_pickle":
            value = torch.as_tensor(ours[key]).item()
            assert value == pytest.approx(float(arrays[key]), rel=tolerance, abs=tolerance), key
    if "in_prev_output_tokens" in arrays.files:
        assert torch.equal(model.calls[0]["prev_output_tokens"], torch.from_numpy(arrays["in_prev_output_tokens"]))


# ---- flags


@pytest.mark.parametrize(
    "flags, message",
    [
        ({"metric": "cider"}, "--metric cider: boxes are rewarded by acc or map"),
        ({"metric": "map"}, "--metric map: needs the overlap"),
        ({"acc_thresh": "half"}, "--acc-thresh half: needs a number"),
    ],
)
@pytest.mark.parametrize("name", [BOXES, CE])
def test_flags_that_say_no_reward_are_refused(name: str, flags: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(name, boxes_task(torch.zeros(0, 4)), **flags)


@pytest.mark.parametrize("name", [BOXES, CE, CIDER])
def test_a_task_without_hypotheses_is_refused(name: str) -> None:
    task = SimpleNamespace(target_dictionary=FakeDictionary(), cfg=SimpleNamespace())
    with pytest.raises(ConfigError, match="gives nothing to reward"):
        build(name, task)
    if name != CIDER:
        task.scst_generator = FakeSearch(torch.zeros(0, 4))
        with pytest.raises(ConfigError, match="has none; use --task refcoco"):
            build(name, task)


@pytest.mark.parametrize("name", [BOXES, CE, CIDER])
def test_every_flag_explains_itself(name: str) -> None:
    config = CRITERION_DATACLASS_REGISTRY[name]()
    unexplained = {key for key in config._get_all_attributes() if not config._get_help(key)}
    assert unexplained <= {"_name", "sentence_avg"}


# ---- the criterions with a fake search


@pytest.mark.parametrize("name", ["crit_refcoco_scst_acc05_l5.npz", "crit_ce_scst_acc05.npz"])
@pytest.mark.parametrize("training", [True, False])
def test_the_search_evaluates_and_the_model_goes_on_as_before(name: str, training: bool) -> None:
    tensors = tensors_of(name)
    task = boxes_task(tensors["hyp_bins"])
    criterion = build(BOXES if "refcoco" in name else CE, task)
    model = FakeModel(tensors["logits"]).train(training)
    loss, _, _ = criterion(model, batch(tensors))
    assert task.scst_generator.modes == [(False, False)]
    assert model.training == training == model.calls[0]["training"]
    assert loss.requires_grad


@pytest.mark.parametrize("name", ["crit_refcoco_scst_acc05_l0.npz", "crit_ce_scst_acc05.npz"])
def test_a_dummy_batch_makes_the_same_pass_without_a_search(name: str) -> None:
    tensors = tensors_of(name)
    task = boxes_task(tensors["hyp_bins"])
    criterion = build(BOXES if "refcoco" in name else CE, task, acc_thresh=0.5, logprob=True)
    model = FakeModel(tensors["logits"])
    loss, _, log = criterion(model, {**batch(tensors), "is_dummy": True})
    loss.backward()
    assert task.scst_generator.modes == [] and len(model.calls) == 1
    assert loss.item() == 0 and not model.logits.grad.any()
    values = reduced(criterion, [{key: value * 0 for key, value in log.items()}])
    assert all(np.isfinite(float(value)) for value in values.values())


def test_a_row_where_nothing_was_found_learns_only_the_right_box() -> None:
    tensors = tensors_of("crit_refcoco_scst_acc05_l0.npz")
    task = boxes_task(tensors["hyp_bins"])
    found = task.scst_generator.generate([torch.nn.Linear(1, 1)], None)
    task.scst_generator.generate = lambda models, sample: [found[0], [], [{"tokens": torch.tensor([5, EOS])}]]
    model = FakeModel(tensors["logits"])
    loss, size, log = build(BOXES, task, acc_thresh="0.5", neg_reward=-1.0)(model, batch(tensors))
    loss.backward()
    assert (size, log["nsentences"]) == (4 + 0 + 1, 3)
    assert model.logits.grad.abs().sum(-1).gt(0).sum(-1).tolist() == [4, 0, 1]
    right, _, _ = build(BOXES, task, acc_thresh="0.5", lambda_reinforce=2.0)(model, batch(tensors))
    assert torch.isfinite(right)


def test_a_negative_reward_makes_a_hypothesis_less_likely() -> None:
    tensors = tensors_of("crit_refcoco_scst_posneg_l0.npz")
    _, model, _, (loss, _, _) = run_case("crit_refcoco_scst_posneg_l0.npz")
    loss.backward()
    rewards = tensors["reward"]
    found = (tensors["hyp_bins"] + FIRST_BIN)[..., None]
    slopes = model.logits.grad.gather(2, found).squeeze(2)
    assert torch.equal(slopes.sign(), -rewards.sign()[:, None].expand(-1, 4))


def test_rdrop_searches_once_and_weights_both_passes() -> None:
    tensors = tensors_of("crit_ce_scst_acc05.npz")
    once = run_case("crit_ce_scst_acc05.npz")[3][0]
    task = boxes_task(tensors["hyp_bins"])
    criterion = build(CE, task, acc_thresh=0.5, label_smoothing=0.1, use_rdrop=True)
    loss, size, log = criterion(FakeModel(tensors["logits"].repeat(2, 1, 1)), batch(tensors))
    assert loss.item() == pytest.approx(2 * once.item(), rel=1e-6)
    assert (size, len(task.scst_generator.modes)) == (30, 1)


def test_likeliest_symbols_stay_inside_the_constraints() -> None:
    tensors = tensors_of("crit_ce_scst_posneg.npz")
    masks = F.one_hot(tensors["target"], 24).bool()
    flags = {**CASES["crit_ce_scst_posneg.npz"]["config"], "logprob": True, "reinforce": True}
    criterion = build(CE, boxes_task(tensors["hyp_bins"]), **flags)
    loss, _, _ = criterion(FakeModel(tensors["logits"]), {**batch(tensors), "constraint_masks": masks})
    assert loss.item() == 0  # the only symbol is certain


# ---- with the tasks' own search


def grounding(digits: Path, tmp_path: Path, **options: Any) -> RefcocoTask:
    rows = [["a", gradient(64, 48), "the two", "10,5,40,30"], ["b", gradient(30, 70), "it", "0,0,30,70"]]
    (tmp_path / "x.tsv").write_text("".join("\t".join(row) + "\n" for row in rows))
    config = RefcocoConfig(**{
        "data": f"{tmp_path}/x.tsv,{tmp_path}/x.tsv", "selected_cols": "0,1,2,3", "bpe": "sentencepiece",
        "sentencepiece_model": f"{digits}/digits.model", "code_dict_size": 8, "num_bins": 16, "patch_image_size": 32,
        "max_image_size": 32, "scst": True, "scst_args": '{"beam": 2, "min_len": 4, "max_len_b": 4}', **options,
    })  # fmt: skip
    return RefcocoTask.setup_task(OmegaConf.structured(config))


def captions(digits: Path, tmp_path: Path, **options: Any) -> CaptionTask:
    rows = [["a", gradient(32, 32), "a two&&one two"], ["b", gradient(32, 32), "a three"], ["c", gradient(32, 32), "."]]
    (tmp_path / "x.tsv").write_text("".join("\t".join(row) + "\n" for row in rows))
    config = CaptionConfig(**{
        "data": f"{tmp_path}/x.tsv,{tmp_path}/x.tsv", "selected_cols": "0,1,2", "bpe": "sentencepiece",
        "sentencepiece_model": f"{digits}/digits.model", "code_dict_size": 8, "num_bins": 8, "patch_image_size": 32,
        "scst": True, "scst_args": '{"beam": 3, "max_len_b": 6}', **options,
    })  # fmt: skip
    return CaptionTask.setup_task(OmegaConf.structured(config))


def batch_of(task: Any, rows: int) -> dict[str, Any]:
    task.load_dataset("train")
    dataset = task.dataset("train")
    return dataset.collater([dataset[i] for i in range(rows)])


def test_boxes_of_the_tasks_search_are_rewarded(digits: Path, tmp_path: Path) -> None:
    task = grounding(digits, tmp_path)
    sample = batch_of(task, 2)
    net = tiny(symbols=len(task.target_dictionary)).train()
    criterion = build(BOXES, task, neg_reward=-0.5, lambda_reinforce=1.0)
    loss, size, log = criterion(net, sample)
    loss.backward()
    assert (size, log["nsentences"]) == (8, 2) and net.training
    found = task.scst_generator.generate([net.eval()], sample)
    assert all(len(row[0]["tokens"]) == 5 and int(row[0]["tokens"][:4].min()) >= task.first_bin for row in found)
    assert net.decoder.output_projection.weight.grad.abs().sum() > 0


def test_the_search_of_boxes_is_open_without_a_grammar(digits: Path, tmp_path: Path) -> None:
    task = grounding(digits, tmp_path, box_grammar="none", scst_args='{"beam": 2, "max_len_b": 7}')
    net = tiny(symbols=len(task.target_dictionary)).train()
    loss, size, log = build(BOXES, task, lambda_reinforce=1.0)(net, batch_of(task, 2))
    loss.backward()
    assert size > 0 and log["nsentences"] == 2 and torch.isfinite(loss)


def test_each_picture_is_read_once_for_all_its_captions(digits: Path, tmp_path: Path) -> None:
    task = captions(digits, tmp_path)
    sample = batch_of(task, 2)
    net = tiny(symbols=len(task.target_dictionary)).eval()
    criterion = build(CIDER, task)
    loss, size, log = criterion(net, sample)
    found = task.scst_generator.generate([net], sample)
    result = criterion.rewarded(found, sample)
    assert log["nsentences"] == 6 and size == sum(len(each) for row in result.tokens for each in row)
    expected = 0.0
    for row, weight in enumerate(result.weights):  # one hypothesis at a time
        for tokens, reward in zip(result.tokens[row], weight, strict=True):
            inputs = {key: value[row : row + 1] for key, value in sample["net_input"].items()}
            inputs["prev_output_tokens"] = torch.cat([tokens.new_tensor([0]), tokens[:-1]])[None]
            log_probs = F.log_softmax(net(**inputs)[0][0], dim=-1)
            expected -= float(reward.detach() * log_probs.detach().gather(1, tokens[:, None]).sum())
    assert loss.item() == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_a_picture_without_references_counts_nothing(digits: Path, tmp_path: Path) -> None:
    task = captions(digits, tmp_path)
    net = tiny(symbols=len(task.target_dictionary)).train()
    sample = batch_of(task, 3)
    _, _, log = build(CIDER, task)(net, sample)
    assert log["nsentences"] == 6
    dataset = task.dataset("train")
    loss, size, log = build(CIDER, task)(net, dataset.collater([dataset[2]]))
    loss.backward()
    assert (loss.item(), size, log["nsentences"], log["score"]) == (0, 0, 0, 0)


def test_a_dummy_batch_of_captions_counts_nothing(digits: Path, tmp_path: Path) -> None:
    task = captions(digits, tmp_path)
    batch_of(task, 1)
    net = tiny(symbols=len(task.target_dictionary)).train()
    criterion = build(CIDER, task)
    optimizer = SimpleNamespace(backward=lambda loss: loss.backward())
    loss, size, log = task.train_step(task.dataset("train").collater([]), stepped(net), criterion, optimizer, 3)
    assert (loss.item(), size, log["nsentences"], log["score"]) == (0, 0, 0, 0)
    assert all(weight.grad is None or not weight.grad.any() for weight in net.parameters())
    assert reduced(criterion, [log])["score"] == 0


def stepped(net: Any) -> Any:
    net.set_num_updates = lambda number: None
    return net


def test_weights_learn_under_autocast(digits: Path, tmp_path: Path) -> None:
    """Autocast may keep the halves that the search has made of the weights; gradients must not end there."""
    task = grounding(digits, tmp_path, autocast="bf16")
    net = tiny(symbols=len(task.target_dictionary)).train()
    sample = batch_of(task, 2)
    optimizer = SimpleNamespace(backward=lambda loss: loss.backward())
    task.train_step(sample, stepped(net), build(BOXES, task, neg_reward=-1.0), optimizer, 1)
    assert net.decoder.layers[0].fc1.weight.grad.abs().sum() > 0
    assert net.encoder.layers[0].fc1.weight.grad.abs().sum() > 0


def test_frequencies_come_from_a_file_or_the_training_rows(digits: Path, tmp_path: Path) -> None:
    task = captions(digits, tmp_path)
    counted = build(CIDER, task).cider.df
    assert counted.ref_len == 3 and counted.counts["two", "<eos>"] == 1
    counted.save(tmp_path / "df.json")
    read = build(CIDER, task, scst_cider_cached_tokens=str(tmp_path / "df.json")).cider.df
    assert dict(read.counts) == dict(counted.counts)
    with pytest.raises(ConfigError, match="unival data convert-df"):
        build(CIDER, task, scst_cider_cached_tokens="coco-train-words.p")


def test_rewarded_captions_need_their_references(digits: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="only with --scst"):
        build(CIDER, captions(digits, tmp_path, scst=False))


def test_a_caption_alone_has_no_baseline(digits: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--scst-args: captions are compared with each other"):
        build(CIDER, captions(digits, tmp_path, scst_args='{"beam": 1, "max_len_b": 4}'))


def test_bad_scst_args_are_named(digits: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--scst-args: unknown option 'beams'"):
        build(BOXES, grounding(digits, tmp_path, scst_args='{"beams": 2}'))


def test_in_validation_score_is_the_tasks(digits: Path, tmp_path: Path) -> None:
    task = grounding(digits, tmp_path)
    criterion = build(BOXES, task)
    log = {"loss": 1.0, "score": 7.0, "ntokens": 8, "nsentences": 2, "sample_size": 8}
    scored = {**log, "_score_sum": 1.0, "_iou_sum": 1.0, "_score_cnt": 2.0}
    for logs, wanted in (([log], 3.5), ([scored, scored], 0.5)):
        metrics.reset()
        with metrics.aggregate("test"):
            task.reduce_metrics(logs, criterion)
        assert metrics.get_smoothed_values("test")["score"] == wanted


def test_rewarded_captions_get_better(digits: Path, tmp_path: Path) -> None:
    """From a network that has half learned two captions."""
    task = captions(digits, tmp_path, scst_args='{"beam": 5, "max_len_b": 6}')
    sample = batch_of(task, 2)
    net = tiny(symbols=len(task.target_dictionary))
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-3)

    def learn(criterion: Any, steps: int) -> list[float]:
        scores = []
        for _ in range(steps):
            loss, size, log = criterion(net.train(), sample)
            optimizer.zero_grad()
            (loss / size).backward()
            optimizer.step()
            scores.append(log.get("score", 0.0) / log["nsentences"])
        return scores

    learn(build("adjust_label_smoothed_cross_entropy", task), 25)
    scores = learn(build(CIDER, task), 25)
    assert scores[0] > 0 and min(scores[-5:]) > 1.2 * max(scores[:5])
