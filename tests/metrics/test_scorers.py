"""``--scoring caption`` of fairseq-generate."""

import pytest
from fairseq import options
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq.scoring import build_scorer

from unival_plugin.metrics import scorers
from unival_plugin.metrics.captions import CaptionMetric
from unival_plugin.metrics.cider import DocumentFrequency


def scorer_from_command_line(tmp_path, *flags):
    parser = options.get_generation_parser()
    arguments = [str(tmp_path), "--path", "model.pt", "--task", "translation", "--scoring", "caption", *flags]
    config = convert_namespace_to_omegaconf(options.parse_args_and_arch(parser, arguments))
    return build_scorer(config.scoring, None)


def test_result_line(tmp_path):
    scorer = scorer_from_command_line(tmp_path)
    assert isinstance(scorer, scorers.CaptionScorer)
    scorer.add_string("a red car&&the red car", "a red car.")
    scorer.add_string("two dogs", "a blue boat")
    expected = CaptionMetric().score(["a red car", "a blue boat"], [["a red car", "the red car"], ["two dogs"]])
    assert scorer.score() == pytest.approx(expected["cider"].mean())
    assert scorer.result_string() == f"CIDEr-D {scorer.score():.3f} | exact match 50.00 % | 2 captions"


def test_frequencies_from_a_file(tmp_path):
    DocumentFrequency({}, 100.0).save(tmp_path / "df.json")
    scorer = scorer_from_command_line(tmp_path, "--caption-cider-df", str(tmp_path / "df.json"))
    scorer.add_string("a red car now", "a red car now")
    assert scorer.result_string() == "CIDEr-D 10.000 | exact match 100.00 % | 1 captions"


def test_nothing_scored(tmp_path):
    scorer = scorer_from_command_line(tmp_path)
    assert scorer.score() == 0.0
    assert scorer.result_string() == "CIDEr-D - | exact match - | 0 captions"
