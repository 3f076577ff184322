"""Self-critical training of pictures: the reference's numbers, what is rewarded, and that good pictures become likely.

Searches and scores are made ones; CLIP itself is tested with the metrics.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fairseq.criterions import CRITERION_DATACLASS_REGISTRY, CRITERION_REGISTRY
from fairseq.logging import metrics
from small_size import tiny

import unival_plugin.unival.criterions.clip_scst  # noqa: F401
from unival_plugin.errors import ConfigError

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "unival_tasks" / "crit_clip_scst.npz")
CLIP = "clip_scst_reward_criterion"
BOS, PAD, EOS = 0, 1, 2
CODES = range(10, 18)

Rows = list[list[torch.Tensor]]


class MadeTask:
    """Finds given symbols for every row, and scores pictures by a function of their codes."""

    def __init__(self, found: Any, score: Any) -> None:
        self.target_dictionary = SimpleNamespace(bos=lambda: BOS, pad=lambda: PAD, eos=lambda: EOS)
        self.scst_generator = SimpleNamespace(generate=self.generate)
        self.found, self.score = found, score
        self.scored: list[Rows] = []
        self.modes: list[tuple[bool, bool]] = []

    def generate(self, models: Any, sample: Any) -> list[list[dict[str, torch.Tensor]]]:
        self.modes.append((models[0].training, torch.is_grad_enabled()))
        found = self.found() if callable(self.found) else self.found
        return [[{"tokens": torch.as_tensor(tokens)} for tokens in row] for row in found]

    def picture_rewards(self, codes: Rows, sample: dict[str, Any]) -> torch.Tensor:
        assert not torch.is_grad_enabled() and "net_input" in sample
        self.scored.append(codes)
        scores = self.score(codes) if callable(self.score) else self.score
        return torch.as_tensor(scores, dtype=torch.float32)


class Table(torch.nn.Module):
    """The same learnable scores (T, V) for every row and position asked for, or given ones (R, T, V)."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits = torch.nn.Parameter(logits)
        self.calls: list[dict[str, Any]] = []

    def forward(self, prev_output_tokens: torch.Tensor, **net_input: Any) -> tuple[torch.Tensor, dict[str, Any]]:
        self.calls.append({**net_input, "prev_output_tokens": prev_output_tokens, "training": self.training})
        rows, length = prev_output_tokens.shape
        whole = self.logits if self.logits.dim() == 3 else self.logits.expand(rows, -1, -1)
        return whole[:, :length], {}


def build(task: Any, **flags: Any) -> Any:
    config = CRITERION_DATACLASS_REGISTRY[CLIP]()
    config.sentence_avg = False
    for key, value in flags.items():
        assert hasattr(config, key), key
        setattr(config, key, value)
    return CRITERION_REGISTRY[CLIP].build_criterion(config, task)


def batch(rows: int, **inputs: Any) -> dict[str, Any]:
    return {"net_input": inputs, "target": torch.full((rows, 3), PAD), "ntokens": 0, "nsentences": rows}


def reduced(criterion: Any, logs: list[dict[str, Any]]) -> dict[str, float]:
    metrics.reset()
    with metrics.aggregate("test"):
        criterion.reduce_metrics(logs)
    return dict(metrics.get_smoothed_values("test"))


def golden_run(**flags: Any) -> tuple[Any, MadeTask, Table, tuple[torch.Tensor, int, dict[str, Any]]]:
    """Two captions with three pictures each."""
    symbols = [row[row != PAD] for row in GOLDEN["target"]]
    task = MadeTask([symbols[:3], symbols[3:]], GOLDEN["scores"])
    model, criterion = Table(torch.from_numpy(GOLDEN["lprobs"])), build(task, **flags)
    return criterion, task, model, criterion(model, batch(2))


