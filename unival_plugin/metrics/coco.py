"""Full COCO caption scores through pycocoevalcap (extra ``coco``), as in UnIVAL's ``run_scripts/caption/coco_eval.py``.

The tokenizer and METEOR are Java programs that come with pycocoevalcap; SPICE needs a further download and is left out
when that is missing. CIDEr is our own, which gives the same numbers.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import ConfigError, DataError
from .cider import CiderD, DocumentFrequency

logger = logging.getLogger(__name__)

SPICE_JAR = "stanford-corenlp-3.6.0.jar"
Captions = dict[str, list[str]]


def evaluate(predictions: Sequence[Mapping[str, Any]] | str | Path, coco_json: str | Path) -> dict[str, float]:
    """Scores captions against a COCO-format annotation file.

    ``predictions``: list of ``{"image_id", "caption"}`` or the path of a JSON file with such a list; of several entries
    for one picture the first counts. Ids are compared as strings. Only pictures with a prediction are scored.
    Returns BLEU-1..4, METEOR, ROUGE_L and CIDEr (natural scale: CIDEr 0..10, the others 0..1), and SPICE where its
    Stanford CoreNLP files are installed. Raises ConfigError when pycocoevalcap or Java is missing, DataError for
    content that does not fit.
    """
    _require_tools()
    hypotheses = _hypotheses(predictions)
    references = _references(Path(coco_json), hypotheses)
    hypotheses, references = _tokenize(hypotheses), _tokenize(references)
    scores = _bleu_meteor_rouge(references, hypotheses)
    ids = list(hypotheses)
    groups = [references[i] for i in ids]
    cider = CiderD(DocumentFrequency.from_references(groups)).scores([hypotheses[i][0] for i in ids], groups)
    scores["CIDEr"] = float(cider.mean())
    return scores | _spice(references, hypotheses)


def _require_tools() -> None:
    try:
        import pycocoevalcap  # noqa: F401
    except ImportError:
        raise ConfigError("COCO scores need pycocoevalcap: pip install 'unival_plugin[coco]'") from None
    if shutil.which("java") is None:
        raise ConfigError("COCO scores need Java on PATH (a runtime of version 8 or newer, such as openjdk-17-jre)")


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: cannot read: {error.strerror}") from None
    except ValueError as error:
        raise DataError(f"{path}: not a JSON file ({error})") from None


def _hypotheses(predictions: Sequence[Mapping[str, Any]] | str | Path) -> Captions:
    where = "predictions"
    entries: Any = predictions
    if isinstance(predictions, (str, Path)):
        where = str(predictions)
        entries = _read_json(Path(predictions))
    if not isinstance(entries, Sequence) or not entries:
        raise DataError(f'{where}: needs a list of {{"image_id", "caption"}} with at least one entry')
    found: Captions = {}
    for number, entry in enumerate(entries):
        image, caption = _image_and_caption(entry, f"{where}: entry {number}")
        found.setdefault(image, [caption])
    if len(found) < len(entries):
        logger.info("%s: %d further captions of pictures already seen left out", where, len(entries) - len(found))
    return found


def _image_and_caption(entry: Any, where: str) -> tuple[str, str]:
    if not isinstance(entry, Mapping) or "image_id" not in entry or not isinstance(entry.get("caption"), str):
        raise DataError(f'{where}: needs "image_id" and a text "caption"')
    return str(entry["image_id"]), entry["caption"]


def _references(path: Path, hypotheses: Captions) -> Captions:
    content = _read_json(path)
    annotations = content.get("annotations") if isinstance(content, Mapping) else None
    if not isinstance(annotations, list):
        raise DataError(f'{path}: not in COCO format (needs "annotations")')
    found: Captions = {image: [] for image in hypotheses}
    others = set()
    for number, annotation in enumerate(annotations):
        image, caption = _image_and_caption(annotation, f"{path}: annotation {number}")
        if image in found:
            found[image].append(caption)
        else:
            others.add(image)
    missing = [image for image, captions in found.items() if not captions]
    if missing:
        raise DataError(f"{path}: no reference caption for {len(missing)} predicted pictures, first id {missing[0]!r}")
    if others:
        logger.warning("%s: %d pictures have no prediction and are left out", path, len(others))
    return found


def _tokenize(captions: Captions) -> Captions:
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    # One caption is one line for the tokenizer, so nothing inside may break a line.
    rows = {image: [{"caption": " ".join(text.split())} for text in texts] for image, texts in captions.items()}
    tokenized = PTBTokenizer().tokenize(rows)
    if any(len(tokenized.get(image, [])) != len(texts) for image, texts in captions.items()):
        raise DataError("the PTB tokenizer returned another number of captions than it was given")
    return dict(tokenized)


def _bleu_meteor_rouge(references: Captions, hypotheses: Captions) -> dict[str, float]:
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.meteor.meteor import Meteor
    from pycocoevalcap.rouge.rouge import Rouge

    bleu, _ = Bleu(4).compute_score(references, hypotheses, verbose=0)
    meteor, _ = Meteor().compute_score(references, hypotheses)
    rouge, _ = Rouge().compute_score(references, hypotheses)
    scores = {f"BLEU-{n}": float(value) for n, value in enumerate(bleu, start=1)}
    return scores | {"METEOR": float(meteor), "ROUGE_L": float(rouge)}


def _spice(references: Captions, hypotheses: Captions) -> dict[str, float]:
    from pycocoevalcap import spice

    # Building the scorer without these files starts a download of 400 MB; that is the user's decision.
    library = Path(spice.__file__).parent / "lib"
    if not (library / SPICE_JAR).exists():
        logger.warning("SPICE skipped: %s is missing; run pycocoevalcap/spice/get_stanford_models.py once", SPICE_JAR)
        return {}
    from pycocoevalcap.spice.spice import Spice

    score, _ = Spice().compute_score(references, hypotheses)
    return {"SPICE": float(score)}
