"""Full COCO evaluation; the real run needs pycocoevalcap and Java."""

import importlib.util
import json
import logging
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from unival_plugin.errors import ConfigError, DataError
from unival_plugin.metrics import coco

SCRIPT = Path(__file__).parents[2] / "run_scripts" / "caption" / "coco_eval.py"
TOOLS = importlib.util.find_spec("pycocoevalcap") is not None and shutil.which("java") is not None
needs_tools = pytest.mark.skipif(not TOOLS, reason="needs pycocoevalcap and Java")
ANNOTATIONS = [
    (1, "A man rides a red horse."),
    (1, "The man is on a horse."),
    (2, "Two dogs play in the snow."),
    (2, "Dogs running through white snow"),
    (3, "A plate of food"),
    (3, ""),
    (4, "never predicted"),
]
PREDICTIONS = [
    {"image_id": "1", "caption": "a man\nrides a horse"},
    {"image_id": "1", "caption": "the second caption does not count"},
    {"image_id": 2, "caption": "two dogs play in the snow"},
    {"image_id": "3", "caption": ""},
]


@pytest.fixture
def ground_truth(tmp_path):
    path = tmp_path / "gt.json"
    annotations = [{"image_id": image, "id": i, "caption": text} for i, (image, text) in enumerate(ANNOTATIONS)]
    path.write_text(json.dumps({"images": [{"id": i} for i in (1, 2, 3, 4)], "annotations": annotations}))
    return path


@pytest.fixture
def tools_present(monkeypatch):
    monkeypatch.setattr(coco, "_require_tools", lambda: None)


@pytest.mark.slow
@needs_tools
def test_scores_of_the_coco_tools(ground_truth, caplog):
    with caplog.at_level(logging.INFO):
        scores = coco.evaluate(PREDICTIONS, ground_truth)
    names = ["BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "METEOR", "ROUGE_L", "CIDEr"]
    assert [name for name in scores if name != "SPICE"] == names
    assert scores["BLEU-1"] > scores["BLEU-4"] > 0
    assert all(0 < scores[name] <= 1 for name in names[:-1])
    assert 0 < scores["CIDEr"] <= 10
    assert ("SPICE" in scores) != ("SPICE skipped" in caplog.text)
    assert "1 pictures have no prediction" in caplog.text
    assert "1 further captions" in caplog.text


@pytest.mark.slow
@needs_tools
def test_our_numbers_are_those_of_pycocoevalcap(ground_truth):
    from pycocoevalcap.cider.cider import Cider

    scores = coco.evaluate(PREDICTIONS, ground_truth)
    hypotheses = coco._tokenize(coco._hypotheses(PREDICTIONS))
    references = coco._tokenize(coco._references(ground_truth, hypotheses))
    assert references["1"] == ["a man rides a red horse", "the man is on a horse"]
    expected, _ = Cider().compute_score(references, hypotheses)
    assert scores["CIDEr"] == pytest.approx(expected)


@pytest.mark.slow
@needs_tools
def test_script_prints_all_scores(ground_truth, tmp_path):
    (tmp_path / "predict.json").write_text(json.dumps(PREDICTIONS))
    command = [sys.executable, str(SCRIPT), str(tmp_path / "predict.json"), str(ground_truth)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    lines = [line.split(":")[0] for line in result.stdout.splitlines()]
    assert lines == ["BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "METEOR", "ROUGE_L", "CIDEr", "SPICE"]


def test_missing_java_is_named(monkeypatch, ground_truth):
    pytest.importorskip("pycocoevalcap")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ConfigError, match="need Java"):
        coco.evaluate(PREDICTIONS, ground_truth)


def test_missing_package_is_named(monkeypatch, ground_truth):
    monkeypatch.setitem(sys.modules, "pycocoevalcap", None)
    with pytest.raises(ConfigError, match="pip install"):
        coco.evaluate(PREDICTIONS, ground_truth)


@pytest.mark.parametrize(
    "predictions", [[], {}, [{"caption": "a"}], [{"image_id": 1}], [{"image_id": 1, "caption": 3}]]
)
def test_wrong_predictions_are_refused(tools_present, ground_truth, predictions):
    with pytest.raises(DataError, match="predictions"):
        coco.evaluate(predictions, ground_truth)


def test_pictures_without_references_are_counted(tools_present, ground_truth):
    with pytest.raises(DataError, match="2 predicted pictures, first id '8'"):
        coco.evaluate([{"image_id": i, "caption": "a"} for i in (8, 9, 1)], ground_truth)


def test_files_that_are_no_json_are_named(tools_present, tmp_path, ground_truth):
    (tmp_path / "p.json").write_text("{")
    with pytest.raises(DataError, match=r"p\.json: not a JSON file"):
        coco.evaluate(tmp_path / "p.json", ground_truth)
    with pytest.raises(DataError, match=r"nothing\.json: cannot read"):
        coco.evaluate(PREDICTIONS, tmp_path / "nothing.json")
    (tmp_path / "gt2.json").write_text("[]")
    with pytest.raises(DataError, match="COCO format"):
        coco.evaluate(PREDICTIONS, tmp_path / "gt2.json")
