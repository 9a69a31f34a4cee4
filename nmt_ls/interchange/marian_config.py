"""A Hugging Face Marian `config.json` and our model settings, each from the other."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from nmt_ls.config import ModelConfig
from nmt_ls.errors import UserError
from nmt_ls.interchange.tensors import read_json

ACTIVATIONS = {
    "relu": "relu",
    "swish": "swish",
    "silu": "swish",
    "gelu": "gelu_exact",
    "gelu_new": "gelu",
    "gelu_pytorch_tanh": "gelu",
}
"""Our name of each activation."""

NORM_EPSILON = 1e-5
"""Of `torch.nn.LayerNorm`; a Marian configuration cannot say another."""

_Size = Annotated[int, Field(ge=1)]
_Id = Annotated[int, Field(ge=0)]


class MarianConfig(BaseModel):
    """What decides the computation of `MarianMTModel`, with the defaults of transformers."""

    model_config = ConfigDict(strict=True, extra="ignore")

    model_type: str
    d_model: Annotated[int, Field(ge=2, multiple_of=2)] = 1024
    encoder_layers: _Size = 12
    decoder_layers: _Size = 12
    encoder_attention_heads: _Size = 16
    decoder_attention_heads: _Size = 16
    encoder_ffn_dim: _Size = 4096
    decoder_ffn_dim: _Size = 4096
    activation_function: str = "gelu"
    scale_embedding: bool = False
    share_encoder_decoder_embeddings: bool = True
    tie_word_embeddings: bool = True
    vocab_size: _Size = 58101
    decoder_vocab_size: _Size | None = None
    max_position_embeddings: _Size = 1024
    pad_token_id: _Id = 58100
    eos_token_id: _Id = 0
    decoder_start_token_id: _Id = 58100
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    attention_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    activation_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    num_beams: _Size | None = None
    # Switches of early versions of transformers, which no Marian model has.
    normalize_before: bool = False
    normalize_embedding: bool = False
    add_final_layer_norm: bool = False

    @model_validator(mode="before")
    @classmethod
    def _one_end(cls, raw: Any) -> Any:
        if isinstance(raw, dict) and isinstance(end := raw.get("eos_token_id"), list):
            return {**raw, "eos_token_id": end[0] if len(end) == 1 else end}
        return raw

    @property
    def target_size(self) -> int:
        """V of the target side."""
        if self.share_encoder_decoder_embeddings:
            return self.vocab_size
        return self.decoder_vocab_size or self.vocab_size

    @property
    def tied(self) -> str:
        """`model.tied_embeddings`."""
        if self.share_encoder_decoder_embeddings:
            return "all"
        return "decoder" if self.tie_word_embeddings else "none"


def read_marian_config(folder: Path) -> tuple[MarianConfig, dict[str, Any]]:
    """The checked configuration of a folder, and the file as it stands.

    Raises:
      UserError: no Marian model, or one with a switch that the Transformer here does not have.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise UserError(f"{folder} is no Hugging Face model: it has no config.json")
    raw = read_json(path)
    if raw.get("model_type") != "marian":
        raise UserError(
            f"{path}: model_type={raw.get('model_type')!r}; only Marian models (OPUS-MT), "
            "model_type=marian, can be imported"
        )
    try:
        config = MarianConfig.model_validate(raw)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"]))
        raise UserError(f"{path}: {key}={first['input']!r}: {first['msg'].lower()}") from None
    for problem in _unsupported(config):
        raise UserError(f"{path}: {problem}")
    return config, raw