def test_numbers_of_the_reference() -> None:
    criterion, task, model, (loss, sample_size, log) = golden_run()
    target = torch.from_numpy(GOLDEN["target"])
    picked = np.take_along_axis(GOLDEN["lprobs"], GOLDEN["target"][..., None], axis=2)[..., 0] * (
        GOLDEN["target"] != PAD
    )
    added_up = float(np.abs(picked * GOLDEN["reward"][:, None]).sum())  # 9, of which 0.06 are left
    assert loss.item() == pytest.approx(float(GOLDEN["loss"]), abs=1e-6 * added_up)
    assert sample_size == log["ntokens"] == log["sample_size"] == int(GOLDEN["ntokens"])
    assert (log["score"], log["nsentences"]) == (pytest.approx(float(GOLDEN["scores"].sum()), rel=1e-6), 6)
    result = criterion.rewarded(task.generate([model], None), batch(2))
    np.testing.assert_allclose(result.weights.flatten(), GOLDEN["reward"], atol=1e-6)
    assert torch.equal(model.calls[0]["prev_output_tokens"][:, 1:], target[:, :-1])
    assert not model.calls[0]["prev_output_tokens"][:, 0].any()


def test_logged_values_are_per_token_and_per_picture() -> None:
    criterion, _, _, (loss, size, log) = golden_run()
    values = reduced(criterion, [log, log])
    assert values["loss"] == pytest.approx(loss.item() / size, abs=1e-3)
    assert values["score"] == pytest.approx(GOLDEN["scores"].mean(), abs=1e-3)
    assert (values["nsentences"], values["ntokens"]) == (12, 2 * size)


def test_sentence_avg_counts_pictures() -> None:
    assert golden_run(sentence_avg=True)[3][1] == 6


def test_better_pictures_become_likelier_and_worse_ones_less_likely() -> None:
    _, _, model, (loss, _, _) = golden_run()
    loss.backward()
    target = torch.from_numpy(GOLDEN["target"])
    slopes = model.logits.grad.gather(2, target[..., None]).squeeze(2)
    rewards = torch.from_numpy(GOLDEN["reward"])[:, None].expand(-1, 4)
    assert torch.equal(slopes.sign(), torch.where(target == PAD, 0, -rewards.sign()))


def test_the_task_sees_codes_and_the_loss_the_end_symbol_too() -> None:
    task = MadeTask([[[10, 11, EOS], [12, 13, EOS]], [[14, 15, EOS], [16, 17, EOS]]], [1.0, 0.0, 0.5, 0.5])
    model = Table(torch.zeros(3, 18))
    loss, size, _ = build(task)(model, batch(2))
    assert [[each.tolist() for each in row] for row in task.scored[0]] == [[[10, 11], [12, 13]], [[14, 15], [16, 17]]]
    assert size == 12
    loss.backward()
    assert model.logits.grad[0].nonzero().flatten().tolist() == [10, 12]


def test_a_caption_with_one_or_no_picture_counts_nothing() -> None:
    task = MadeTask([[[10, EOS]], [[11, EOS], [12, EOS]], []], lambda codes: torch.arange(sum(map(len, codes))))
    loss, size, log = build(task)(Table(torch.zeros(2, 18)), batch(3))
    assert (size, log["nsentences"], log["score"]) == (4, 2, 1.0)
    assert [len(row) for row in task.scored[0]] == [0, 2, 0]
    alone = MadeTask([[[10, EOS]]], lambda codes: pytest.fail("nothing is to be scored"))
    loss, size, log = build(alone)(Table(torch.zeros(2, 18)), batch(1))
    assert (loss.item(), size, log["nsentences"], log["score"]) == (0, 0, 0, 0)


def test_a_dummy_batch_makes_the_same_pass_and_counts_nothing() -> None:
    task = MadeTask([], [])
    model = Table(torch.zeros(3, 18))
    loss, size, log = build(task)(model, {**batch(2), "is_dummy": True})
    loss.backward()
    assert (loss.item(), size, log["score"], len(model.calls), task.modes) == (0, 0, 0, 1, [])
    assert model.logits.grad is not None and not model.logits.grad.any()


@pytest.mark.parametrize("training", [True, False])
def test_the_search_evaluates_and_the_model_goes_on_as_before(training: bool) -> None:
    task = MadeTask([[[10, EOS], [11, EOS]]], [1.0, 0.0])
    model = Table(torch.zeros(2, 18)).train(training)
    loss, _, _ = build(task)(model, batch(1))
    assert task.modes == [(False, False)] and loss.requires_grad
    assert model.training == training == model.calls[0]["training"]


