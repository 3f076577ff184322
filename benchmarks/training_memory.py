"""How much memory does a training step take, and what do the flags that save memory save?

Each configuration runs in a process of its own: the network, Adam with its state, then forward pass, label-smoothed
cross entropy, backward pass and update, as fairseq-train does them but without data loading. Memory is the peak of the
process (resident), of which `imports` is there before the network is built; on a GPU it is the peak of torch's
allocations. Prints JSON lines, all sizes in GB (1e9 bytes).
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from common import (
    BOS,
    EOS,
    FIRST_WORD,
    PAD,
    RELEASED_FLAGS,
    VOCABULARY,
    first_line,
    in_own_process,
    picture_batch,
    report,
    report_machine,
    resident_bytes,
)
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

FROZEN_TRUNKS = {"freeze_image_encoder": True, "freeze_video_encoder": True, "nograd": True}
ONLY_LINEAR = {"freeze_encoder": True, "freeze_decoder": True, **FROZEN_TRUNKS}


@dataclass(frozen=True)
class Variant:
    """A way to save memory: flags of the network, and how a step is made."""

    network: dict[str, Any] = field(default_factory=dict)
    autocast: bool = False
    average: bool = False


VARIANTS = {
    "plain": Variant(),
    "bf16": Variant(autocast=True),
    "checkpoint-activations": Variant({"checkpoint_activations": True}),
    "both": Variant({"checkpoint_activations": True}, autocast=True),
    "frozen-embedding": Variant({"freeze_encoder_embedding": True, "freeze_decoder_embedding": True}),
    "frozen-trunks": Variant(FROZEN_TRUNKS),
    "only-linear": Variant(ONLY_LINEAR),
    "lora": Variant({"lora_rank": 8, **FROZEN_TRUNKS}),
    "lora-checkpoint-activations": Variant({"lora_rank": 8, "checkpoint_activations": True, **FROZEN_TRUNKS}),
    "average": Variant(average=True),
}
"""By name. bf16: --autocast bf16; both: it and --checkpoint-activations; frozen-trunks, lora: --freeze-image-encoder
--freeze-video-encoder --nograd; average: --store-ema. All others are flags of that name."""


@dataclass(frozen=True)
class Case:
    """One line of the table."""

    arch: str
    medium: str
    size: int
    batch: int
    variant: str
    patches: int | None
    device: str
    threads: int
    seed: int


def build(case: Case) -> Any:
    """The network in training, with the trunk that the medium needs."""
    import unival_plugin  # noqa: F401  (mends fairseq first)
    from unival_plugin.unival.model.config import from_preset
    from unival_plugin.unival.model.registration import UnIVALModel

    tiny = case.arch == "unival_tiny"
    flags = {} if tiny else dict(RELEASED_FLAGS)
    if case.medium == "film":
        flags["video_encoder_name"] = "timm_tiny" if tiny else "all_resnext101"
    flags |= {"dropout": 0.1, "sample_patch_num": case.patches, "code_image_size": 256}
    flags |= VARIANTS[case.variant].network
    torch.manual_seed(case.seed)
    return UnIVALModel(from_preset(case.arch, flags), VOCABULARY[case.arch], PAD).to(case.device).train()


def batch_of(case: Case) -> dict[str, Any]:
    """A batch as tasks make it: pictures, films of eight frames, or captions with 1,024 codes to learn."""
    words, frames = VOCABULARY[case.arch], 8
    longest = 1024 if case.medium == "codes" else 20
    inputs = picture_batch(case.seed, case.batch, case.size, source=12, target=longest, vocabulary=words)
    pictures = inputs["patch_images"]
    if case.medium == "film":
        inputs["patch_videos"] = pictures[:, :, None].expand(-1, -1, frames, -1, -1).contiguous()
        inputs["patch_types"] = torch.ones(case.batch, dtype=torch.int64)
    if case.medium == "codes":
        inputs["code_masks"] = torch.ones(case.batch, dtype=torch.bool)
    if case.medium != "picture":
        del inputs["patch_images"]
    if case.medium == "codes":
        del inputs["patch_masks"]
    inputs = {name: value.to(case.device) for name, value in inputs.items()}
    target = inputs["prev_output_tokens"].roll(-1, 1)
    target[:, -1] = EOS
    return {"net_input": inputs, "target": target, "ntokens": target.numel(), "nsentences": case.batch}


def loss_of(case: Case) -> Any:
    """The criterion of most scripts."""
    from unival_plugin.unival.criterions.label_smoothed import (
        AdjustLabelSmoothedCrossEntropyCriterion,
        AdjustLabelSmoothedCrossEntropyCriterionConfig,
    )

    symbols = SimpleNamespace(pad=lambda: PAD, eos=lambda: EOS, bos=lambda: BOS, unk=lambda: FIRST_WORD - 1)
    cfg = AdjustLabelSmoothedCrossEntropyCriterionConfig(label_smoothing=0.1, sentence_avg=False)
    return AdjustLabelSmoothedCrossEntropyCriterion(cfg, SimpleNamespace(target_dictionary=symbols))


def measure(case: Case) -> dict[str, Any]:
    """Peak of one update whose optimizer has its state already, and the sizes that explain it."""
    import unival_plugin  # noqa: F401

    torch.set_num_threads(case.threads)
    variant = VARIANTS[case.variant]
    imports = resident_bytes("VmRSS")
    model = build(case)
    parameters = list(model.parameters())
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    average = [parameter.detach().clone() for parameter in parameters] if variant.average else []
    optimizer = torch.optim.Adam(trained, lr=1e-6, foreach=False)
    for parameter in trained:  # the state of Adam comes into being with the first update
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    sample, criterion = batch_of(case), loss_of(case)
    if case.device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
    before = held(case.device)
    with torch.autocast(case.device.split(":")[0], torch.bfloat16, enabled=variant.autocast):
        loss = criterion(model, sample)[0]
    loss.backward()
    optimizer.step()
    return {
        "GB": gigabytes(held(case.device, peak=True)),
        "imports_GB": gigabytes(imports),
        "before_the_step_GB": gigabytes(before),
        "weights_GB": gigabytes(size_of(parameters)),
        "average_GB": gigabytes(size_of(average)),
        "optimizer_GB": gigabytes(2 * size_of(trained)),
        "parameters": sum(parameter.numel() for parameter in parameters),
        "trained": sum(parameter.numel() for parameter in trained),
    }


def held(device: str, peak: bool = False) -> int:
    """Bytes in use now, or at most so far."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated() if peak else torch.cuda.memory_allocated()
    return resident_bytes("VmHWM" if peak else "VmRSS")


