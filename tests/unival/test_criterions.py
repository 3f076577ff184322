"""Behaviour of the two fine-tuning criterions, against the reference's numbers and on its edges."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fairseq.criterions import CRITERION_DATACLASS_REGISTRY, CRITERION_REGISTRY
from fairseq.logging import metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from unival_plugin.errors import ConfigError
from unival_plugin.unival.criterions.label_smoothed import double_batch
from unival_plugin.unival.criterions.losses import LossOptions, adjusted_loss, bonus, parse_constraint_range

GOLDEN = Path(__file__).parents[1] / "golden" / "unival_tasks"
CASES = json.loads((GOLDEN / "criterion_cases.json").read_text())
CE = "adjust_label_smoothed_cross_entropy"
EL = "adjust_label_smoothed_encouraging_loss"
PAD, EOS = 1, 2
TARGET = torch.tensor([[5, 9, 12, 2, 1], [7, 2, 1, 1, 1], [20, 4, 6, 8, 2]])


class FakeModel(torch.nn.Module):
    """Returns given logits, one tensor per call, and remembers its arguments."""

    def __init__(self, *logits):
        super().__init__()
        self.logits = list(logits)
        self.calls = []

    def forward(self, **net_input):
        self.calls.append(net_input)
        return self.logits[len(self.calls) - 1], {}

    def get_normalized_probs(self, net_output, log_probs=True, sample=None):
        return F.log_softmax(net_output[0].float(), dim=-1)


def build(name, **flags):
    config = CRITERION_DATACLASS_REGISTRY[name]()
    config.sentence_avg = False
    for key, value in flags.items():
        assert hasattr(config, key), key
        setattr(config, key, value)
    dictionary = SimpleNamespace(pad=lambda: PAD, eos=lambda: EOS)
    return CRITERION_REGISTRY[name].build_criterion(config, SimpleNamespace(target_dictionary=dictionary))


def batch(target=TARGET, **more):
    ntokens = int((target != PAD).sum())
    return {"net_input": {}, "target": target, "ntokens": ntokens, "nsentences": target.size(0), **more}


def random_logits(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def reduced(criterion, logs):
    metrics.reset()
    with metrics.aggregate("test"):
        criterion.reduce_metrics(logs)
    return metrics.get_smoothed_values("test")


def run_case(name):
    config = dict(CASES[name]["config"])
    update_num = config.pop("update_num")
    criterion = build(CE if name.startswith("crit_ce") else EL, **config)
    arrays = np.load(GOLDEN / name)
    tensors = {key[3:]: torch.from_numpy(arrays[key]) for key in arrays.files if key.startswith("in_")}
    if "logits1" in tensors:
        model = FakeModel(tensors["logits1"], tensors["logits2"])
        sample = [batch(tensors["target1"]), batch(tensors["target2"])]
    else:
        model = FakeModel(tensors.pop("logits"))
        sample = batch(ntokens=11, **tensors) if "ignore_eos" in name else batch(tensors.pop("target"), **tensors)
    return arrays, criterion, criterion(model, sample, update_num=update_num)


@pytest.mark.parametrize("name", sorted(CASES))
def test_numbers_of_the_reference(name):
    arrays, criterion, (loss, sample_size, log) = run_case(name)
    tolerance = CASES[name]["tolerance"]
    ours = {"loss": loss, "sample_size": sample_size, **{f"log_{key}": value for key, value in log.items()}}
    copies = round(float(arrays["reduced_ntokens"] / arrays["log_ntokens"]))  # of the log that were reduced: 1 or 2
    ours |= {f"reduced_{key}": value for key, value in reduced(criterion, [log] * copies).items()}
    for key in arrays.files:
        if not key.startswith("in_") and key != "allow_pickle":
            assert float(ours[key]) == pytest.approx(float(arrays[key]), rel=tolerance, abs=tolerance), key


@pytest.mark.parametrize("name", [CE, EL])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_logits_are_computed_in_float32(name, dtype):
    logits = random_logits(3, 5, 24, dtype=dtype)
    criterion = build(name, label_smoothing=0.1)
    loss, _, _ = criterion(FakeModel(logits), batch())
    wide, _, _ = criterion(FakeModel(logits.float()), batch())
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(wide.item(), rel=1e-6)


@pytest.mark.parametrize("log_end", [None, 1.0, 0.75, 0.3])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("extra", ["plain", "masks", "conf", "range", "all"])
def test_gradient_is_that_of_the_loss(log_end, smoothing, extra):
    target = torch.tensor([[5, 6, 2, 1], [4, 2, 1, 1]])
    logits = random_logits(2, 4, 9, dtype=torch.float64, seed=3).mul_(2).requires_grad_()
    masks = torch.rand(2, 4, 9, generator=torch.Generator().manual_seed(1)) > 0.4
    masks.scatter_(2, target[..., None], True)
    options = LossOptions(
        label_smoothing=smoothing, log_end=log_end, constraint_range=(4, 7) if extra in ("range", "all") else None
    )

    def loss(x):
        return adjusted_loss(
            x,
            target,
            options,
            PAD,
            EOS,
            constraint_masks=masks if extra in ("masks", "all") else None,
            conf=torch.tensor([0.6, 1.0]) if extra in ("conf", "all") else None,
        ).loss

    assert torch.autograd.gradcheck(loss, (logits,))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_plain_path_equals_torch_cross_entropy(smoothing):
    vocabulary = 24
    logits = random_logits(3, 5, vocabulary).requires_grad_()
    # torch spreads eps over all symbols, the criterion over all but the target
    spread = smoothing * vocabulary / (vocabulary - 1)
    expected = F.cross_entropy(
        logits.view(-1, vocabulary), TARGET.view(-1), ignore_index=PAD, label_smoothing=spread, reduction="sum"
    )
    (wanted,) = torch.autograd.grad(expected, logits)
    loss, _, _ = build(CE, label_smoothing=smoothing)(FakeModel(logits), batch())
    loss.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    torch.testing.assert_close(logits.grad, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", [CE, EL])
def test_dropped_tokens_and_pads_get_no_gradient(name):
    logits = random_logits(3, 5, 24).requires_grad_()
    criterion = build(name, label_smoothing=0.1, drop_worst_ratio=0.3, drop_worst_after=5)
    loss, sample_size, log = criterion(FakeModel(logits), batch(), update_num=6)
    loss.backward()
    touched = logits.grad.abs().sum(-1) > 0
    assert sample_size == int(11 * 0.7) == int(touched.sum())
    assert not touched[TARGET == PAD].any()
    assert log["ntokens"] == 11
    assert torch.isfinite(logits.grad).all()


def test_the_tokens_of_highest_loss_are_dropped():
    logits = random_logits(3, 5, 24)
    nll = -F.log_softmax(logits, -1).gather(2, TARGET[..., None]).squeeze(2)[TARGET != PAD]
    loss, _, _ = build(CE, drop_worst_ratio=0.3)(FakeModel(logits), batch(), update_num=1)
    assert loss.item() == pytest.approx(nll.sort().values[:7].sum().item(), rel=1e-6)


def test_drop_best_does_nothing_unless_switched_on():
    logits = random_logits(3, 5, 24)
    flags = {"label_smoothing": 0.1, "drop_best_ratio": 0.3, "drop_best_after": 2, "log_end": 0.75}
    plain, size, _ = build(EL, **flags)(FakeModel(logits), batch(), update_num=3)
    active = build(EL, **flags, drop_best_active=True)
    dropped, smaller, _ = active(FakeModel(logits), batch(), update_num=3)
    early, same, _ = active(FakeModel(logits), batch(), update_num=2)
    assert (size, same, smaller) == (11, 11, 7)
    assert early.item() == plain.item()
    assert dropped.item() != plain.item()


def test_a_single_allowed_symbol_costs_nothing():
    logits = random_logits(1, 2, 24).mul_(30).requires_grad_()
    target = torch.tensor([[7, 2]])
    masks = F.one_hot(target, 24).bool()
    loss, _, _ = build(CE, label_smoothing=0.1)(FakeModel(logits), batch(target, constraint_masks=masks))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad.abs().max() == 0


def test_forbidden_rows_of_pads_do_not_matter():
    logits = random_logits(3, 5, 24).requires_grad_()
    masks = torch.ones(3, 5, 24, dtype=torch.bool)
    masks[TARGET == PAD] = False  # the rows before an answer allow nothing
    loss, _, _ = build(EL, label_smoothing=0.1)(FakeModel(logits), batch(constraint_masks=masks))
    loss.backward()
    free, _, _ = build(EL, label_smoothing=0.1)(FakeModel(logits.detach()), batch())
    assert loss.item() == pytest.approx(free.item(), rel=1e-5)
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("name", [CE, EL])
@pytest.mark.parametrize("rdrop", [False, True])
def test_a_batch_without_target_tokens_gives_zero(name, rdrop):
    target = torch.full((2, 3), PAD)
    logits = random_logits(4 if rdrop else 2, 3, 24).requires_grad_()
    flags = {"label_smoothing": 0.1, "drop_worst_ratio": 0.2, "use_rdrop": rdrop, "report_accuracy": True}
    criterion = build(name, **flags)
    loss, sample_size, log = criterion(FakeModel(logits), batch(target), update_num=9)
    loss.backward()
    assert loss.item() == 0
    assert sample_size == 0
    assert logits.grad.abs().sum() == 0
    assert reduced(criterion, [log])["loss"] == 0


def test_zero_length_targets_give_zero():
    loss, size, _ = build(EL, label_smoothing=0.1)(
        FakeModel(torch.zeros(2, 0, 24)), batch(torch.zeros(2, 0, dtype=torch.int64))
    )
    assert (loss.item(), size) == (0, 0)


@pytest.mark.parametrize("container", [list, tuple])
@pytest.mark.parametrize("name", [CE, EL])
def test_two_batches_as_list_or_tuple(name, container):
    logits = [random_logits(3, 5, 24, seed=seed) for seed in (1, 2)]
    criterion = build(name, label_smoothing=0.1, sample_patch_num=196)
    parts = [criterion(FakeModel(x), batch()) for x in logits]
    model, pair = FakeModel(*logits), container([batch(), batch()])
    loss, sample_size, log = criterion(model, pair)
    assert sample_size == 1
    assert loss.item() == pytest.approx(sum(p[0].item() / p[1] for p in parts), rel=1e-6)
    assert (log["ntokens"], log["sample_size_v1"], log["sample_size_v2"]) == (22, 11, 11)
    assert model.calls == [{"sample_patch_num": 196}, {}]
    assert pair[0]["net_input"] == {}  # the sample itself stays as it was


@pytest.mark.parametrize("number", [0, None])
def test_without_a_patch_number_the_model_gets_none(number):
    model = FakeModel(random_logits(3, 5, 24), random_logits(3, 5, 24))
    build(CE, sample_patch_num=number)(model, (batch(), batch()))
    assert model.calls == [{}, {}]


def test_an_empty_batch_beside_a_full_one_adds_nothing():
    logits = random_logits(3, 5, 24)
    empty = torch.full((1, 2), PAD)
    criterion = build(CE)
    loss, _, _ = criterion(FakeModel(logits, random_logits(1, 2, 24)), (batch(), batch(empty)))
    alone, size, _ = criterion(FakeModel(logits), batch())
    assert loss.item() == pytest.approx(alone.item() / size)


def test_three_batches_are_refused():
    with pytest.raises(ConfigError, match="3 batches"):
        build(CE)(FakeModel(), [batch(), batch(), batch()])


@pytest.mark.parametrize("name", [CE, EL])
def test_accuracy_counts_first_ranked_targets(name):
    logits = F.one_hot(TARGET, 24).float() * 9
    logits[0, 0] = torch.arange(24.0)  # the first target is missed
    criterion = build(name, report_accuracy=True, label_smoothing=0.1)
    _, _, log = criterion(FakeModel(logits), batch())
    assert (int(log["n_correct"]), log["total"]) == (10, 11)
    assert reduced(criterion, [log, log])["accuracy"] == pytest.approx(90.909)


def test_accuracy_respects_constraints():
    logits = random_logits(3, 5, 24)
    masks = F.one_hot(TARGET, 24).bool()
    _, _, log = build(CE, report_accuracy=True)(FakeModel(logits), batch(constraint_masks=masks))
    assert int(log["n_correct"]) == 11


def test_ignore_eos_accepts_rows_without_or_with_several_ends():
    target = torch.tensor([[5, 2, 2], [6, 7, 8]])
    _, size, _ = build(CE, ignore_eos=True)(FakeModel(random_logits(2, 3, 24)), batch(target))
    assert size == 4


def test_rdrop_doubles_a_copy_of_the_batch():
    sample = {
        "id": np.array(["a", "b"]),
        "ntokens": 3,
        "nsentences": 2,
        "conf": None,
        "flag": True,
        "prompts": [[0], [0, 4]],
        "net_input": {"x": torch.tensor([[1], [2]]), "sample_patch_num": 196, "patch_videos": None},
    }
    doubled = double_batch(sample)
    assert doubled["id"].tolist() == ["a", "b", "a", "b"]
    assert (doubled["ntokens"], doubled["nsentences"]) == (6, 4)
    assert doubled["conf"] is None
    assert doubled["flag"] is True
    assert doubled["prompts"] == [[0], [0, 4], [0], [0, 4]]
    assert doubled["net_input"]["x"].tolist() == [[1], [2], [1], [2]]
    assert doubled["net_input"]["sample_patch_num"] == 196
    assert doubled["net_input"]["patch_videos"] is None
    assert sample["ntokens"] == 3
    assert sample["net_input"]["x"].tolist() == [[1], [2]]


@pytest.mark.parametrize("name", [CE, EL])
def test_rdrop_of_two_equal_passes_adds_nothing(name):
    logits = random_logits(3, 5, 24)
    flags = {"label_smoothing": 0.1} | ({"rdrop_keep_pairs": True} if name == EL else {})
    once, _, _ = build(name, **flags)(FakeModel(logits), batch(), update_num=4)
    criterion = build(name, use_rdrop=True, reg_alpha=3.0, **flags)
    twice, size, log = criterion(FakeModel(logits.repeat(2, 1, 1)), batch(conf=None), update_num=4)
    assert twice.item() == pytest.approx(2 * once.item(), rel=1e-6)
    assert (size, log["ntokens"], log["nsentences"]) == (22, 22, 6)


def test_rdrop_works_with_constraint_masks():
    logits = random_logits(6, 5, 24).requires_grad_()
    masks = torch.rand(3, 5, 24, generator=torch.Generator().manual_seed(5)) > 0.5
    masks.scatter_(2, TARGET[..., None], True)
    criterion = build(CE, use_rdrop=True, label_smoothing=0.1, drop_worst_ratio=0.3)
    loss, _, _ = criterion(FakeModel(logits), batch(constraint_masks=masks, conf=torch.ones(3)), update_num=1)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()


def test_the_bonus_continues_as_its_tangent():
    prob = torch.tensor([0.5, 0.75, 0.9, 1.0])
    values = bonus(prob, 0.75)
    assert values[0].item() == pytest.approx(np.log(0.5))
    assert values[1].item() == pytest.approx(np.log(0.25))
    assert (values[3] - values[2]).item() == pytest.approx(-0.1 / 0.25, rel=1e-4)
    assert bonus(prob, 1.0)[3].item() == pytest.approx(np.log(1e-5))


@pytest.mark.parametrize("log_end", [1.0, 0.75])
def test_certain_tokens_keep_finite_gradients(log_end):
    logits = (F.one_hot(TARGET, 24).float() * 200).requires_grad_()
    loss, _, _ = build(EL, label_smoothing=0.1, log_end=log_end)(FakeModel(logits), batch())
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.0, 0.9), st.sampled_from([CE, EL]))
def test_loss_and_gradient_stay_finite(seed, smoothing, name):
    logits = random_logits(3, 5, 24, seed=seed).mul_(40).requires_grad_()
    loss, _, _ = build(name, label_smoothing=smoothing)(FakeModel(logits), batch())
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("text", ["4", "a,b", "9,9", "2,8", "1,2,3"])
def test_a_wrong_constraint_range_is_refused(text):
    with pytest.raises(ConfigError, match="constraint-range"):
        parse_constraint_range(text)


@pytest.mark.parametrize("flags", [{"label_smoothing": 1.0}, {"drop_worst_ratio": -0.1}, {"drop_worst_ratio": 1.5}])
def test_ratios_out_of_range_are_refused(flags):
    with pytest.raises(ConfigError, match="must be"):
        build(CE, **flags)


@pytest.mark.parametrize("name", [CE, EL])
def test_every_flag_explains_itself(name):
    config = CRITERION_DATACLASS_REGISTRY[name]()
    unexplained = {key for key in config._get_all_attributes() if not config._get_help(key)}
    assert unexplained <= {"_name", "sentence_avg"}


def test_sums_over_processes_are_logged_per_token():
    criterion = build(CE)
    logs = [criterion(FakeModel(random_logits(3, 5, 24, seed=s)), batch())[2] for s in (1, 2)]
    values = reduced(criterion, logs)
    assert values["loss"] == pytest.approx(sum(float(log["loss"]) for log in logs) / 22, abs=1e-3)