def test_only_codes_are_possible_inside_the_constraint_range() -> None:
    task = MadeTask([[[10, 11, EOS], [12, 13, EOS]]], [1.0, 0.0])
    logits = torch.randn(2, 3, 18, generator=torch.Generator().manual_seed(0))
    loss, _, _ = build(task, constraint_range="10,18")(Table(logits), batch(1))
    other = logits.clone()
    other[0, :, 4:10] = 9.0
    same, _, _ = build(task, constraint_range="10,18")(Table(other), batch(1))
    free, _, _ = build(task)(Table(other), batch(1))
    assert loss.item() == pytest.approx(same.item(), rel=1e-6) != free.item()


def test_each_caption_is_read_once_for_all_its_pictures() -> None:
    """The network's own pass over codes, which has its own positions and layer norm."""
    generator = torch.Generator().manual_seed(0)
    found = torch.cat([torch.randint(10, 18, (2, 3, 16), generator=generator), torch.full((2, 3, 1), EOS)], dim=2)
    scores = torch.rand(6, generator=generator)
    task = MadeTask(found, scores)
    net = tiny(code_image_size=32).eval()
    source = torch.tensor([[0, 5, 6, 2], [0, 7, 8, 2]])
    sample = batch(2, src_tokens=source, src_lengths=torch.tensor([4, 4]), code_masks=torch.ones(2, dtype=torch.bool))
    criterion = build(task)
    loss, size, _ = criterion(net, sample)
    assert size == 2 * 3 * 17
    weights = criterion.rewarded(task.generate([net], sample), sample).weights
    expected = 0.0
    for row in range(2):
        for tokens, weight in zip(found[row], weights[row], strict=True):
            prev = torch.cat([torch.tensor([BOS]), tokens[:-1]])[None]
            with torch.no_grad():
                logits, _ = net(
                    source[row : row + 1], torch.tensor([4]), prev_output_tokens=prev, code_masks=torch.ones(1).bool()
                )
            expected -= float(weight * F.log_softmax(logits[0], dim=-1).gather(1, tokens[:, None]).sum())
    assert loss.item() == pytest.approx(expected, rel=1e-3, abs=1e-4)
    assert len(sample["net_input"]["code_masks"]) == 2  # the batch itself stays as it was


def test_sampled_pictures_get_the_rewarded_codes() -> None:
    """A table learns by its own samples to paint the one code that is worth something."""
    torch.manual_seed(0)
    model = Table(torch.zeros(5, 18))

    def sample() -> list[list[list[int]]]:
        codes = torch.distributions.Categorical(logits=model.logits[:4, CODES.start :]).sample((8,)) + CODES.start
        return [[[*row, EOS] for row in codes.tolist()]]

    task = MadeTask(sample, lambda rows: [float(each.eq(13).float().mean()) for row in rows for each in row])
    criterion = build(task, constraint_range="10,18")
    optimizer = torch.optim.Adam(model.parameters(), lr=0.2)
    scores = []
    for _ in range(60):
        loss, size, log = criterion(model, batch(1))
        optimizer.zero_grad()
        (loss / size).backward()
        optimizer.step()
        scores.append(log["score"] / log["nsentences"])
    assert np.mean(scores[:5]) < 0.35 and np.mean(scores[-5:]) > 0.9


def test_tasks_without_pictures_or_search_are_refused() -> None:
    task = MadeTask([], [])
    task.scst_generator = None  # type: ignore[assignment]
    with pytest.raises(ConfigError, match="gives nothing to reward"):
        build(task)
    other = SimpleNamespace(target_dictionary=task.target_dictionary, scst_generator=object())
    with pytest.raises(ConfigError, match="has no pictures to score; use --task image_gen"):
        build(other)


def test_flags_are_the_originals() -> None:
    config = CRITERION_DATACLASS_REGISTRY[CLIP]()
    assert (config.ignore_prefix_size, config.constraint_range) == (0, None)
    assert hasattr(config, "sentence_avg")
    unexplained = {key for key in config._get_all_attributes() if not config._get_help(key)}
    assert unexplained <= {"_name", "sentence_avg"}
