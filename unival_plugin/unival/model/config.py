"""Every size and switch of the UnIVAL network, and the presets that fill them.

The field names are the command-line flags of the released scripts with underscores. Annotations are real objects (no
postponed evaluation) because fairseq derives command-line flags from them.
"""

from dataclasses import dataclass, field, fields
from typing import Any, Callable, Dict, Mapping, Optional

import torch
import torch.nn.functional as F
from torch import Tensor

from ...modules.attention import BACKENDS
from ...modules.lora import DEFAULT_ALPHA

ACTIVATIONS: Dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "relu": F.relu,
    "tanh": torch.tanh,
    "linear": lambda x: x,
}


def _option(default: Any, help: str) -> Any:
    return field(default=default, metadata={"help": help})


@dataclass
class UnIVALConfig:
    """Configuration of the network; the defaults are those of ``unival_base``."""

    encoder_embed_dim: int = _option(768, "width of the encoder")
    encoder_ffn_embed_dim: int = _option(3072, "width of the encoder's feed-forward layers")
    encoder_layers: int = _option(6, "number of encoder layers")
    encoder_attention_heads: int = _option(12, "number of encoder attention heads")
    encoder_normalize_before: bool = _option(True, "layer norm before each encoder block instead of after it")
    encoder_learned_pos: bool = _option(True, "accepted for old scripts, has no effect: positions are always learned")
    decoder_embed_dim: Optional[int] = _option(None, "width of the decoder; must equal the encoder's, the default")
    decoder_ffn_embed_dim: Optional[int] = _option(
        None, "width of the decoder's feed-forward layers (default: the encoder's)"
    )
    decoder_layers: int = _option(6, "number of decoder layers")
    decoder_attention_heads: int = _option(12, "number of decoder attention heads")
    decoder_normalize_before: bool = _option(True, "layer norm before each decoder block instead of after it")
    decoder_learned_pos: bool = _option(True, "accepted for old scripts, has no effect: positions are always learned")
    dropout: float = _option(0.0, "dropout probability of embeddings and residual branches")
    attention_dropout: float = _option(0.0, "dropout probability of attention weights")
    activation_dropout: float = _option(0.0, "dropout probability after the feed-forward activation")
    relu_dropout: float = _option(0.0, "accepted for old scripts, has no effect: use --activation-dropout")
    encoder_drop_path_rate: float = _option(0.0, "stochastic depth of the last encoder layer (grows linearly to it)")
    decoder_drop_path_rate: float = _option(0.0, "stochastic depth of the last decoder layer (grows linearly to it)")
    resnet_drop_path_rate: float = _option(0.0, "stochastic depth of the picture trunk (three-stage trunk only)")
    activation_fn: str = _option("gelu", f"activation of the feed-forward layers: {', '.join(ACTIVATIONS)}")
    max_source_positions: int = _option(1024, "longest source in tokens")
    max_target_positions: int = _option(1024, "longest target in tokens")
    share_decoder_input_output_embed: bool = _option(True, "tie the decoder's input and output embeddings")
    share_all_embeddings: bool = _option(True, "tie encoder input, decoder input and decoder output embeddings")
    no_scale_embedding: bool = _option(True, "do not multiply embeddings by the square root of their width")
    layernorm_embedding: bool = _option(True, "layer norm on text embeddings")
    patch_layernorm_embedding: bool = _option(True, "layer norm on patch embeddings")
    code_layernorm_embedding: bool = _option(True, "layer norm on image-code embeddings in the decoder")
    add_type_embedding: bool = _option(True, "add a learned embedding that tells text from patches")
    entangle_position_embedding: bool = _option(False, "add position embeddings to the encoder's inputs as well")
    disable_entangle: bool = _option(False, "do not add position embeddings to the decoder's inputs")
    token_bucket_size: int = _option(256, "distances with a relative-position bucket, text")
    image_bucket_size: int = _option(42, "side of the grid with relative-position buckets, pictures")
    attn_scale_factor: float = _option(2.0, "attention scores are multiplied by (head width * this) ** -0.5")
    scale_attn: bool = _option(False, "layer norm on the output of attention")
    scale_fc: bool = _option(False, "layer norm inside the feed-forward layers")
    scale_heads: bool = _option(False, "a learned factor per attention head")
    scale_resids: bool = _option(False, "a learned factor on the residual of feed-forward blocks")
    code_image_size: int = _option(128, "side in pixels of pictures that are written as codes (one code per 8 x 8)")
    image_encoder_name: str = _option(
        "resnet",
        "picture trunk: timm_resnet (four stages, one patch per 32 x 32 pixels, the released models), resnet (three "
        "stages, one patch per 16 x 16) or timm_tiny (ours, a light network with one patch per 16 x 16)",
    )
    resnet_type: str = _option("resnet101", "depth of the picture trunk: resnet50, resnet101 or resnet152")
    resnet_model_path: Optional[str] = _option(None, "torchvision or timm weights file to start the picture trunk from")
    freeze_resnet: bool = _option(False, "use batch norm with fixed statistics and weights in the picture trunk")
    freeze_resnet_video: bool = _option(False, "use batch norm with fixed statistics and weights in the film trunk")
    freeze_batchnorm: bool = _option(
        False, 'do not train encoder parameters with "bn" in their name (statistics still follow the data)'
    )
    sync_bn: bool = _option(False, "use batch norm over all GPUs in the picture trunk")
    orig_patch_image_size: int = _option(256, "picture size of pretraining, for --interpolate-position")
    interpolate_position: bool = _option(
        False, "interpolate picture positions when pictures are larger than pretraining's"
    )
    sample_patch_num: Optional[int] = _option(
        None, "while training, keep this many randomly drawn patches of each picture (default: all)"
    )
    sample_video_patch_num: Optional[int] = _option(None, "--sample-patch-num of films (default: the same number)")
    sample_audio_patch_num: Optional[int] = _option(None, "--sample-patch-num of sounds (default: the same number)")
    sample_patches_in_eval: bool = _option(
        False, "draw --sample-patch-num patches in evaluation too, as the original code does (its results then vary)"
    )
    init_std: float = _option(0.02, "standard deviation of the initial weights of linear layers and embeddings")
    freeze_encoder_embedding: bool = _option(False, "do not train the token embedding (tied: encoder and decoder)")
    freeze_decoder_embedding: bool = _option(False, "do not train the token embedding (tied: encoder and decoder)")
    freeze_encoder: bool = _option(
        False, "in the encoder, train only the trunks, their projections and their positions"
    )
    freeze_decoder: bool = _option(False, "do not train the decoder (and with it the tied token embedding)")
    freeze_image_encoder: bool = _option(False, "do not train the picture trunk")
    freeze_video_encoder: bool = _option(False, "do not train the film trunk")
    freeze_audio_encoder: bool = _option(False, "do not train the sound trunk")
    nograd: bool = _option(False, "run trunks frozen by --freeze-*-encoder without keeping what gradients need")
    encoder_eval: bool = _option(False, "keep picture and film trunks in evaluation mode while training")
    bitfit: bool = _option(False, "train only the biases of layer norms and feed-forward layers")
    bitfit_train: Optional[str] = _option(
        None, "with --bitfit: train these too, by --lora-train's rules; '.*bias' trains all biases, as in its paper"
    )
    lora_rank: int = _option(0, "rank of the updates of linear layers; all else is frozen then (0: no LoRA)")
    lora_alpha: float = _option(DEFAULT_ALPHA, "updates of linear layers are multiplied by this / --lora-rank")
    lora_dropout: float = _option(0.0, "dropout probability of the inputs of updates of linear layers")
    lora_targets: str = _option(
        "q_proj,k_proj,v_proj,out_proj,fc1,fc2",
        "linear layers to update: names or parts of dotted names, separated by commas, or a regular expression",
    )
    lora_train: Optional[str] = _option(
        None, "parameters to train beside LoRA's, e.g. image_proj or '.*layer_norm'; rules as of --lora-targets"
    )
    init_adapter: Optional[str] = _option(
        None, "file of `unival convert --only-trained` to put on the weights of --init-from"
    )
    unfreeze: bool = _option(False, "with adapters or prompts: train all other parameters too")
    adapter: bool = _option(False, "add an adapter to the feed-forward block of every layer and train only adapters")
    adapter_dim: int = _option(200, "inner width of adapters")
    adapter_type: str = _option("UN", "UN: one adapter an encoder layer; VL: one for patches and one for text")
    encoder_prompt: bool = _option(False, "learn prefixes of the encoder's keys and values and train only those")
    encoder_prompt_type: str = _option("prefix", "kind of prompts; prefix is the only one")
    encoder_prompt_length: int = _option(100, "length of the encoder's prefixes")
    encoder_prompt_projection: bool = _option(False, "make the encoder's prefixes by a small network")
    encoder_prompt_dim: Optional[int] = _option(None, "inner width of that network (default: twice the width)")
    decoder_prompt: bool = _option(False, "learn prefixes of the decoder's keys and values and train only those")
    decoder_prompt_type: str = _option("prefix", "kind of prompts; prefix is the only one")
    decoder_prompt_length: int = _option(100, "length of the decoder's prefixes")
    decoder_prompt_projection: bool = _option(False, "make the decoder's prefixes by a small network")
    decoder_prompt_dim: Optional[int] = _option(None, "inner width of that network (default: twice the width)")
    qk_norm: bool = _option(False, "layer norm on the inputs of queries, keys and values")
    add_mm_type_embedding: bool = _option(False, "type embeddings that tell pictures, films and sounds apart")
    layernorm_image_embedding: bool = _option(False, "layer norm on projected picture features")
    layernorm_video_embedding: bool = _option(False, "layer norm on projected film features")
    layernorm_audio_embedding: bool = _option(False, "layer norm on projected sound features")
    checkpoint_activations: bool = _option(False, "recompute layers in the backward pass to save memory")
    attention_backend: str = _option(
        "sdpa", "sdpa: torch's fused attention; xformers: that package's (GPU only); plain: products and softmax"
    )
    video_encoder_name: Optional[str] = _option(
        None,
        "film trunk: all_resnext101 (the released models), all_resnext50, all_resnext152, timm_tiny; none builds none",
    )
    video_model_path: Optional[str] = _option(
        None,
        "3-D ResNeXt Kinetics weights file to start the film trunk from; for timm_tiny an UnIVAL checkpoint with that "
        "picture trunk",
    )
    audio_encoder_name: Optional[str] = _option(
        None, "sound trunk: pann_cnn14 (the released models), pann_cnn10, pann_cnn6 or pann_tiny; none builds none"
    )
    audio_model_path: Optional[str] = _option(None, "PANN weights file to start the sound trunk from")
    mel_bins: int = _option(64, "mel bands of the sound trunk")
    hop_size: int = _option(480, "samples between two frames of the sound trunk")
    recompute_mel_filters: bool = _option(
        False,
        "compute the 48 kHz mel filters instead of taking a checkpoint's, as the original's evaluation does",
    )
    init_from: Optional[str] = _option(
        None,
        "checkpoint whose weights the network starts from: BART (bart.base, bart.large) or any UnIVAL file; unlike "
        "--restore-file nothing else is taken, and --store-ema starts from these weights",
    )
    init_from_verbatim: bool = _option(
        False,
        "copy BART's embedding rows by number, as the original does: positions are then two rows off and the mask "
        "symbol's row lands on an image code",
    )
    strict: bool = _option(
        False,
        "give it as the released evaluation scripts do; it has no effect because the original's flag means the "
        "opposite of its name: what was taken from, resized in and left of a checkpoint is always reported",
    )
    pooler_activation_fn: str = _option("tanh", "activation of classification heads (no released script uses one)")
    pooler_dropout: float = _option(0.0, "dropout of classification heads (no released script uses one)")
    pooler_classifier: str = _option("mlp", "kind of classification heads: mlp or linear (no released script uses one)")

    def __post_init__(self) -> None:
        for name in ("video_encoder_name", "audio_encoder_name"):
            if getattr(self, name) in ("", "none", "None"):
                setattr(self, name, None)
        if self.decoder_embed_dim is None:
            self.decoder_embed_dim = self.encoder_embed_dim
        if self.decoder_ffn_embed_dim is None:
            self.decoder_ffn_embed_dim = self.encoder_ffn_embed_dim
        problems = {
            "--decoder-embed-dim must equal --encoder-embed-dim": self.decoder_embed_dim != self.encoder_embed_dim,
            f"--activation-fn must be one of {', '.join(ACTIVATIONS)}": self.activation_fn not in ACTIVATIONS,
            "--share-all-embeddings needs --share-decoder-input-output-embed": self.share_all_embeddings
            and not self.share_decoder_input_output_embed,
            "--sample-patch-num must be positive": self.sample_patch_num is not None and self.sample_patch_num < 1,
        }
        problems |= {
            "--lora-rank must not be negative": self.lora_rank < 0,
            "--lora-alpha must be positive": self.lora_alpha <= 0,
            "--lora-dropout must be at least 0 and less than 1": not 0 <= self.lora_dropout < 1,
            "--lora-train needs --lora-rank": bool(self.lora_train) and not self.lora_rank,
            "--bitfit-train needs --bitfit": bool(self.bitfit_train) and not self.bitfit,
            "--bitfit trains biases only: leave --lora-rank out, or give it without --bitfit and with --lora-train "
            "'.*bias'": self.bitfit and self.lora_rank > 0,
        }
        problems["--adapter-type must be UN or VL"] = self.adapter_type not in ("UN", "VL")
        problems["--pooler-classifier must be mlp or linear"] = self.pooler_classifier not in ("mlp", "linear")
        problems[f"--pooler-activation-fn must be one of {', '.join(ACTIVATIONS)}"] = (
            self.pooler_activation_fn not in ACTIVATIONS
        )
        problems[f"--attention-backend must be one of {', '.join(BACKENDS)}"] = self.attention_backend not in BACKENDS
        for side in ("encoder", "decoder"):
            problems[f"--{side}-prompt-type must be prefix"] = getattr(self, f"{side}_prompt_type") != "prefix"
        wrong = [problem for problem, found in problems.items() if found]
        if wrong:
            raise ValueError("; ".join(wrong))


