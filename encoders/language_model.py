"""Texts to vectors by any Hugging Face encoder or decoder. The only place that imports transformers."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from encoders.config import Pooling, Precision
from encoders.model_files import ModelError, ModelFiles, default_pooling


@dataclass(frozen=True)
class Encoded:
    """Embeddings of some texts, in their order."""

    vectors: NDArray[np.float32]  # [B, D], of length 1
    num_tokens: NDArray[np.int32]  # [B], as read
    cut: NDArray[np.bool_]  # [B], whether the text was longer than max_tokens


def choose_precision(precision: Literal["auto"] | Precision, *, gpu: bool) -> Precision:
    """``auto`` is bf16 where the hardware multiplies in it, else fp32."""
    if precision != "auto":
        return precision
    if gpu:
        fast = torch.cuda.is_bf16_supported() if torch.cuda.is_available() else True
    else:
        able = torch.cpu.get_capabilities()
        fast = bool(able.get("avx512_bf16") or able.get("amx_bf16"))
    return "bf16" if fast else "fp32"


def choose_pooling(pooling: Literal["auto"] | Pooling, files: ModelFiles) -> Pooling:
    """``auto`` is what the model's files name, else the last token for decoders and the mean for encoders.

    Raises:
        ModelError: The files name a pooling that is not supported, or the model is neither of the two kinds.
    """
    if pooling != "auto":
        return pooling
    named = default_pooling(files)
    if named is not None:
        return named
    return "last" if _is_decoder(_load_config(files)) else "mean"


def model_width(files: ModelFiles) -> int:
    """Width of the model's vectors, D.

    Raises:
        ModelError: The model is neither encoder nor decoder.
    """
    return int(_load_config(files).hidden_size)


class LanguageModel:
    """A frozen model in memory: texts in, vectors of length 1 out."""

    def __init__(
        self,
        files: ModelFiles,
        *,
        pooling: Literal["auto"] | Pooling = "auto",
        precision: Literal["auto"] | Precision = "auto",
        max_tokens: int = 128,
        batch_tokens: int = 2048,
        device: str = "cpu",
    ) -> None:
        """Load the model's files; no network.

        Raises:
            ModelError: The files cannot be loaded, or ``max_tokens`` is above what the model reads.
        """
        from transformers import AutoModel, AutoTokenizer
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()
        self.files = files
        self.device = torch.device(device)
        self.pooling = choose_pooling(pooling, files)
        self.precision = choose_precision(precision, gpu=self.device.type == "cuda")
        self.max_tokens = max_tokens
        self.batch_tokens = batch_tokens
        config = _load_config(files)
        dtype = torch.bfloat16 if self.precision == "bf16" else torch.float32
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(files.directory, local_files_only=True)
            model = AutoModel.from_pretrained(
                files.directory, config=config, dtype=dtype, local_files_only=True, use_safetensors=True
            )
        except Exception as error:  # transformers, tokenizers and safetensors each raise their own
            raise ModelError(_unloadable(files, error)) from error
        self._model: nn.Module = model.eval().requires_grad_(False).to(self.device)
        self.width = int(config.hidden_size)
        _check_length(max_tokens, config, self._tokenizer)

    def encode(self, texts: Sequence[str]) -> Encoded:
        """Embeddings of texts. Batches are of like length, under ``batch_tokens`` tokens with padding.

        Raises:
            ValueError: A text has no token.
        """
        if not texts:
            return Encoded(
                np.zeros((0, self.width), np.float32), np.zeros(0, np.int32), np.zeros(0, np.bool_)
            )
        tokens, cut = self._tokenize(texts)
        lengths = np.array([len(t) for t in tokens], dtype=np.int32)  # [B]
        if lengths.min() == 0:
            row = int(lengths.argmin())
            raise ValueError(
                f"text {row}: expected at least one token, got none from {texts[row]!r}. Leave it out."
            )
        vectors = np.empty((len(texts), self.width), dtype=np.float32)  # [B, D]
        for rows in length_batches(lengths, self.batch_tokens):
            vectors[rows] = self._forward([tokens[row] for row in rows])
        return Encoded(vectors, lengths, cut)

    def _tokenize(self, texts: Sequence[str]) -> tuple[list[list[int]], NDArray[np.bool_]]:
        options = {"add_special_tokens": True, "return_attention_mask": False, "verbose": False}
        self._tokenizer.truncation_side = "right"  # the newest and strongest behaviours come first
        tokens = self._tokenizer(list(texts), truncation=True, max_length=self.max_tokens, **options)[
            "input_ids"
        ]
        cut = np.zeros(len(texts), dtype=np.bool_)
        full = [row for row, ids in enumerate(tokens) if len(ids) >= self.max_tokens]
        if full:
            whole = self._tokenizer([texts[row] for row in full], truncation=False, **options)["input_ids"]
            cut[full] = [len(ids) > self.max_tokens for ids in whole]
        return tokens, cut

    @torch.inference_mode()
    def _forward(self, tokens: list[list[int]]) -> NDArray[np.float32]:
        longest = max(len(ids) for ids in tokens)
        pad = self._tokenizer.pad_token_id
        # Padding is masked out, so any token serves where the model has none for it.
        ids = torch.full((len(tokens), longest), 0 if pad is None else int(pad))  # [B, T]
        mask = torch.zeros(len(tokens), longest, dtype=torch.long)  # [B, T]
        for row, text in enumerate(tokens):
            ids[row, : len(text)] = torch.tensor(text)
            mask[row, : len(text)] = 1
        ids, mask = ids.to(self.device), mask.to(self.device)
        hidden = self._model(input_ids=ids, attention_mask=mask).last_hidden_state  # [B, T, D]
        pooled = pool(hidden.float(), mask, self.pooling)  # [B, D]
        return nn.functional.normalize(pooled, dim=-1).cpu().numpy()


def pool(hidden: Tensor, mask: Tensor, pooling: Pooling) -> Tensor:
    """One vector a text from its tokens' vectors, for padding on either side.

    Args:
        hidden: Vectors of the tokens. float32 [B, T, D].
        mask: 1 at tokens, 0 at padding. int64 [B, T].
        pooling: mean over tokens, the first (cls) or the last.

    Returns:
        float32 [B, D].
    """
    if pooling == "mean":
        shares = mask.to(hidden.dtype) / mask.sum(dim=1, keepdim=True)  # [B, T]
        return torch.einsum("bt,btd->bd", shares, hidden)
    first = mask.argmax(dim=1)  # [B]
    last = mask.shape[1] - 1 - mask.flip(1).argmax(dim=1)  # [B]
    position = first if pooling == "cls" else last
    return hidden[torch.arange(len(hidden), device=hidden.device), position]


def length_batches(lengths: NDArray[np.int32], batch_tokens: int) -> Iterator[NDArray[np.int64]]:
    """Rows in batches of like length, longest first: rows times longest stay within ``batch_tokens``.

    A text above the budget is a batch of its own.
    """
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        size = max(1, batch_tokens // max(1, int(lengths[order[start]])))
        yield order[start : start + size]
        start += size


def _load_config(files: ModelFiles) -> Any:
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(files.directory, local_files_only=True)
    except Exception as error:
        raise ModelError(_unloadable(files, error)) from error
    if getattr(config, "is_encoder_decoder", False) or not hasattr(config, "hidden_size"):
        raise ModelError(
            f"encoder.model: expected an encoder such as BERT or a decoder such as GPT, got "
            f"{config.model_type!r} in {files.directory}. Choose another model."
        )
    return config


def _is_decoder(config: Any) -> bool:
    from transformers.models.auto import modeling_auto

    kind = config.model_type
    causal, masked = (
        modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    )
    return kind in causal and kind not in masked  # encoders such as BERT are in both


def _check_length(max_tokens: int, config: Any, tokenizer: Any) -> None:
    limits = [getattr(config, "max_position_embeddings", None), tokenizer.model_max_length]
    limit = min(int(value) for value in limits if value)
    if max_tokens > limit:
        raise ModelError(
            f"encoder.max_tokens: expected at most the model's {limit}, got {max_tokens}. Lower it."
        )


def _unloadable(files: ModelFiles, error: Exception) -> str:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
    return f"encoder.model: expected a loadable model in {files.directory}, {reason}. Fetch it again."
