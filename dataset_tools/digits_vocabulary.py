"""The quickstart vocabulary: a small sentencepiece model of the words of all prompts and all tasks' texts."""

from __future__ import annotations

import io
from collections.abc import Sequence

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
REPEATS = 20  # so that BPE merges every word whole before it runs out of pairs
PIECES = 1200  # more than the words need; BPE ends by itself where nothing is left to merge


def train_sentencepiece(words: Sequence[str]) -> bytes:
    """The bytes of a BPE model with every word of the prompts and of ``words`` as one piece; characters cover the rest.

    It depends on these words alone, not on the pictures or tasks of a build: checkpoints of all builds fit together.
    """
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter((*PROMPTS, *WORDS, *words) * REPEATS),
        model_writer=model,
        model_type="bpe",
        vocab_size=PIECES,
        hard_vocab_limit=False,
        character_coverage=1.0,
        required_chars=REQUIRED_CHARACTERS,
        num_threads=1,
        minloglevel=2,
    )
    return model.getvalue()
