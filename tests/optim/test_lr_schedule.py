"""Behaviour of the scheduler ``polynomial_decay_ratio``."""

from types import SimpleNamespace

import pytest
import torch
from fairseq import options
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq.optim import FairseqOptimizer
from fairseq.optim.lr_scheduler import LR_SCHEDULER_REGISTRY, build_lr_scheduler
from fairseq.optim.lr_scheduler.polynomial_decay_schedule import PolynomialDecayLRSchedule
from hypothesis import given
from hypothesis import strategies as st

from unival_plugin.errors import ConfigError
from unival_plugin.optim.lr_schedule import (
    PolynomialDecayRatioSchedule,
    forget_train_batches,
    note_train_batches,
    updates_of_epochs,
)


class FakeOptimizer(FairseqOptimizer):
    def __init__(self):
        super().__init__(None)
        self._optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.123)


@pytest.fixture(autouse=True)
def no_noted_batches():
    forget_train_batches()
    yield
    forget_train_batches()


def build(**flags):
    values = {
        "warmup_ratio": 0.0,
        "warmup_updates": 0,
        "total_num_update": None,
        "end_learning_rate": 0.0,
        "power": 1.0,
        "force_anneal": None,
        "reference_warmup": False,
        "max_epoch": 0,
        "max_update": 0,
        "update_freq": [1],
        "lr": [1.0],
    }
    assert flags.keys() <= values.keys()
    return PolynomialDecayRatioSchedule(SimpleNamespace(**values | flags), FakeOptimizer())


def rates(schedule, updates):
    return [schedule.step_update(n) for n in range(updates)]


def test_warm_up_starts_above_zero_and_ends_at_lr():
    assert rates(build(warmup_ratio=0.2, max_update=20), 6) == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0, 15 / 16])


def test_last_update_still_learns_and_then_the_rate_is_the_end_rate():
    schedule = build(warmup_ratio=0.2, max_update=20, end_learning_rate=0.01)
    assert schedule.step_update(19) > 0.01
    assert schedule.step_update(20) == pytest.approx(0.01)
    assert schedule.step_update(99) == pytest.approx(0.01)


def test_reference_warm_up_gives_the_first_update_rate_zero():
    schedule = build(warmup_ratio=0.2, max_update=20, reference_warmup=True)
    assert rates(schedule, 6) == pytest.approx([0.0, 0.25, 0.5, 0.75, 1.0, 15 / 16])


def test_reference_warm_up_equals_stock_polynomial_decay():
    optimizer = FakeOptimizer()
    stock = PolynomialDecayLRSchedule(
        SimpleNamespace(
            lr=[0.5], warmup_updates=3, total_num_update=17, end_learning_rate=0.02, power=2.0, force_anneal=None
        ),
        optimizer,
    )
    ours = build(
        lr=[0.5], warmup_updates=3, total_num_update=17, end_learning_rate=0.02, power=2.0, reference_warmup=True
    )
    assert rates(ours, 20) == pytest.approx(rates(stock, 20))


def test_without_warm_up_the_first_update_has_the_full_rate():
    assert rates(build(max_update=4), 4) == pytest.approx([1.0, 0.75, 0.5, 0.25])


def test_length_of_the_run_from_epochs_and_batches():
    note_train_batches(10)
    schedule = build(warmup_ratio=0.5, max_epoch=3, update_freq=[2, 3])
    assert schedule.total == 5 + 4 + 4


def test_the_earlier_end_counts():
    note_train_batches(10)
    assert build(max_epoch=3, max_update=12).total == 12
    assert build(max_epoch=1, max_update=12).total == 10


def test_an_explicit_total_counts_most():
    note_train_batches(10)
    assert build(max_epoch=3, max_update=12, total_num_update=100).total == 100


def test_batches_are_read_after_the_scheduler_was_built():
    schedule = build(warmup_ratio=0.25, max_epoch=2)
    assert schedule.step_update(0) == 0.123  # nothing is known yet: the optimizer's rate stays
    note_train_batches(4)
    assert schedule.step_begin_epoch(1) == pytest.approx(0.5)
    assert schedule.total == 8


