"""Models and tokenizers of Hugging Face. The only place that imports transformers."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from encoders.config import Pooling
from encoders.model_files import ModelError, ModelFiles, check_length


class PaddedModel:
    """Any encoder or decoder, as transformers runs it, on any device, with its tokenizer."""

    def __init__(
        self, files: ModelFiles, pooling: Pooling, dtype: torch.dtype, max_tokens: int, device: torch.device
    ) -> None:
        """Load the files; whatever fails raises its own error."""
        config = load_config(files)
        self._tokenizer = load_tokenizer(files)
        self._pooling = pooling
        self._device = device
        self._max_tokens = max_tokens
        # What follows a token does not change it in a decoder: padding on the right needs no mask.
        self._needs_mask = not _is_decoder(config) or getattr(config, "use_bidirectional_attention", False)
        self._model = load_model(files, dtype).eval().requires_grad_(False).to(device)
        self.width = int(config.hidden_size)
        check_length(
            max_tokens, getattr(config, "max_position_embeddings", None), self._tokenizer.model_max_length
        )

    def tokenize(self, texts: Sequence[str]) -> tuple[list[list[int]], NDArray[np.bool_]]:
        """Token ids of each text, and whether it was cut."""
        return cut_to_length(self._tokenizer, texts, self._max_tokens)

    @torch.inference_mode()
    def pooled(self, tokens: Sequence[list[int]]) -> Tensor:
        """Pooled vectors of tokenised texts. float32 [B, D]."""
        ids, mask = pad(tokens, self._tokenizer.pad_token_id)
        ids, mask = ids.to(self._device), mask.to(self._device)
        attention = mask if self._needs_mask else None
        hidden = self._model(
            input_ids=ids, attention_mask=attention, **_no_cache(self._model)
        ).last_hidden_state
        return pool(hidden, mask, self._pooling)


def cut_to_length(
    tokenizer: Any, texts: Sequence[str], max_tokens: int
) -> tuple[list[list[int]], NDArray[np.bool_]]:
    """Token ids of each text, at most ``max_tokens``, and whether there would have been more."""
    options = {"add_special_tokens": True, "return_attention_mask": False, "verbose": False}
    tokenizer.truncation_side = "right"  # the newest and strongest behaviours come first
    tokens = tokenizer(list(texts), truncation=True, max_length=max_tokens, **options)["input_ids"]
    cut = np.zeros(len(texts), dtype=np.bool_)
    full = [row for row, ids in enumerate(tokens) if len(ids) >= max_tokens]
    if full:
        whole = tokenizer([texts[row] for row in full], truncation=False, **options)["input_ids"]
        cut[full] = [len(ids) > max_tokens for ids in whole]
    return tokens, cut


def pad(tokens: Sequence[list[int]], padding: int | None) -> tuple[Tensor, Tensor]:
    """Token ids padded on the right, and 1 where they are no padding. int64 [B, T] each."""
    longest = max(len(ids) for ids in tokens)
    # Padding is masked out, so any token serves where the model has none for it.
    ids = torch.full((len(tokens), longest), 0 if padding is None else int(padding))  # [B, T]
    mask = torch.zeros(len(tokens), longest, dtype=torch.long)  # [B, T]
    for row, text in enumerate(tokens):
        ids[row, : len(text)] = torch.tensor(text)
        mask[row, : len(text)] = 1
    return ids, mask


def pool(hidden: Tensor, mask: Tensor, pooling: Pooling) -> Tensor:
    """One vector a text from its tokens' vectors, for padding on either side.

    Args:
        hidden: Vectors of the tokens. float [B, T, D].
        mask: 1 at tokens, 0 at padding. int64 [B, T].
        pooling: mean over tokens, the first (cls) or the last.

    Returns:
        float32 [B, D].
    """
    if pooling == "mean":
        shares = mask.float() / mask.sum(dim=1, keepdim=True)  # [B, T]
        return torch.einsum("bt,btd->bd", shares, hidden.float())
    first = mask.argmax(dim=1)  # [B]
    last = mask.shape[1] - 1 - mask.flip(1).argmax(dim=1)  # [B]
    position = first if pooling == "cls" else last
    return hidden[torch.arange(len(hidden), device=hidden.device), position].float()


def load_tokenizer(files: ModelFiles) -> Any:
    """A model's tokenizer, as transformers reads it."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(files.directory, local_files_only=True)


def load_picture_processor(files: ModelFiles) -> Any:
    """What makes pictures into a CLIP's numbers; the one on PIL, as torchvision is not asked for."""
    import transformers

    kind = getattr(transformers, "CLIPImageProcessorPil", None) or transformers.CLIPImageProcessor
    return kind.from_pretrained(files.directory, local_files_only=True)


def load_model(
    files: ModelFiles, dtype: torch.dtype, head: Literal["none", "masked", "causal"] = "none"
) -> Any:
    """A model's layers, with a head that predicts tokens where one is named."""
    from transformers import AutoModel, AutoModelForCausalLM, AutoModelForMaskedLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    kind = {"none": AutoModel, "masked": AutoModelForMaskedLM, "causal": AutoModelForCausalLM}[head]
    return kind.from_pretrained(
        files.directory, config=load_config(files), dtype=dtype, local_files_only=True, use_safetensors=True
    )


def is_decoder(files: ModelFiles) -> bool:
    """Whether a model predicts the next token (GPT, Qwen, Llama kind), else it fills in (BERT kind)."""
    return _is_decoder(load_config(files))


def _no_cache(model: Any) -> dict[str, bool]:
    return {"use_cache": False} if hasattr(model.config, "use_cache") else {}


def load_config(files: ModelFiles) -> Any:
    """A model's config.

    Raises:
        ModelError: It cannot be read, or the model is neither encoder nor decoder.
    """
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(files.directory, local_files_only=True)
    except Exception as error:
        raise ModelError(unloadable(files, error)) from error
    readable = hasattr(config, "hidden_size") or config.model_type == "clip"
    if getattr(config, "is_encoder_decoder", False) or not readable:
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


def unloadable(files: ModelFiles, error: Exception) -> str:
    """Why a model's files cannot be loaded, in one line."""
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
    return f"encoder.model: expected a loadable model in {files.directory}, {reason}. Fetch it again."
