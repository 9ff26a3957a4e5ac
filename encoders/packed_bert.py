"""BERT without padding: all tokens of a batch lie in one matrix, and texts of one length share attention.

Transformers' own BERT multiplies and normalises padding too, and runs bias, activation and residual as passes of
their own. Here oneDNN does them inside the matrix product, on weights that it laid out once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor

from encoders.config import Pooling
from encoders.model_files import ModelFiles, check_length, read_config, read_json, weight_files

TOKENIZER = "tokenizer.json"
ROWS_HINT = 1024  # tokens a batch that oneDNN lays the weights out for; others work too
_ACTIVATIONS = {"gelu": "none", "gelu_new": "tanh", "gelu_pytorch_tanh": "tanh"}  # as oneDNN names them


@dataclass(frozen=True)
class _Linear:
    """A dense layer in oneDNN's own layout."""

    weight: Tensor
    bias: Tensor  # [O]

    def __call__(self, x: Tensor, activation: str = "none", algorithm: str = "") -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, activation, [], algorithm)  # type: ignore[no-any-return]

    def plus(self, x: Tensor, other: Tensor) -> Tensor:
        """The layer of ``x``, plus ``other``. [T, O]."""
        return torch.ops.mkldnn._linear_pointwise.binary(x, other, self.weight, self.bias, "add")  # type: ignore[no-any-return]


@dataclass(frozen=True)
class _Norm:
    weight: Tensor  # [D]
    bias: Tensor  # [D]
    epsilon: float

    def __call__(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.epsilon)


@dataclass(frozen=True)
class _Layer:
    query_key_value: _Linear  # [3D, D]
    attended: _Linear
    attended_norm: _Norm
    wide: _Linear
    narrow: _Linear
    norm: _Norm


def is_packable(files: ModelFiles) -> bool:
    """Whether ``PackedBert`` computes what a model's ``config.json`` describes, on this processor."""
    config = read_config(files)
    return bool(
        (files.directory / TOKENIZER).is_file()
        and torch.backends.cpu.get_cpu_capability().startswith("AVX")  # where oneDNN's layouts were tried
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and config.get("model_type") == "bert"
        and config.get("hidden_act", "gelu") in _ACTIVATIONS
        and config.get("position_embedding_type", "absolute") == "absolute"
        and not config.get("is_decoder", False)
    )


