"""Boxes are all that a search with a box grammar can give, whatever the network says."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_network import search, tiny

from unival_plugin.errors import ConfigError
from unival_plugin.generation.grammar import BoxGrammar

EOS, FIRST, BINS = 2, 7, 5
SOURCE = torch.tensor([[5, 6, 2], [6, 4, 2]])
BOXES = {"min_len": 4, "max_len_b": 4, "zero_shot": True}


def boxes_of(hypotheses):
    return [(hypothesis["tokens"] - FIRST).tolist() for row in hypotheses for hypothesis in row]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([1, 2, 5, 30]), st.booleans(), st.sampled_from([0, 3]))
def test_only_boxes_are_found(seed, beam, ordered, ngram):
    ngram = 0 if ordered else ngram
    grammar = BoxGrammar(FIRST, BINS, EOS, ordered)
    found = search(tiny(seed, 14), SOURCE, None, grammar, beam_size=beam, no_repeat_ngram_size=ngram, **BOXES)
    assert [len(row) for row in found] == [beam, beam]
    for *box, end in boxes_of(found):
        assert len(box) == 4 and all(0 <= bin_ < BINS for bin_ in box) and end == EOS - FIRST
        if ordered:
            assert box[0] <= box[2] and box[1] <= box[3]


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000))
def test_all_ordered_boxes_can_be_found(seed):
    grammar = BoxGrammar(FIRST, 2, EOS, ordered=True)
    found = boxes_of(search(tiny(seed, 14), SOURCE, None, grammar, beam_size=16, **BOXES))
    expected = {(a, b, c, d, -5) for a in (0, 1) for b in (0, 1) for c in (0, 1) for d in (0, 1) if a <= c and b <= d}
    assert set(map(tuple, found)) == expected


def test_scores_are_those_of_a_free_search():
    """The grammar only leaves hypotheses out: where the free search finds a box, it is the same with the same score."""
    compared = 0
    for seed in range(40):
        net = tiny(seed, 14)
        net.decoder.output_projection.weight.data[FIRST : FIRST + BINS] *= 3
        free = search(net, SOURCE, beam_size=60, min_len=4, max_len_b=4)
        bound = search(net, SOURCE, None, BoxGrammar(FIRST, BINS, EOS), beam_size=60, **BOXES)
        for wild, tame in zip(free, bound, strict=True):
            scores = {tuple(h["tokens"].tolist()): float(h["score"]) for h in tame}
            for hypothesis in wild:
                tokens = tuple(hypothesis["tokens"].tolist())
                if tokens in scores:
                    assert float(hypothesis["score"]) == pytest.approx(scores[tokens], abs=1e-5)
                    compared += 1
    assert compared > 500


@pytest.mark.parametrize("ordered", [False, True])
def test_a_grammar_accepts_its_own_language(ordered):
    grammar = BoxGrammar(FIRST, 3, EOS, ordered)
    paths, finished = {(): 0}, []
    for _ in range(5):
        following = {}
        for path, node in paths.items():
            rows, edges = grammar.edges_from(torch.tensor([node]))
            assert rows.tolist() == [0] * len(edges)
            for symbol in grammar.tokens[edges].tolist():
                following[(*path, symbol)] = int(grammar.follow(torch.tensor([node]), torch.tensor([symbol])))
        paths = following
    finished = list(paths)
    assert len(finished) == (36 if ordered else 81) and all(path[-1] == EOS for path in finished)


def test_after_what_does_not_belong_only_the_end_is_possible():
    grammar = BoxGrammar(FIRST, 3, EOS, ordered=True)
    node = grammar.follow(torch.zeros(3, dtype=torch.int64), torch.tensor([EOS, FIRST + 3, FIRST - 1]))
    rows, edges = grammar.edges_from(node)
    assert rows.tolist() == [0, 1, 2] and grammar.tokens[edges].tolist() == [EOS] * 3


@pytest.mark.parametrize(("first", "bins"), [(3, 4), (9, 0)])
def test_a_dictionary_without_bins_is_refused(first, bins):
    with pytest.raises(ConfigError, match="bins"):
        BoxGrammar(first, bins)