def size_of(tensors: list[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def gigabytes(size: int) -> float:
    return round(size / 1e9, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", choices=sorted(VOCABULARY), default="unival_base")
    parser.add_argument(
        "--medium",
        choices=("picture", "film", "codes"),
        default="picture",
        help="what a row has beside words: a picture, a film of 8 frames, or 1,024 codes of a picture to learn",
    )
    parser.add_argument("--patch-image-size", type=int, nargs="+", default=[480], help="side in pixels, of frames too")
    parser.add_argument("--batch-size", type=int, nargs="+", default=[4])
    parser.add_argument("--variants", choices=sorted(VARIANTS), nargs="+", default=list(VARIANTS), metavar="NAME")
    parser.add_argument("--sample-patch-num", type=int, help="patches of a picture that are kept")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    report_machine("wall", args.device)
    for size in args.patch_image_size:
        for batch in args.batch_size:
            for variant in args.variants:
                case = Case(
                    args.arch,
                    args.medium,
                    size,
                    batch,
                    variant,
                    args.sample_patch_num,
                    args.device,
                    args.threads,
                    args.seed,
                )
                report(**dataclasses.asdict(case), **outcome(case))


def outcome(case: Case) -> dict[str, Any]:
    """What was measured, or why a configuration does not fit the machine."""
    try:
        return dict(in_own_process(measure, case))
    except (RuntimeError, MemoryError) as error:
        return {"error": first_line(error)}


if __name__ == "__main__":
    main()
