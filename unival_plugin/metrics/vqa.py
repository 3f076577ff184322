"""Soft score of answers to questions about pictures.

Ten people answer every question of VQA; an answer that n of them gave scores ``min(1, 0.3 n)``, which is what the
official ``min(1, n / 3)`` gives on average over all choices of nine of the ten (Antol et al. 2015, "VQA: Visual
Question Answering"). Data files hold these scores (UnIVAL, ``tasks/mm_tasks/vqa_gen.py``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_ARTICLES = {"a", "an", "the"}
_NUMBERS = {
    "none": "0", "zero": "0", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5", "six": "6",
    "seven": "7", "eight": "8", "nine": "9", "ten": "10",
}  # fmt: skip
_MARKS = ';/[]"{}()=+\\_-><@`,?!'

_CONTRACTIONS = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've
    he's how'd how'll how's isn't it'd it'd've it'll ma'am might've mightn't mightn't've must've mustn't needn't not've
    o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's
    someone'd someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've
    there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's
    what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't would've
    wouldn't wouldn't've y'all y'all'd've y'all'll you'd you'd've you'll you're you've
"""


def _without_one_apostrophe(word: str) -> list[str]:
    return [word[:place] + word[place + 1 :] for place, letter in enumerate(word) if letter == "'"]


_REPAIRED = {wrong: right for right in _CONTRACTIONS.split() for wrong in _without_one_apostrophe(right)}
_REPAIRED["somebody'd"] = "somebodyd"  # so in the official table


def normalise(answer: str) -> str:
    """What the official evaluation of VQA compares.

    In this order (visualqa.org/evaluation, and where that page is less exact the evaluation code it links to):

    1. each of ``; / [ ] " { } ( ) = + \\ _ - > < @ ` , ? !`` is removed if it stands next to a space somewhere in the
       answer, or if the answer has a comma between digits (100,978 becomes 100978); else it becomes a space.
       Apostrophes and colons stay;
    2. full stops are removed, except before a digit;
    3. lower case;
    4. "none" and the words zero to ten become digits;
    5. the articles a, an, the are removed;
    6. words of a table of contractions that lack an apostrophe get it ("dont" becomes "don't"). The entries of the
       table that begin with a capital I never apply there, because of step 3, and are left out here;
    7. white space becomes single spaces, none at the ends.

    The official code does this only for questions on which the ten people disagree. That cannot be seen from data files
    and is left out.
    """
    words = [_NUMBERS.get(word, word) for word in _without_punctuation(answer).lower().split()]
    return " ".join(_REPAIRED.get(word, word) for word in words if word not in _ARTICLES)


def _without_punctuation(answer: str) -> str:
    answer = re.sub(r"[\n\t]", " ", answer).strip()
    comma_in_number = re.search(r"\d,\d", answer) is not None
    cleaned = answer
    for mark in _MARKS:
        beside_space = f"{mark} " in answer or f" {mark}" in answer
        cleaned = cleaned.replace(mark, "" if comma_in_number or beside_space else " ")
    return re.sub(r"\.(?!\d)", "", cleaned)


def soft_score(answer: str, references: Mapping[str, float], official: bool = False) -> float:
    """Score of an answer, 0..1.

    Args:
        references: the score of every answer that people gave, as in the data files.
        official: compare as the official evaluation does, see :func:`normalise`; the scores of references that become
            the same are added up, to at most 1, as the number of people who gave them would be. Otherwise the answer
            has to be a reference letter by letter, as in UnIVAL's validation.
    """
    if not official:
        return float(references.get(answer, 0.0))
    wanted = normalise(answer)
    return min(1.0, sum(score for text, score in references.items() if normalise(text) == wanted))
