"""Every size and switch of the UnIVAL network, and the presets that fill them.

The field names are the command-line flags of the released scripts with underscores. Annotations are real objects (no
postponed evaluation) because fairseq derives command-line flags from them.
"""

from dataclasses import dataclass, field, fields
from typing import Any, Dict, Mapping, Optional


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
    activation_fn: str = _option("gelu", "activation of the feed-forward layers: gelu or relu")
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
    sync_bn: bool = _option(False, "use batch norm over all GPUs in the picture trunk")
    orig_patch_image_size: int = _option(256, "picture size of pretraining, for --interpolate-position")
    interpolate_position: bool = _option(
        False, "interpolate picture positions when pictures are larger than pretraining's"
    )
    sample_patch_num: Optional[int] = _option(
        None, "while training, keep this many randomly drawn patches of each picture (default: all)"
    )
    sample_patches_in_eval: bool = _option(
        False, "draw --sample-patch-num patches in evaluation too, as the original code does (its results then vary)"
    )
    init_std: float = _option(0.02, "standard deviation of the initial weights of linear layers and embeddings")
    freeze_encoder_embedding: bool = _option(False, "do not train the token embedding (tied: encoder and decoder)")
    freeze_decoder_embedding: bool = _option(False, "do not train the token embedding (tied: encoder and decoder)")
    freeze_encoder: bool = _option(
        False, "train only the picture trunk, its projection and its positions in the encoder"
    )
    freeze_decoder: bool = _option(False, "do not train the decoder")
    freeze_image_encoder: bool = _option(False, "do not train the picture trunk")
    freeze_video_encoder: bool = _option(False, "do not train the film trunk (this version builds none)")
    freeze_audio_encoder: bool = _option(False, "do not train the sound trunk (this version builds none)")
    checkpoint_activations: bool = _option(False, "recompute layers in the backward pass to save memory")
    video_encoder_name: Optional[str] = _option(
        None, "film trunk of old scripts; this version builds none, picture tasks give the same results without it"
    )
    video_model_path: Optional[str] = _option(None, "weights of the film trunk; this version builds none")
    audio_encoder_name: Optional[str] = _option(
        None, "sound trunk of old scripts; this version builds none, picture tasks give the same results without it"
    )
    audio_model_path: Optional[str] = _option(None, "weights of the sound trunk; this version builds none")
    strict: bool = _option(
        False,
        "give it as the released evaluation scripts do; it has no effect because the original's flag means the "
        "opposite of its name: what was taken from, resized in and left of a checkpoint is always reported",
    )
    pooler_activation_fn: str = _option("tanh", "activation of classification heads (no released script uses one)")
    pooler_dropout: float = _option(0.0, "dropout of classification heads (no released script uses one)")
    pooler_classifier: str = _option("mlp", "kind of classification heads (no released script uses one)")

    def __post_init__(self) -> None:
        if self.decoder_embed_dim is None:
            self.decoder_embed_dim = self.encoder_embed_dim
        if self.decoder_ffn_embed_dim is None:
            self.decoder_ffn_embed_dim = self.encoder_ffn_embed_dim
        problems = {
            "--decoder-embed-dim must equal --encoder-embed-dim": self.decoder_embed_dim != self.encoder_embed_dim,
            "--activation-fn must be gelu or relu": self.activation_fn not in ("gelu", "relu"),
            "--share-all-embeddings needs --share-decoder-input-output-embed": self.share_all_embeddings
            and not self.share_decoder_input_output_embed,
            "--sample-patch-num must be positive": self.sample_patch_num is not None and self.sample_patch_num < 1,
        }
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