def test_a_task_that_does_not_tell_its_batches_is_named_at_the_first_epoch():
    schedule = build(max_epoch=2)
    schedule.step_update(0)
    with pytest.raises(ConfigError, match="batches an epoch has"):
        schedule.step_begin_epoch(1)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({}, "how long is the run"),
        ({"warmup_ratio": 1.0, "max_update": 5}, "below 1"),
        ({"warmup_ratio": -0.1, "max_update": 5}, "at least 0"),
        ({"warmup_ratio": 0.1, "warmup_updates": 3, "max_update": 5}, "not both"),
        ({"warmup_updates": -3, "max_update": 5}, "negative"),
        ({"total_num_update": 0}, "positive"),
    ],
)
def test_contradicting_flags_are_refused(flags, words):
    with pytest.raises(ConfigError, match=words):
        build(**flags)


def test_an_iterator_without_batches_is_refused():
    with pytest.raises(ConfigError, match="at least one"):
        note_train_batches(0)


def test_lr_list_holds_one_rate_per_epoch():
    schedule = build(max_update=100, lr=[1.0, 0.5])
    assert schedule.step_begin_epoch(1) == pytest.approx(1.0)
    assert schedule.step_begin_epoch(2) == pytest.approx(0.5)
    assert schedule.step_begin_epoch(3) == pytest.approx(0.5)


def run(schedule, first_update, last_update, epoch_updates):
    """The calls of fairseq's trainer: one step_update after each update, and once more at the begin of an epoch."""
    seen = []
    for n in range(first_update, last_update):
        schedule.step_update(n)
        if n == first_update or n % epoch_updates == 0:
            schedule.step_begin_epoch(n // epoch_updates + 1)
        seen.append(schedule.step_update(n))
    return seen


@pytest.mark.parametrize("stop", [3, 8, 11, 16, 17])
@pytest.mark.parametrize("force_anneal", [None, 3])
def test_a_resumed_run_has_the_same_rates(stop, force_anneal):
    flags = {"warmup_ratio": 0.1, "max_epoch": 3, "force_anneal": force_anneal, "lr": [1.0, 0.7]}
    note_train_batches(8)
    whole = run(build(**flags), 0, 24, 8)
    first = build(**flags)
    begin = run(first, 0, stop, 8)
    state = first.state_dict()

    forget_train_batches()
    second = build(**flags)
    second.load_state_dict(state)
    second.step_update(stop)  # fairseq does so while it loads the checkpoint, before the data are there
    note_train_batches(9)  # the next epoch's file may be longer
    assert begin + run(second, stop, 24, 8) == whole


def test_state_of_another_scheduler_gives_only_the_best_score():
    schedule = build(max_update=10)
    schedule.load_state_dict({"best": 1.5})
    assert schedule.best == 1.5
    assert schedule.step_update(5) == pytest.approx(0.5)


@given(st.integers(1, 50), st.integers(1, 9), st.lists(st.integers(1, 5), min_size=1, max_size=4))
def test_updates_add_up_over_epochs(batches, epochs, freqs):
    expected = sum(-(-batches // freqs[min(epoch, len(freqs) - 1)]) for epoch in range(epochs))
    assert updates_of_epochs(batches, epochs, freqs) == expected


@given(st.integers(1, 200), st.floats(0, 0.9), st.booleans())
def test_rates_lie_between_zero_and_lr(total, ratio, reference):
    seen = rates(build(warmup_ratio=ratio, max_update=total, reference_warmup=reference), total)
    assert all(0.0 <= rate <= 1.0 for rate in seen)
    if not reference:
        assert min(seen) > 0


def test_command_line_flags_reach_the_scheduler(tmp_path):
    parser = options.get_training_parser()
    arguments = [
        str(tmp_path),
        *("--task", "translation", "--arch", "transformer_iwslt_de_en", "--optimizer", "adam", "--lr", "0.01"),
        *("--lr-scheduler", "polynomial_decay_ratio", "--warmup-ratio", "0.25"),
        *("--max-epoch", "2", "--update-freq", "3"),
    ]
    config = convert_namespace_to_omegaconf(options.parse_args_and_arch(parser, arguments))
    note_train_batches(12)
    schedule = build_lr_scheduler(config.lr_scheduler, FakeOptimizer())
    assert isinstance(schedule, PolynomialDecayRatioSchedule)
    assert schedule.total == 8
    assert schedule.step_update(0) == pytest.approx(0.005)


def test_stock_scheduler_is_left_alone():
    assert LR_SCHEDULER_REGISTRY["polynomial_decay"] is PolynomialDecayLRSchedule
