"""The quickstart vocabulary: a small sentencepiece model of captions, the prompts of all tasks, and their texts."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence

from digits_scenes import NAMES

PROMPTS = (
    "what does the image describe?",
    "what does the video describe?",
    "what does the audio describe?",
    'which region does the text " the digit " describe?',
    'does the image describe " the digit "?',
    'can image and text1 " the digit " imply text2 " the digit "?',
    "what is the complete image? caption: the digit",
    "what digit is on the left?",
    "what digit is on the right?",
    "what digit is at the top?",
    "what digit is at the bottom?",
    "what digit is in the middle?",
    "how many digits are there?",
    "what is above the digit?",
    "what is below the digit?",
    "what is left of the digit?",
    "what is right of the digit?",
    "is there a digit in the image?",
)
OTHER_WORDS = """
a an the and of left right above below top bottom middle first last number digit digits only yes no maybe none not
up down moves moving changes to into then before after becomes grows shrinks turns stays appears disappears
beep beeps tone tones noise silence high low rising falling short long loud quiet sound
dark light black white red green blue yellow image video audio picture text
"""
WORDS = (*NAMES, *OTHER_WORDS.split())
REQUIRED_CHARACTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789?!.,:;'\"-()/&"
VOCABULARY_SIZE = 350
PIECES_A_WORD = 4  # a word is merged over several pieces, of which it shares some with other words


def train_sentencepiece(captions: Iterable[str], texts: Sequence[str] = (), words: Sequence[str] = ()) -> bytes:
    """The bytes of a BPE model in which every word of captions and prompts is one piece; characters cover the rest.

    ``texts`` and ``words`` come from the rows of other tasks; every word of ``words`` becomes one piece, too. Without
    them the model is that of the captions alone.
    """
    import sentencepiece

    # Words that captions never use are repeated so that BPE merges them whole before it runs out of pairs.
    sentences = [*captions, *texts, *(PROMPTS * 20), *(WORDS * 20), *(tuple(words) * 20)]
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences),
        model_writer=model,
        model_type="bpe",
        vocab_size=VOCABULARY_SIZE + PIECES_A_WORD * len(words),
        hard_vocab_limit=False,
        character_coverage=1.0,
        required_chars=REQUIRED_CHARACTERS,
        num_threads=1,
        minloglevel=2,
    )
    return model.getvalue()
