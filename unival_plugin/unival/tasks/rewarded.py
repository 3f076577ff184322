"""Tasks whose training may reward what they find: the search that the reward criterions ask for."""

from functools import cached_property
from typing import Any

from ...generation.generator import Hypothesis, SequenceGenerator
from ...generation.options import GenerationOptions, parse_eval_args
from .scored import ScoredTask

SCST_ARGS_HELP = 'how to search in reward training, as JSON such as {"beam": 5}; only what the task may answer is found'


class RewardSearch:
    """A generator with what the task adds to it: sets of answers, grammars.

    Attributes:
        options: how it searches.
    """

    def __init__(self, task: ScoredTask, options: GenerationOptions) -> None:
        self.task, self.options = task, options
        self._generator = SequenceGenerator([], task.target_dictionary, options)

    def generate(self, models: Any, sample: Any) -> list[list[Hypothesis]]:
        """Hypotheses of every row of a batch, best first; models must be in evaluation mode."""
        return self.task.search(self._generator, models, sample)


class RewardedTask(ScoredTask):
    """A task with ``--scst-args``."""

    @cached_property
    def scst_generator(self) -> RewardSearch:
        """The search of reward training, built when a criterion first asks for it.

        Raises:
            ConfigError: ``--scst-args`` cannot be used.
        """
        return RewardSearch(self, self.search_options(parse_eval_args(self.cfg.scst_args, "--scst-args")))
