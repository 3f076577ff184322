"""Low-rank adaptation of linear layers (Hu et al. 2021, "LoRA: Low-rank adaptation of large language models").

A small module and no library, because entries of the state dict must keep the names of the published files, so that
those load below LoRA. ``peft`` moves them (``q_proj.base_layer.weight``) and brings transformers and accelerate;
``torch.nn.utils.parametrize`` moves them too (``q_proj.parametrizations.weight.original``), builds the whole sum of
weights in every pass, and has no place for dropout on the inputs. Here ``weight`` and ``bias`` stay where they are, and
``lora_A`` and ``lora_B`` stand beside them.

``weight`` is then the base's alone: a layer of which something else than a call of the layer reads ``weight`` must not
be adapted (in UnIVAL the output projection, of which generation takes single rows).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LORA_A, LORA_B = "lora_A", "lora_B"
DEFAULT_ALPHA = 16.0
MAX_SHOWN = 40

PLAIN_NAMES = re.compile(r"[\w.,\s-]*")


class LoRALinear(nn.Linear):
    """``W x + b + alpha / rank * B A dropout(x)`` with trained A (rank x inputs) and B (outputs x rank).

    B starts as zeros: at first the layer computes what ``linear`` does.

    Args:
        linear: the layer to adapt; its parameters are used, not copied.
        rank: of the update.
        alpha: factor of the update, divided by the rank.
        dropout: probability of dropping an input of the update while training.
    """

    def __init__(self, linear: nn.Linear, rank: int, alpha: float = DEFAULT_ALPHA, dropout: float = 0.0) -> None:
        super().__init__(linear.in_features, linear.out_features, bias=False, device="meta")
        weight = linear.weight
        self.weight, self.bias = weight, linear.bias
        self.scale, self.dropout = alpha / rank, dropout
        self.lora_A = nn.Parameter(torch.empty(rank, self.in_features, device=weight.device, dtype=weight.dtype))
        self.lora_B = nn.Parameter(torch.zeros(self.out_features, rank, device=weight.device, dtype=weight.dtype))
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))

    def forward(self, input: Tensor) -> Tensor:
        """... x inputs -> ... x outputs."""
        down = F.linear(F.dropout(input, self.dropout, self.training), self.lora_A)
        return F.linear(input, self.weight, self.bias) + F.linear(down, self.lora_B) * self.scale

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, rank={len(self.lora_A)}, scale={self.scale:g}"


def add_lora(network: nn.Module, names: Iterable[str], rank: int, alpha: float, dropout: float) -> None:
    """Puts a :class:`LoRALinear` in the place of every linear layer of ``network`` that ``names`` holds."""
    for name in names:
        parent, _, last = name.rpartition(".")
        owner = network.get_submodule(parent)
        linear = getattr(owner, last)
        assert isinstance(linear, nn.Linear), name
        setattr(owner, last, LoRALinear(linear, rank, alpha, dropout))


def folded(weights: dict[str, Tensor], scale: float, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
    """A state dict without LoRA's matrices, whose weights are ``W + scale * B A``; ``weights`` is not changed.

    The sum is computed in double precision.

    Args:
        weights: tensors by name.
        scale: ``alpha / rank``.
        dtype: of the sums (default: that of the weight).
    """
    result = {key: value for key, value in weights.items() if not is_lora(key)}
    for key, down in weights.items():
        layer, _, last = key.rpartition(".")
        if last == LORA_A:
            weight, up = weights[f"{layer}.weight"], weights[f"{layer}.{LORA_B}"]
            total = weight.double() + scale * (up.double() @ down.double())
            result[f"{layer}.weight"] = total.to(dtype or weight.dtype)
    return result


def is_lora(key: str) -> bool:
    """Whether an entry of a state dict is one of LoRA's matrices."""
    return key.rpartition(".")[2] in (LORA_A, LORA_B)


def matching(pattern: str, names: Sequence[str]) -> list[str]:
    """The dotted ``names`` that a user's pattern means, in order.

    Args:
        pattern: names separated by commas, each a part of a dotted name (``fc1``, ``encoder.layers.0``), or, if it has
            any character that names do not have, a regular expression that is searched for in the dotted names.

    Raises:
        ValueError: a name, or the expression, fits nothing, or is no regular expression.
    """
    if not PLAIN_NAMES.fullmatch(pattern):
        try:
            found = [name for name in names if re.search(pattern, name)]
        except re.error as error:
            raise ValueError(f"{pattern!r} is no regular expression: {error}") from error
        if not found:
            raise ValueError(f"{pattern!r} is found in no name; {_known(names)}")
        return found
    wanted = [part.strip() for part in pattern.split(",") if part.strip()]
    if not wanted:
        raise ValueError(f"names nothing; {_known(names)}")
    for part in wanted:
        if not any(_is_part(part, name) for name in names):
            raise ValueError(f"nothing is called {part!r}; {_known(names)}")
    return [name for name in names if any(_is_part(part, name) for part in wanted)]


def _is_part(part: str, name: str) -> bool:
    return f".{part}." in f".{name}."


def _known(names: Sequence[str]) -> str:
    """What can be named: the parts of all names, and one whole name."""
    if not names:
        return "there is nothing to choose from"
    known = sorted({part for name in names for part in name.split(".") if not part.isdigit()})
    more = ", …" if len(known) > MAX_SHOWN else ""
    return f"there are {', '.join(known[:MAX_SHOWN])}{more} (whole names are like {names[0]})"
