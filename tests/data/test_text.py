"""Cleaning, dictionaries, encoding."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import torch

from unival_plugin.data.text import TextEncoder, build_text_encoder, pre_caption, pre_question, strip_punctuation
from unival_plugin.errors import ConfigError

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "unival_tasks" / "text.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("case", GOLDEN["cleaning"], ids=lambda case: case["text"][:12])
def test_cleaning_is_unival(case: dict[str, str]) -> None:
    text = case["text"]
    assert pre_question(text) == case["pre_question"]
    assert pre_question(text, 5) == case["pre_question_5"]
    assert pre_caption(text) == case["pre_caption"]
    assert pre_caption(text, 5) == case["pre_caption_5"]
    assert strip_punctuation(text) == case["punct_removed_strip"]


@pytest.fixture(scope="module")
def gpt2(gpt2_bpe_dir: Path) -> TextEncoder:
    return build_text_encoder("gpt2", gpt2_bpe_dir)


class TestGpt2:
    def test_dictionary_order_is_unival(self, gpt2: TextEncoder) -> None:
        expected = dict(GOLDEN["dictionary"])
        assert len(gpt2.dictionary) == expected.pop("len")
        assert {symbol: gpt2.dictionary.index(symbol) for symbol in expected} == expected

    @pytest.mark.parametrize("case", GOLDEN["prompts"], ids=lambda case: case["text"][:20])
    def test_prompts_are_unival(self, gpt2: TextEncoder, case: dict[str, object]) -> None:
        text = str(case["text"])
        assert gpt2.encode(text).tolist() == case["ids"]
        assert gpt2.encode(text, bos=True, eos=True).tolist() == case["with_bos_eos"]
        assert gpt2.bpe.encode(text) == case["bpe"]
        assert gpt2.decode(torch.tensor([0, *case["ids"], 2, 1, 1])) == case["decoded"]  # type: ignore[misc]

    def test_cut_comes_before_the_frame(self, gpt2: TextEncoder) -> None:
        ids = gpt2.encode(GOLDEN["prompts"][0]["text"], max_tokens=3, bos=True, eos=True)
        assert ids.tolist() == [0, *GOLDEN["length3"], 2]

    def test_bins_are_symbols_and_decode_to_themselves(self, gpt2: TextEncoder) -> None:
        text, ids = GOLDEN["bins"]["text"], GOLDEN["bins"]["ids"]
        assert gpt2.encode_symbols(text).tolist() == ids
        assert gpt2.decode(ids) == text

    def test_text_and_symbols_are_set_off_by_spaces(self, gpt2: TextEncoder) -> None:
        ids = [*gpt2.encode(" a cat").tolist(), *gpt2.encode_symbols("<bin_1> <unk>").tolist()]
        assert gpt2.decode([*ids, *gpt2.encode("s").tolist()]) == " a cat <bin_1> <unk> s"

    def test_unknown_symbols_become_unk(self, gpt2: TextEncoder) -> None:
        assert gpt2.encode_symbols("<bin_1000>").tolist() == [3]

    def test_empty_text(self, gpt2: TextEncoder) -> None:
        assert gpt2.encode("").dtype == torch.long
        assert gpt2.encode("", bos=True, eos=True).tolist() == [0, 2]
        assert gpt2.decode([0, 2, 1]) == ""

    def test_pickled_encoder_encodes_the_same(self, gpt2: TextEncoder) -> None:
        packed = pickle.dumps(gpt2)
        assert len(packed) < 1000
        assert pickle.loads(packed).encode(" a cat").equal(gpt2.encode(" a cat"))

    def test_beginning_of_word(self, gpt2: TextEncoder) -> None:
        assert [gpt2.bpe.is_beginning_of_word(piece) for piece in gpt2.bpe.encode(" a-cat").split()][:2] == [
            True,
            False,
        ]  # type: ignore[attr-defined]

    @pytest.mark.parametrize("name", ["encoder.json", "vocab.bpe", "dict.txt"])
    def test_missing_file_is_named(self, gpt2_bpe_dir: Path, tmp_path: Path, name: str) -> None:
        for file in gpt2_bpe_dir.iterdir():
            if file.name != name:
                (tmp_path / file.name).symlink_to(file.resolve())
        with pytest.raises(ConfigError, match=rf"{name} does not exist.*--bpe-dir"):
            build_text_encoder("gpt2", tmp_path)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sentencepiece = pytest.importorskip("sentencepiece")
    folder = tmp_path_factory.mktemp("sentencepiece")
    (folder / "text.txt").write_text(
        "a three above a seven\nwhat digit is on the left?\nhow many digits are there?\n" * 9
    )
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "text.txt"),
        model_prefix=str(folder / "digits"),
        vocab_size=40,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    return folder / "digits.model"


@pytest.fixture(scope="module")
def digits(model: Path) -> TextEncoder:
    return build_text_encoder("sentencepiece", sentencepiece_model=model, code_dict_size=4, num_bins=6)


class TestSentencePiece:
    def test_dictionary_holds_own_specials_pieces_mask_codes_bins(self, digits: TextEncoder, model: Path) -> None:
        import sentencepiece

        engine = sentencepiece.SentencePieceProcessor(model_file=str(model))
        pieces = [engine.id_to_piece(i) for i in range(3, len(engine))]
        tail = ["<mask>", *(f"<code_{i}>" for i in range(4)), *(f"<bin_{i}>" for i in range(6))]
        assert digits.dictionary.symbols == ["<s>", "<pad>", "</s>", "<unk>", *pieces, *tail]

    def test_text_survives(self, digits: TextEncoder) -> None:
        ids = digits.encode("what digit is above a seven?", bos=True, eos=True)
        assert digits.decode(ids) == "what digit is above a seven?"
        assert digits.dictionary.unk() not in ids

    def test_fast_path_equals_looking_up_the_pieces(self, digits: TextEncoder) -> None:
        text = "how many sevens, Zoë?"
        assert digits.encode(text).tolist() == [digits.dictionary.index(p) for p in digits.bpe.encode(text).split(" ")]

    def test_unknown_letters_become_unk(self, digits: TextEncoder) -> None:
        assert digits.dictionary.unk() in digits.encode("Ω")

    def test_symbols_decode_to_themselves(self, digits: TextEncoder) -> None:
        ids = [*digits.encode("a three").tolist(), *digits.encode_symbols("<bin_5> <bin_0>").tolist()]
        assert digits.decode(ids) == "a three <bin_5> <bin_0>"

    def test_pickled_encoder_encodes_the_same(self, digits: TextEncoder) -> None:
        again = pickle.loads(pickle.dumps(digits))
        assert again.encode("a seven").equal(digits.encode("a seven"))
        assert again.dictionary == digits.dictionary

    def test_file_that_is_no_model(self, tmp_path: Path) -> None:
        (tmp_path / "x.model").write_bytes(b"nonsense")
        with pytest.raises(ConfigError, match=r"x.model is not a sentencepiece model"):
            build_text_encoder("sentencepiece", sentencepiece_model=tmp_path / "x.model")

    def test_missing_model_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"x.model does not exist.*--sentencepiece-model"):
            build_text_encoder("sentencepiece", sentencepiece_model=tmp_path / "x.model")


@pytest.mark.parametrize(
    ("bpe", "hint"), [("gpt2", "--bpe-dir"), ("sentencepiece", "--sentencepiece-model"), ("bert", "use gpt2")]
)
def test_what_is_not_given_is_named(bpe: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=hint):
        build_text_encoder(bpe)