def _unsupported(c: MarianConfig) -> list[str]:
    found = []
    for switch in ("normalize_before", "normalize_embedding", "add_final_layer_norm"):
        if getattr(c, switch):
            found.append(f"{switch}=true is not supported: Marian's norms come after each block")
    for one, other in (
        ("encoder_attention_heads", "decoder_attention_heads"),
        ("encoder_ffn_dim", "decoder_ffn_dim"),
    ):
        if getattr(c, one) != getattr(c, other):
            found.append(
                f"{one}={getattr(c, one)} and {other}={getattr(c, other)} differ, which is not "
                "supported"
            )
    if c.d_model % c.encoder_attention_heads:
        found.append(
            f"encoder_attention_heads={c.encoder_attention_heads} does not divide d_model="
            f"{c.d_model}"
        )
    if c.activation_function not in ACTIVATIONS:
        found.append(
            f"activation_function={c.activation_function} is not supported; "
            f"there are {', '.join(ACTIVATIONS)}"
        )
    if c.share_encoder_decoder_embeddings and not c.tie_word_embeddings:
        found.append(
            "tie_word_embeddings=false with share_encoder_decoder_embeddings=true is not supported"
        )
    for name in ("pad_token_id", "eos_token_id", "decoder_start_token_id"):
        size = min(c.vocab_size, c.target_size)
        if getattr(c, name) >= size:
            found.append(f"{name}={getattr(c, name)} is beyond the {size} ids of the vocabulary")
    return found


def model_config_of(marian: MarianConfig, positions: str) -> ModelConfig:
    """Our settings of the same computation.

    Args:
      marian: a supported configuration.
      positions: what its position tables are (`model.positions`).
    """
    return ModelConfig(
        encoder_layers=marian.encoder_layers,
        decoder_layers=marian.decoder_layers,
        width=marian.d_model,
        heads=marian.encoder_attention_heads,
        feed_forward=marian.encoder_ffn_dim,
        norm="post",
        positions=positions,  # type: ignore[arg-type]
        max_positions=marian.max_position_embeddings,
        activation=ACTIVATIONS[marian.activation_function],  # type: ignore[arg-type]
        tied_embeddings=marian.tied,  # type: ignore[arg-type]
        scale_embeddings=marian.scale_embedding,
        output_bias=marian.tied != "none",
        norm_epsilon=NORM_EPSILON,
        dropout=marian.dropout,
        attention_dropout=marian.attention_dropout,
        activation_dropout=marian.activation_dropout,
    )


def marian_config_of(
    model: ModelConfig, source_size: int, target_size: int, before: dict[str, Any]
) -> dict[str, Any]:
    """The fields of a `config.json` that say how `MarianMTModel` computes.

    Args:
      model: our settings.
      source_size, target_size: vocabulary sizes.
      before: the `config.json` that the run was imported from, or nothing.

    Raises:
      UserError: a setting that Marian cannot express; it is named.
    """
    refusals = {
        f"model.norm={model.norm}": model.norm != "post",
        f"model.activation={model.activation}": model.activation == "swiglu",
        f"model.logit_softcap={model.logit_softcap:g}": bool(model.logit_softcap),
    }
    for setting, refused in refusals.items():
        if refused:
            raise UserError(
                f"--to huggingface: Marian cannot express {setting}; export --to ctranslate2, "
                "safetensors or stablehlo, which can"
            )
    names = {ours: theirs for theirs, ours in reversed(ACTIVATIONS.items())}
    activation = names[model.activation]
    if ACTIVATIONS.get(before.get("activation_function", "")) == model.activation:
        activation = before["activation_function"]  # one function, two names
    return {
        "model_type": "marian",
        "architectures": ["MarianMTModel"],
        "is_encoder_decoder": True,
        "d_model": model.width,
        "encoder_layers": model.encoder_layers,
        "decoder_layers": model.decoder_layers,
        "encoder_attention_heads": model.heads,
        "decoder_attention_heads": model.heads,
        "encoder_ffn_dim": model.feed_forward,
        "decoder_ffn_dim": model.feed_forward,
        "activation_function": activation,
        "scale_embedding": model.scale_embeddings,
        "share_encoder_decoder_embeddings": model.tied_embeddings == "all",
        "tie_word_embeddings": model.tied_embeddings != "none",
        "vocab_size": source_size,
        "decoder_vocab_size": target_size,
        "max_position_embeddings": model.max_positions,
        "dropout": model.dropout,
        "attention_dropout": model.attention_dropout,
        "activation_dropout": model.activation_dropout,
    }
