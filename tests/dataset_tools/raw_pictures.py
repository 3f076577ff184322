"""Makes raw folders of public data sets, in exactly the formats that their owners publish, but tiny."""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

PERSON = {"answer_confidence": "yes"}


def picture(path: Path, seed: int = 0, width: int = 8, height: int = 6) -> bytes:
    """Write a picture, PNG or JPEG by its name; its bytes."""
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (seed * 37 % 256, seed * 11 % 256, 90)).save(
        buffer, "JPEG" if path.suffix == ".jpg" else "PNG"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(buffer.getvalue())
    return buffer.getvalue()


def coco_name(part: str, image: int) -> str:
    return f"COCO_{part}_{image:012d}.jpg"


def coco_picture(raw: Path, part: str, image: int, **size: int) -> bytes:
    return picture(raw / part / coco_name(part, image), image, **size)


def write_json(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def cells_of(path: Path) -> list[list[str]]:
    """The rows of a table."""
    return [line.split("\t") for line in path.read_text(encoding="utf-8").split("\n")[:-1]]


# -------------------------------------------------------------------------------- captions


def karpathy(raw: Path, pictures: Sequence[tuple[str, str, int, Sequence[str]]], missing: Sequence[int] = ()) -> Path:
    """dataset_coco.json and the pictures, given as (split, folder, COCO's id, captions)."""
    images, number = [], 0
    for split, part, image, captions in pictures:
        sentences = []
        for raw_text in captions:
            tokens = raw_text.lower().rstrip(".").split()
            sentences.append({"tokens": tokens, "raw": raw_text, "imgid": len(images), "sentid": number})
            number += 1
        images.append(
            {
                "filepath": part,
                "sentids": [each["sentid"] for each in sentences],
                "filename": coco_name(part, image),
                "imgid": len(images),
                "split": split,
                "sentences": sentences,
                "cocoid": image,
            }
        )
        if image not in missing:
            coco_picture(raw, part, image)
    return write_json(raw / "dataset_coco.json", {"images": images, "dataset": "coco"})


def nocaps(raw: Path, domains: Sequence[str]) -> Path:
    """nocaps_val_4500_captions.json with a picture of each of these domains, and the pictures."""
    images, annotations = [], []
    for number, domain in enumerate(domains):
        name = f"{number:016x}.jpg"
        picture(raw / "val" / name, number)
        images.append(
            {
                "coco_url": f"https://s3.amazonaws.com/nocaps/val/{name}",
                "date_captured": "2018-11-06 11:04:33",
                "domain": domain,
                "file_name": name,
                "height": 6,
                "id": number,
                "license": 0,
                "open_images_id": name.removesuffix(".jpg"),
                "width": 8,
            }
        )
        for k in range(2):
            annotations.append({"caption": f"Caption {k} of {number}.", "id": len(annotations), "image_id": number})
    annotations.reverse()  # captions need not stand in the order of the pictures
    return write_json(
        raw / "nocaps_val_4500_captions.json",
        {"licenses": [], "info": {"version": "0.1"}, "images": images, "annotations": annotations},
    )


# -------------------------------------------------------------------------------- questions


def people(*answers: str) -> list[dict[str, Any]]:
    """What ten people answer: these in turn, the last one for the rest."""
    given = [*answers, *[answers[-1]] * 10][:10]
    return [{"answer": answer, "answer_id": number, **PERSON} for number, answer in enumerate(given, start=1)]


def coco_questions(
    raw: Path, prefix: str, part: str, questions: Sequence[tuple[int, int, str]], pictures: str = ""
) -> None:
    """The file of questions, given as (question id, picture, question), and the pictures."""
    content = [{"image_id": image, "question": text, "question_id": number} for number, image, text in questions]
    for _, image, _ in questions:
        coco_picture(raw, pictures or part, image)
    write_json(
        raw / f"{prefix}OpenEnded_mscoco_{part}_questions.json",
        {
            "info": {"description": "made", "version": "2.0"},
            "task_type": "Open-Ended",
            "data_type": "mscoco",
            "license": {"name": "CC BY 4.0", "url": "http://creativecommons.org/licenses/by/4.0/"},
            "data_subtype": part,
            "questions": content,
        },
    )


def coco_annotations(raw: Path, prefix: str, part: str, answers: Mapping[int, list[dict[str, Any]]]) -> None:
    """The file of answers by question; the consensus is the most frequent one."""
    annotations = []
    for number, given in answers.items():
        texts = [each["answer"] for each in given]
        annotations.append(
            {
                "question_type": "what is",
                "multiple_choice_answer": max(texts, key=texts.count),
                "answers": given,
                "image_id": number // 1000,
                "answer_type": "other",
                "question_id": number,
            }
        )
    write_json(
        raw / f"{prefix}mscoco_{part}_annotations.json",
        {"info": {}, "data_type": "mscoco", "data_subtype": part, "annotations": annotations, "license": {}},
    )


def visual_genome(raw: Path, pictures: Sequence[tuple[int, int | None, str, Sequence[tuple[str, str]]]]) -> None:
    """Pictures and questions, given as (picture, COCO's number or none, folder, pairs of question and answer)."""
    images, groups, number = [], [], 986769
    for image, coco, folder, pairs in pictures:
        images.append(
            {
                "width": 800,
                "url": f"https://cs.stanford.edu/people/rak248/{folder}/{image}.jpg",
                "height": 600,
                "image_id": image,
                "coco_id": coco,
                "flickr_id": None,
            }
        )
        picture(raw / "visual_genome" / folder / f"{image}.jpg", image)
        qas = []
        for question, answer in pairs:
            qas.append({"a_objects": [], "question": question, "image_id": image, "qa_id": number, "answer": answer})
            qas[-1]["q_objects"] = [{"synset": "clock.n.01", "name": "clock"}]
            number += 1
        groups.append({"id": image, "qas": qas})
    write_json(raw / "visual_genome" / "image_data.json", images)
    write_json(raw / "visual_genome" / "question_answers.json", groups)


def vizwiz(raw: Path, part: str, questions: Sequence[tuple[int, str, list[dict[str, Any]] | None]]) -> None:
    """Annotations of a part, given as (number, question, answers or none), and the pictures."""
    content = []
    for number, text, answers in questions:
        name = f"VizWiz_{part}_{number:08d}.jpg"
        picture(raw / part / name, number)
        entry: dict[str, Any] = {"image": name, "question": text}
        if answers is not None:
            entry |= {
                "answers": [{"answer_confidence": "yes", "answer": each["answer"]} for each in answers],
                "answer_type": "other",
                "answerable": 1,
            }
        content.append(entry)
    write_json(raw / "Annotations" / f"{part}.json", content)


# -------------------------------------------------------------------------------- expressions, entailment


def refcoco(
    raw: Path,
    folder: str,
    partition: str,
    refs: Sequence[tuple[str, int, Sequence[float], Sequence[str]]],
    protocol: int = 0,
) -> None:
    """Pickle and instances.json, given as (split, picture, box, expressions), and the pictures."""
    content, images, annotations, sentence = [], {}, [], 1000
    for number, (split, image, box, texts) in enumerate(refs):
        images[image] = {
            "license": 1,
            "file_name": coco_name("train2014", image),
            "coco_url": "http://images.cocodataset.org",
            "height": 48,
            "width": 64,
            "id": image,
        }
        annotation = {"segmentation": [[1.0, 2.0]], "area": 3.5, "iscrowd": 0, "image_id": image, "bbox": list(box)}
        annotations.append({**annotation, "category_id": 1, "id": 5000 + number})
        sentences = []
        for text in texts:
            entry = {"tokens": text.lower().split(), "raw": text, "sent_id": sentence, "sent": text.lower()}
            sentences.append(entry)
            sentence += 1
        name = coco_name("train2014", image).replace(".jpg", f"_{number}.jpg")
        ref = {"sent_ids": [each["sent_id"] for each in sentences], "file_name": name, "ann_id": 5000 + number}
        content.append(
            {**ref, "ref_id": number, "image_id": image, "split": split, "sentences": sentences, "category_id": 1}
        )
        coco_picture(raw, "train2014", image, width=64, height=48)
    folder_path = raw / folder
    folder_path.mkdir(parents=True, exist_ok=True)
    (folder_path / f"refs({partition}).p").write_bytes(pickle.dumps(content, protocol))
    write_json(
        folder_path / "instances.json",
        {"info": {}, "images": list(images.values()), "licenses": [], "annotations": annotations, "categories": []},
    )


def snli_ve(raw: Path, part: str, rows: Sequence[tuple[str, str, str, str]], key: str = "Flickr30K_ID") -> None:
    """Lines of a part, given as (picture, caption, sentence, label), and the pictures."""
    lines = []
    for number, (image, caption, sentence, label) in enumerate(rows):
        picture(raw / "flickr30k-images" / f"{image}.jpg", number)
        entry = {
            key: image if key == "Flickr30K_ID" else f"{image}.jpg",
            "annotator_labels": [label],
            "captionID": f"{image}.jpg#2",
            "gold_label": label,
            "pairID": f"{image}.jpg#2r{number}",
            "sentence1": caption,
            "sentence1_parse": "(ROOT)",
            "sentence2": sentence,
        }
        lines.append(json.dumps(entry) + "\n")
    (raw / f"snli_ve_{part}.jsonl").write_text("".join(lines), encoding="utf-8")