SCRIPT_FLAGS: Dict[str, Any] = {
    "scale_attn": True,
    "scale_fc": True,
    "scale_heads": True,
    "disable_entangle": True,
    "image_encoder_name": "timm_resnet",
}
"""What every released script passes on top of the preset."""

PRESETS: Dict[str, Dict[str, Any]] = {
    "unival": {},
    "unival_base": {},
    "unival_large": {
        "encoder_embed_dim": 1024,
        "encoder_ffn_embed_dim": 4096,
        "encoder_layers": 12,
        "encoder_attention_heads": 16,
        "decoder_layers": 12,
        "decoder_attention_heads": 16,
        "resnet_type": "resnet152",
    },
    # ours: a few million parameters, for laptops and tests
    "unival_tiny": {
        "encoder_embed_dim": 128,
        "encoder_ffn_embed_dim": 512,
        "encoder_layers": 2,
        "encoder_attention_heads": 4,
        "decoder_layers": 2,
        "decoder_attention_heads": 4,
        "disable_entangle": True,
        "image_encoder_name": "timm_tiny",
        "init_std": 0.08,
    },
}
"""Values by architecture name; a field that a preset does not name has the dataclass's default."""


def from_preset(name: str, overrides: Mapping[str, Any]) -> UnIVALConfig:
    """Configuration of preset ``name`` with ``overrides``; entries of ``overrides`` that are None count as not given.

    Raises:
        KeyError: unknown preset.
        ValueError: values that do not fit together (one line, names the flags).
    """
    values = dict(PRESETS[name])
    values.update({f.name: overrides[f.name] for f in fields(UnIVALConfig) if overrides.get(f.name) is not None})
    return UnIVALConfig(**values)
