"""Questions about films of digits with their answers: rows as those of MSRVTT-QA."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from digits_films import DIRECTIONS, STAYS, TURNS, Actor, Film
from digits_language import Setting, pick, row_random
from digits_scenes import NAMES, article

TASK_NUMBER = 4
QUESTIONS = 4  # about each film
# Of the questions whether a digit moves, in films in which something does; in the others the answer is "no".
YES_SHARE = 0.7
ANSWERS = ("yes", "no", "none", *DIRECTIONS, *NAMES)

EXISTS = ("is there {digit}?", "is there {digit} in the video?", "can you see {digit}?")
COUNT = ("how many digits are there?", "how many digits can you see?")
MOVING = ("how many digits move?", "how many digits are moving?")
WHICH = ("which digit {does}?", "what digit {does}?")
WHERE = ("where does the {name} move?", "where is the {name} moving?")
BECOMES = ("what does the {name} turn into?", "what becomes of the {name}?")
WAS = ("which digit turns into {digit}?", "what turns into {digit}?")
WAY = ("does the {name} move {direction}?", "is the {name} moving {direction}?")
MOVES = ("does the {name} move?", "is the {name} moving?")


@dataclass(frozen=True)
class FilmQuestion:
    """A question with its one right answer; ``kind`` is exists, count, moving, which, where, becomes, was or way."""

    kind: str
    text: str
    answer: str


def film_question_rows(film: Film, setting: Setting) -> list[list[str]]:
    """Columns question id, film id, question, answers, nothing, path: ``--selected-cols 0,5,2,3,4``."""
    questions = draw_questions(row_random(setting, film, TASK_NUMBER), film)
    return [
        [str(film.number * QUESTIONS + k), film.name, question.text, f"1.0|!+{question.answer}", "", film.path]
        for k, question in enumerate(questions)
    ]


def draw_questions(rng: np.random.Generator, film: Film) -> list[FilmQuestion]:
    """Different questions: one of what there is, one of numbers, two of what happens, in random order."""
    number = pick(rng, (_count, _moving))(rng, film)
    asked = {question.text: question for question in (_exists(rng, film), number)}
    while len(asked) < QUESTIONS:
        question = pick(rng, _happenings(rng, film))
        asked.setdefault(question.text, question)
    return [list(asked.values())[k] for k in rng.permutation(QUESTIONS)]


def _exists(rng: np.random.Generator, film: Film) -> FilmQuestion:
    """A digit that another one turns into is there, too."""
    seen = {label for actor in film.actors for label in actor.labels}
    answer = pick(rng, ("yes", "no"))
    choices = [label for label in range(10) if (label in seen) == (answer == "yes")]
    return FilmQuestion("exists", pick(rng, EXISTS).format(digit=article(pick(rng, choices))), answer)


def _count(rng: np.random.Generator, film: Film) -> FilmQuestion:
    return FilmQuestion("count", pick(rng, COUNT), NAMES[len(film.actors)])


def _moving(rng: np.random.Generator, film: Film) -> FilmQuestion:
    movers = sum(actor.moves for actor in film.actors)
    return FilmQuestion("moving", pick(rng, MOVING), NAMES[movers] if movers else "none")


def _happenings(rng: np.random.Generator, film: Film) -> list[FilmQuestion]:
    """A question of every kind that fits the film."""
    questions = [_way(rng, film)]
    actor = pick(rng, film.actors)
    questions += _which(rng, film, actor)
    if actor.moves:
        questions.append(FilmQuestion("where", pick(rng, WHERE).format(name=NAMES[actor.label]), actor.action))
    if actor.becomes is not None:
        before, after = actor.labels
        questions.append(FilmQuestion("becomes", pick(rng, BECOMES).format(name=NAMES[before]), NAMES[after]))
        questions.append(FilmQuestion("was", pick(rng, WAS).format(digit=article(after)), NAMES[before]))
    return questions


def _which(rng: np.random.Generator, film: Film, actor: Actor) -> list[FilmQuestion]:
    """Which digit does something that no other digit does."""
    others = [other for other in film.actors if other is not actor]
    if actor.action == TURNS:
        return []
    deeds = [] if any(other.action == actor.action for other in others) else [_deed(actor)]
    if actor.moves and not any(other.moves for other in others):
        deeds.append("moves")
    return [FilmQuestion("which", pick(rng, WHICH).format(does=pick(rng, deeds)), NAMES[actor.label])] if deeds else []


def _deed(actor: Actor) -> str:
    return STAYS if actor.action == STAYS else f"moves {actor.action}"


def _way(rng: np.random.Generator, film: Film) -> FilmQuestion:
    """Whether a digit moves, or moves that way."""
    movers = [actor for actor in film.actors if actor.moves]
    answer = "yes" if movers and rng.random() < YES_SHARE else "no"
    if answer == "yes":
        actor, direction = (chosen := pick(rng, movers)), chosen.action
    else:
        actor = pick(rng, film.actors)
        direction = pick(rng, [way for way in DIRECTIONS if way != actor.action])
    resting = not actor.moves or answer == "yes"
    text = pick(rng, MOVES if resting and rng.random() < 0.3 else WAY)
    return FilmQuestion("way", text.format(name=NAMES[actor.label], direction=direction), answer)
