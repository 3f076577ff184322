"""Mixing of pretraining sources: what is read with what, by which rank, how often."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unival_plugin.data.batching import epoch_batches
from unival_plugin.data.mixing import EpochPlan, Line, Mixture, Source, format_table, left_out, line_generator, ratios
from unival_plugin.errors import ConfigError

GOLDEN = Path(__file__).parents[1] / "golden" / "unival_tasks"

source_numbers = st.tuples(st.integers(0, 12), st.integers(1, 6), st.sampled_from([1, 2]))


@st.composite
def mixtures(draw: st.DrawFn) -> Mixture:
    numbers = draw(st.lists(source_numbers, min_size=1, max_size=3))
    sources = tuple(Source(f"s{k}", *number) for k, number in enumerate(numbers))
    return Mixture(tuple(draw(st.lists(st.integers(1, 25), min_size=1, max_size=3))), sources)


def plans(mixture: Mixture, epoch: int, shards: int, shuffle: bool, seed: int = 3) -> list[EpochPlan]:
    return [mixture.plan(epoch, seed, shuffle, shards, shard) for shard in range(shards)]


def read(plan: EpochPlan) -> list[list[Line]]:
    return [plan.lines(position) for position in range(len(plan))]


def dealt(mixture: Mixture, name: str, epochs: int, shards: int, shuffle: bool) -> list[int]:
    """Rows of a source in the order in which the ranks, side by side, read them."""
    rows = []
    for epoch in range(1, epochs + 1):
        ranks = [read(plan) for plan in plans(mixture, epoch, shards, shuffle)]
        for side_by_side in zip(*ranks, strict=True):
            rows += [line.row for lines in side_by_side for line in lines if line.source == name]
    return rows


def counted(mixture: Mixture, epochs: int) -> list[list[tuple[str, int]]]:
    """What readers that count and remember would read: one process, files in order."""
    positions = {source.name: 0 for source in mixture.sources}
    out = []
    for epoch in range(epochs):
        for row in range(mixture.main_rows[epoch % len(mixture.main_rows)]):
            lines = [("main", row)]
            for source in mixture.sources:
                if source.rows and (row + 1) % source.every == 0:
                    lines.append((source.name, positions[source.name] % source.rows))
                    positions[source.name] += 1
            out.append(lines)
    return out


# ---- the rule


def test_lines_are_the_references() -> None:
    case = json.loads((GOLDEN / "mixing.json").read_text())
    ids = {"main": case["main_ids"], "cc12m": case["source_ids"]}
    mixture = Mixture((len(ids["main"]),), (Source("cc12m", len(ids["cc12m"]), case["every"]),))
    lines = [lines for epoch in (1, 2) for lines in read(mixture.plan(epoch, seed=1, shuffle=False))]
    assert [[ids[line.source][line.row] for line in group] for group in lines] == case["reads"]


@given(mixture=mixtures(), epochs=st.integers(1, 5))
def test_one_rank_in_file_order_reads_as_readers_that_count_would(mixture: Mixture, epochs: int) -> None:
    lines = [group for epoch in range(1, epochs + 1) for group in read(mixture.plan(epoch, 1, shuffle=False))]
    assert [[(line.source, line.row) for line in group] for group in lines] == counted(mixture, epochs)


@given(mixture=mixtures(), epoch=st.integers(1, 4), shards=st.integers(1, 5), shuffle=st.booleans())
def test_main_lines_are_those_of_a_single_table(mixture: Mixture, epoch: int, shards: int, shuffle: bool) -> None:
    for shard, plan in enumerate(plans(mixture, epoch, shards, shuffle)):
        batches = epoch_batches(mixture.rows_in(epoch), shards, shard, 4, seed=3, epoch=epoch, shuffle=shuffle)
        assert [lines[0].row for lines in read(plan) if lines] == sum(batches, [])


def test_each_rank_counts_its_own_lines() -> None:
    mixture = Mixture((8,), (Source("vqa", 5, 3),))
    joined = [[len(lines) - 1 for lines in read(plan)] for plan in plans(mixture, 1, 2, shuffle=True)]
    assert joined == [[0, 0, 1, 0], [0, 0, 1, 0]]


def test_sources_follow_the_main_line_in_their_order_and_name_their_batch() -> None:
    mixture = Mixture((2,), (Source("film", 3, 1, batch=2), Source("vqa", 3, 2)), main="captions")
    lines = mixture.plan(1, 1, shuffle=False).lines(1)
    assert lines == [Line("captions", 1, 1, 1), Line("film", 1, 0, 2), Line("vqa", 0, 0, 1)]


def test_turn_counts_the_passes_over_a_source() -> None:
    mixture = Mixture((5,), (Source("vqa", 2, 1),))
    turns = [line.turn for plan in (mixture.plan(e, 1, True) for e in (1, 2)) for _, line in read(plan)]
    assert turns == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]


# ---- coverage


@given(mixture=mixtures(), shards=st.integers(1, 5), shuffle=st.booleans())
def test_no_row_comes_twice_on_any_rank_before_all_came_once(mixture: Mixture, shards: int, shuffle: bool) -> None:
    for source in mixture.sources:
        rows = dealt(mixture, source.name, 4, shards, shuffle)
        for start in range(0, len(rows), source.rows or 1):
            one_pass = rows[start : start + source.rows]
            whole = set(range(source.rows))
            assert len(set(one_pass)) == len(one_pass)
            assert set(one_pass) == whole or (set(one_pass) < whole and start + source.rows > len(rows))


@given(mixture=mixtures(), epoch=st.integers(1, 5), shards=st.integers(1, 5), shuffle=st.booleans())
def test_main_rows_are_covered_once_in_an_epoch(mixture: Mixture, epoch: int, shards: int, shuffle: bool) -> None:
    rows = [row for plan in plans(mixture, epoch, shards, shuffle) for row in plan.rows.tolist()]
    assert sorted(rows) == list(range(mixture.rows_in(epoch)))


@given(mixture=mixtures(), shards=st.integers(1, 4), shuffle=st.booleans())
def test_source_turn_and_row_never_come_twice(mixture: Mixture, shards: int, shuffle: bool) -> None:
    every_plan = [plan for epoch in range(1, 5) for plan in plans(mixture, epoch, shards, shuffle)]
    keys = [line[:3] for plan in every_plan for lines in read(plan) for line in lines]
    assert len(set(keys)) == len(keys)


def test_many_passes_in_one_epoch_are_all_whole() -> None:
    rows = dealt(Mixture((70_000,), (Source("tiny", 3, 1),)), "tiny", epochs=1, shards=1, shuffle=True)
    passes = np.array(rows[:69_999]).reshape(-1, 3)
    assert (np.sort(passes, axis=1) == np.arange(3)).all()


def test_passes_of_a_shuffled_source_differ_in_order() -> None:
    mixture = Mixture((40,), (Source("vqa", 40, 1), Source("cc12m", 40, 1)))
    orders = {tuple(dealt(mixture, name, 2, 1, True)[start:][:40]) for name in ("vqa", "cc12m") for start in (0, 40)}
    assert len(orders) == 4


# ---- ranks


@given(mixture=mixtures(), shards=st.integers(2, 6), shuffle=st.booleans())
def test_dealt_rows_do_not_depend_on_the_number_of_ranks(mixture: Mixture, shards: int, shuffle: bool) -> None:
    for source in mixture.sources:
        one, many = (dealt(mixture, source.name, 3, ranks, shuffle) for ranks in (1, shards))
        assert many == one[: len(many)]
        assert len(one) - len(many) <= 3 * (shards - 1)


@given(rows=st.integers(1, 40), numbers=source_numbers, shards=st.integers(1, 6), size=st.integers(1, 5))
def test_all_ranks_have_the_same_batches(rows: int, numbers: tuple[int, int, int], shards: int, size: int) -> None:
    ranks = plans(Mixture((rows,), (Source("s", *numbers),)), 1, shards, shuffle=True)
    assert len({str(plan.batches(size)) for plan in ranks}) == 1
    assert sum(ranks[0].batches(size), []) == list(range(len(ranks[0])))


@given(mixture=mixtures(), epoch=st.integers(1, 4), shards=st.integers(1, 6))
def test_ranks_agree_where_the_second_batch_has_lines(mixture: Mixture, epoch: int, shards: int) -> None:
    ranks = plans(mixture, epoch, shards, shuffle=True)
    for position in range(len(ranks[0])):
        found = any(line.batch == 2 for plan in ranks for line in plan.lines(position))
        assert {plan.has_second(position) for plan in ranks} == {found}


def test_a_rank_that_is_short_of_lines_has_a_position_without_any() -> None:
    first, second = plans(Mixture((3,), (Source("film", 9, 2, batch=2),)), 1, 2, shuffle=False)
    assert [len(lines) for lines in read(first)] == [1, 2]
    assert [len(lines) for lines in read(second)] == [1, 0]
    assert second.has_second(1)


def test_a_source_smaller_than_the_number_of_ranks_reaches_all_ranks() -> None:
    ranks = plans(Mixture((8,), (Source("sound", 1, 1),)), 1, 4, shuffle=True)
    assert [plan.counts() for plan in ranks] == [{"main": 2, "sound": 2}] * 4


def test_more_ranks_than_main_lines_still_have_equally_many_batches() -> None:
    ranks = plans(Mixture((2,), (Source("vqa", 3, 1),)), 1, 4, shuffle=True)
    assert [plan.batches(2) for plan in ranks] == [[[0]]] * 4
    assert [len(plan.lines(0)) for plan in ranks] == [2, 2, 0, 0]


# ---- resuming, workers


@given(mixture=mixtures(), shards=st.integers(1, 3), stop=st.integers(0, 40), size=st.integers(1, 4))
def test_a_resumed_run_reads_what_an_uninterrupted_one_reads(
    mixture: Mixture, shards: int, stop: int, size: int
) -> None:
    def batches(first_epoch: int) -> list[list[Line]]:
        fresh = Mixture(mixture.main_rows, mixture.sources)
        plans = [fresh.plan(epoch, 5, True, shards, shards - 1) for epoch in range(first_epoch, 5)]
        return [sum(map(plan.lines, batch), []) for plan in plans for batch in plan.batches(size)]

    whole = batches(1)
    in_epoch = [len(mixture.plan(epoch, 5, True, shards).batches(size)) for epoch in range(1, 5)]
    stop %= len(whole)
    epoch = 1 + int(np.searchsorted(np.cumsum(in_epoch), stop, side="right"))
    assert batches(epoch)[stop - sum(in_epoch[: epoch - 1]) :] == whole[stop:]


def test_a_plan_reaches_workers_unchanged() -> None:
    plan = Mixture((9,), (Source("vqa", 4, 2),)).plan(2, 1, True, 2, 1)
    assert read(pickle.loads(pickle.dumps(plan))) == read(plan)


def test_another_source_does_not_move_a_source() -> None:
    vqa, film = Source("vqa", 7, 1), Source("film", 5, 2, 2)
    with_film = dealt(Mixture((9,), (film, vqa)), "vqa", 3, 2, shuffle=True)
    assert dealt(Mixture((9,), (vqa,)), "vqa", 3, 2, shuffle=True) == with_film


def test_orders_depend_on_the_seed() -> None:
    mixture = Mixture((50,), (Source("vqa", 50, 1),))
    first, second, negative = (read(mixture.plan(1, seed, True)) for seed in (1, 2, -1))
    assert first != second
    assert first != negative
    assert first == read(mixture.plan(1, 1, True))


def test_randomness_of_a_line_depends_on_source_turn_row_and_seed() -> None:
    lines = [Line("a", 0, 0, 1), Line("b", 0, 0, 1), Line("a", 1, 0, 1), Line("a", 0, 1, 1)]
    draws = {line_generator(seed, line).random() for line in lines for seed in (1, -1)}
    assert len(draws) == 8
    assert line_generator(1, lines[0]).random() == line_generator(1, lines[0]).random()


# ---- what cannot be mixed


def test_a_source_without_rows_is_left_out_and_named() -> None:
    mixture = Mixture((4,), (Source("sound", 0, 1, 2), Source("vqa", 2, 1)))
    plan = mixture.plan(1, 1, True)
    assert {line.source for lines in read(plan) for line in lines} == {"main", "vqa"}
    assert not any(plan.has_second(position) for position in range(4))
    assert len(left_out(mixture)) == 1
    assert "sound has no rows" in left_out(mixture)[0]


def test_a_source_that_is_never_reached_is_named() -> None:
    mixture = Mixture((4, 7), (Source("cc12m", 9, 4),))
    assert left_out(mixture, shards=1) == left_out(mixture, shards=2) == []
    assert "reads only 3 in an epoch" in left_out(mixture, shards=3)[0]


@pytest.mark.parametrize("numbers", [(-1, 1, 1), (3, 0, 1), (3, 1, 0), (3, 1, 3)])
def test_impossible_sources_are_refused(numbers: tuple[int, int, int]) -> None:
    with pytest.raises(ConfigError, match="source vqa"):
        Source("vqa", *numbers)


@pytest.mark.parametrize("rows", [(), (3, 0)])
def test_main_files_without_rows_are_refused(rows: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match="source captions"):
        Mixture(rows, main="captions")


def test_equal_names_are_refused() -> None:
    with pytest.raises(ConfigError, match="name of its own"):
        Mixture((3,), (Source("main", 1, 1),))


def test_impossible_epochs_shards_and_positions_are_refused() -> None:
    mixture = Mixture((3,))
    with pytest.raises(ValueError, match="count from 1"):
        mixture.plan(0, 1, True)
    with pytest.raises(ValueError, match="no shard"):
        mixture.plan(1, 1, True, 2, 2)
    for position in (-1, 3):
        with pytest.raises(IndexError, match="3 positions"):
            mixture.plan(1, 1, True).lines(position)


# ---- the table


def stage_1() -> Mixture:
    return Mixture((1600,), (Source("vqa", 800, 1), Source("ground", 3200, 1), Source("cc12m", 9000, 8)), "captions")


def test_ratios_are_those_of_stage_1() -> None:
    table = {ratio.name: ratio for ratio in ratios(stage_1(), batch_size=2, shards=8, update_freq=2)}
    assert [ratio.lines_per_main_line for ratio in table.values()] == [1, 1, 1, 0.125]
    assert [ratio.samples_per_update for ratio in table.values()] == [64, 64, 64, 8]
    assert [ratio.share for ratio in table.values()] == [0.32, 0.32, 0.32, 0.04]
    assert [ratio.passes_per_epoch for ratio in table.values()] == [1, 2, 0.5, pytest.approx(200 / 9000)]


@given(mixture=mixtures(), shards=st.integers(1, 4))
def test_ratios_are_what_is_read(mixture: Mixture, shards: int) -> None:
    epochs = range(1, len(mixture.main_rows) + 1)
    counts = [plan.counts() for epoch in epochs for plan in plans(mixture, epoch, shards, shuffle=False)]
    for ratio in ratios(mixture, batch_size=2, shards=shards):
        lines = sum(count.get(ratio.name, 0) for count in counts)
        assert ratio.lines_per_main_line * sum(mixture.main_rows) == pytest.approx(lines)
        assert ratio.passes_per_epoch * ratio.rows * len(epochs) == pytest.approx(lines)


def test_main_files_of_a_cycle_are_one_pass_together() -> None:
    assert ratios(Mixture((30, 10)), batch_size=1)[0].passes_per_epoch == 0.5


def test_table_is_aligned_text() -> None:
    lines = format_table(ratios(stage_1(), batch_size=2, shards=8, update_freq=2))
    assert lines == [
        "source    batch  every  rows  lines/main line  samples/update   share  passes/epoch",
        "captions      1      1  1600                1              64   32.0%             1",
        "vqa           1      1   800                1              64   32.0%             2",
        "ground        1      1  3200                1              64   32.0%           0.5",
        "cc12m         1      8  9000            0.125               8    4.0%       0.02222",
        "all                                     3.125             200  100.0%",
    ]