class PackedBert:
    """The layers of a BERT, frozen."""

    def __init__(self, weights: Mapping[str, Tensor], config: Mapping[str, Any], dtype: torch.dtype) -> None:
        """Take the weights by the names that transformers gives them.

        Raises:
            KeyError: A weight is missing.
        """
        prefix = "bert." if "bert.embeddings.word_embeddings.weight" in weights else ""
        self._of = {name.removeprefix(prefix): value for name, value in weights.items()}
        self._dtype = dtype
        self._epsilon = float(config.get("layer_norm_eps", 1e-12))
        self._num_heads = int(config["num_attention_heads"])
        self._algorithm = _ACTIVATIONS[config.get("hidden_act", "gelu")]
        self._words = self._of["embeddings.word_embeddings.weight"].to(dtype)  # [V, D]
        places = self._of["embeddings.position_embeddings.weight"]
        self._places = (places + self._of["embeddings.token_type_embeddings.weight"][0]).to(dtype)  # [P, D]
        self._norm = self._read_norm("embeddings.LayerNorm")
        self._layers = [self._read_layer(f"encoder.layer.{i}.") for i in range(config["num_hidden_layers"])]
        del self._of
        self.width = int(self._words.shape[1])

    def _read_layer(self, name: str) -> _Layer:
        return _Layer(
            self._read_linear(*(f"{name}attention.self.{part}" for part in ("query", "key", "value"))),
            self._read_linear(f"{name}attention.output.dense"),
            self._read_norm(f"{name}attention.output.LayerNorm"),
            self._read_linear(f"{name}intermediate.dense"),
            self._read_linear(f"{name}output.dense"),
            self._read_norm(f"{name}output.LayerNorm"),
        )

    def _read_linear(self, *names: str) -> _Linear:
        weight = torch.cat([self._of[f"{name}.weight"] for name in names]).to(self._dtype)
        bias = torch.cat([self._of[f"{name}.bias"] for name in names]).to(self._dtype)
        return _Linear(torch.ops.mkldnn._reorder_linear_weight(weight, ROWS_HINT), bias)

    def _read_norm(self, name: str) -> _Norm:
        """In full precision whatever the rest: it costs no time, and bf16 loses less."""
        return _Norm(self._of[f"{name}.weight"].float(), self._of[f"{name}.bias"].float(), self._epsilon)

    @torch.inference_mode()
    def __call__(self, texts: Sequence[Sequence[int]], pooling: Pooling) -> Tensor:
        """Pooled vectors of tokenised texts.

        Args:
            texts: Token ids of each text, longest first, so that equal lengths are neighbours. B rows.
            pooling: mean over tokens, the first (cls) or the last.

        Returns:
            float32 [B, D].
        """
        lengths = [len(text) for text in texts]
        ids = torch.tensor([token for text in texts for token in text])  # [T]
        places = torch.cat([torch.arange(length) for length in lengths])  # [T]
        groups = _groups(lengths)
        x = self._norm(F.embedding(ids, self._words) + F.embedding(places, self._places))  # [T, D]
        for layer in self._layers:
            attended = self._attend(layer.query_key_value(x), groups)
            x = layer.attended_norm(layer.attended.plus(attended, x))
            x = layer.norm(layer.narrow.plus(layer.wide(x, "gelu", self._algorithm), x))
        return torch.cat(
            [_pool(x[start:end].view(size, -1, self.width), pooling) for start, end, size in groups]
        )

    def _attend(self, query_key_value: Tensor, groups: Sequence[tuple[int, int, int]]) -> Tensor:
        """Attention within each text. [T, 3D] to [T, D]."""
        out = torch.empty(len(query_key_value), self.width, dtype=query_key_value.dtype)
        for start, end, size in groups:
            part = query_key_value[start:end].view(
                size, -1, 3, self._num_heads, self.width // self._num_heads
            )
            query, key, value = part.permute(2, 0, 3, 1, 4)  # each [size, heads, length, D / heads]
            mixed = F.scaled_dot_product_attention(query, key, value).transpose(1, 2)
            out[start:end] = mixed.reshape(end - start, self.width)
        return out


def _groups(lengths: Sequence[int]) -> list[tuple[int, int, int]]:
    """Runs of equal length: first token, end, and how many texts."""
    groups: list[tuple[int, int, int]] = []
    start = row = 0
    while row < len(lengths):
        size = 1
        while row + size < len(lengths) and lengths[row + size] == lengths[row]:
            size += 1
        groups.append((start, start + size * lengths[row], size))
        start, row = groups[-1][1], row + size
    return groups


def _pool(hidden: Tensor, pooling: Pooling) -> Tensor:
    """One vector a text of those of its tokens. [size, length, D] to float32 [size, D]."""
    if pooling == "mean":
        return hidden.float().mean(dim=1)
    return hidden[:, 0 if pooling == "cls" else -1].float()


class PackedModel:
    """``PackedBert`` and its tokenizer, loaded without transformers, whose import takes seconds."""

    def __init__(self, files: ModelFiles, pooling: Pooling, dtype: torch.dtype, max_tokens: int) -> None:
        """Load the files; whatever fails raises its own error."""
        config = read_config(files)
        limit = read_json(files.directory / "tokenizer_config.json", {}).get("model_max_length")
        check_length(max_tokens, config.get("max_position_embeddings"), limit)
        self._tokenizer = Tokenizer.from_file(str(files.directory / TOKENIZER))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(
            max_tokens, direction="right"
        )  # the newest and strongest come first
        weights: dict[str, Tensor] = {}
        for part in weight_files(files.directory):
            weights |= load_file(part)
        self._bert = PackedBert(weights, config, dtype)
        self._pooling = pooling
        self.width = self._bert.width

    def tokenize(self, texts: Sequence[str]) -> tuple[list[list[int]], NDArray[np.bool_]]:
        """Token ids of each text, and whether it was cut."""
        encodings = self._tokenizer.encode_batch_fast(list(texts))
        cut = np.array([bool(encoding.overflowing) for encoding in encodings], dtype=np.bool_)
        return [encoding.ids for encoding in encodings], cut

    def pooled(self, tokens: Sequence[list[int]]) -> Tensor:
        """Pooled vectors of tokenised texts, longest first. float32 [B, D]."""
        return self._bert(tokens, self._pooling)
