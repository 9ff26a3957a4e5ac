"""Fine-tuning a language model on a shop's log: what belongs together comes to lie together."""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from encoders.clip import is_clip
from encoders.config import FinetuneConfig, Pooling
from encoders.hugging_face import is_decoder, load_model, load_tokenizer, pad, pool
from encoders.language_model import choose_precision, length_batches
from encoders.model_files import ModelError, ModelFiles

MASKED_SHARE = 0.15  # of the tokens, as BERT was trained


def contrastive_loss(
    query: Tensor, items: Tensor, item_ids: Tensor, log_popularity: Tensor, temperature: float
) -> Tensor:
    """Softmax over the batch's items, corrected for how often each is drawn: it stands for the whole catalogue.

    Args:
        query: Unit vectors. float [B, D].
        items: Unit vectors: first the item that belongs to each query, then other negatives. float [C, D], C >= B.
        item_ids: Which item it is; a query's own item elsewhere in the batch is no negative. int64 [C].
        log_popularity: Log share with which each item is drawn. float [C].
        temperature: What cosines are divided by.

    Returns:
        Scalar to minimise.

    Source:
        Yi et al. 2019, Sampling-bias-corrected neural modeling for large corpus item recommendations, eq. 3.
    """
    own = torch.arange(len(query), device=query.device)
    scores = query @ items.T / temperature - log_popularity  # [B, C]
    same = item_ids[own, None] == item_ids  # [B, C]
    same[own, own] = False
    return F.cross_entropy(scores.masked_fill(same, -torch.inf), own)


def mask_tokens(
    ids: Tensor, mask: Tensor, mask_token: int, dice: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Ids with some replaced by the mask token, and the replaced ones as targets, -100 elsewhere. int64 [B, T] each.

    At least one token of the batch is replaced.
    """
    draws = torch.from_numpy(dice.random(tuple(ids.shape))).masked_fill(mask == 0, 1.0)
    chosen = (draws < MASKED_SHARE) | (draws == draws.min())
    return ids.masked_fill(chosen, mask_token), ids.masked_fill(~chosen, -100)


class Tuner:
    """A model that learns. Losses and the optimizer are the caller's."""

    def __init__(
        self, files: ModelFiles, pooling: Pooling, config: FinetuneConfig, *, seed: int, device: str = "cpu"
    ) -> None:
        """Load the model to be tuned, with a LoRA if configured.

        Raises:
            ModelError: LoRA is asked for and ``peft`` is not installed, or the tokenizer has no mask token.
        """
        if is_clip(files):
            raise ModelError(
                f"encoder.model: expected a model of texts to tune, got a CLIP in {files.directory}. "
                "Embed with it as it is."
            )
        torch.manual_seed(seed)
        self._config = config
        self._pooling = pooling
        self._device = torch.device(device)
        self._decoder = is_decoder(files)
        self._tokenizer = load_tokenizer(files)
        self._tokenizer.truncation_side = "right"
        head: Any = "causal" if self._decoder else "masked"
        with_head = config.language_modelling > 0
        if with_head and not self._decoder and self._tokenizer.mask_token_id is None:
            raise ModelError(
                f"finetune.language_modelling: expected a tokenizer with a mask token in {files.directory}, "
                "got none. Use 0."
            )
        model: Any = load_model(files, torch.float32, head if with_head else "none")
        if config.method == "lora":
            model = _with_lora(model, config.lora_rank)
        self.model: Any = model.to(self._device)
        gpu = self._device.type == "cuda"
        self._bf16 = choose_precision("auto", gpu=gpu) == "bf16"

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """What learns, by name."""
        return {name: value for name, value in self.model.named_parameters() if value.requires_grad}

    def vectors(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors that gradients flow through. float32 [B, D]."""
        return self._forward([ids or [0] for ids in self._tokenize(texts)])

    def language_loss(self, texts: Sequence[str], dice: np.random.Generator) -> Tensor:
        """Mean log loss of tokens that were masked, or for a decoder of each next token."""
        ids, mask = pad(self._tokenize(texts), self._tokenizer.pad_token_id)
        if self._decoder:
            targets = ids.masked_fill(mask == 0, -100)
        else:
            ids, targets = mask_tokens(ids, mask, self._tokenizer.mask_token_id, dice)
        inputs = {"input_ids": ids, "attention_mask": mask, "labels": targets}
        with self._cast():
            out = self.model(**{name: value.to(self._device) for name, value in inputs.items()})
        loss: Tensor = out.loss.float()
        return loss

    @torch.no_grad()
    def embed(self, texts: Sequence[str], batch_tokens: int = 2048) -> NDArray[np.float32]:
        """Vectors of length 1 from the model as it is now, without dropout. float32 [B, D]."""
        self.model.eval()
        tokens = self._tokenize(texts)
        lengths = np.array([len(ids) for ids in tokens], dtype=np.int32)
        width = int(self.model.config.hidden_size)
        vectors = np.zeros((len(texts), width), dtype=np.float32)
        for rows in length_batches(lengths, batch_tokens):
            vectors[rows] = self._forward([tokens[row] for row in rows]).cpu().numpy()
        self.model.train()
        return vectors

    def save(self, folder: str) -> None:
        """Write model and tokenizer as transformers reads them: LoRA merged into the weights, heads left out."""
        model = self.model.merge_and_unload() if self._config.method == "lora" else self.model
        model.base_model.save_pretrained(folder)
        self._tokenizer.save_pretrained(folder)

    def _tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        tokens: list[list[int]] = self._tokenizer(
            list(texts), truncation=True, max_length=self._config.max_tokens, return_attention_mask=False
        )["input_ids"]
        return tokens

    def _forward(self, tokens: Sequence[list[int]]) -> Tensor:
        ids, mask = (part.to(self._device) for part in pad(tokens, self._tokenizer.pad_token_id))
        backbone = (
            self.model.get_base_model().base_model if self._config.method == "lora" else self.model.base_model
        )
        with self._cast():
            hidden = backbone(input_ids=ids, attention_mask=mask).last_hidden_state
        return F.normalize(pool(hidden.float(), mask, self._pooling), dim=-1)  # [B, D]

    def _cast(self) -> Any:
        return torch.autocast(self._device.type, torch.bfloat16) if self._bf16 else nullcontext()


def _with_lora(model: Any, rank: int) -> Any:
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise ModelError(
            "finetune.method: expected the package peft for lora, found none. Install it with `pip install peft`, "
            "or use full."
        ) from error
    return get_peft_model(model, LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear"))


def retrieval_gains(
    queries: NDArray[np.float32], items: NDArray[np.float32], wanted: NDArray[np.int64], k: int = 10
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Whether each query's item is among the ``k`` nearest of all items, and its NDCG there.

    Items that are as near as the wanted one count half before it, half after.

    Args:
        queries: Unit vectors. float32 [B, D].
        items: Unit vectors. float32 [N, D].
        wanted: Item index. int64 [B].
        k: Length of the list.

    Returns:
        Hits and NDCG, each float64 [B].
    """
    hits = np.zeros(len(queries))
    for start in range(0, len(queries), 1024):
        scores = queries[start : start + 1024] @ items.T  # [b, N]
        own = np.take_along_axis(scores, wanted[start : start + 1024, None], 1)
        tied = np.isclose(scores, own, rtol=0, atol=1e-6)
        above = ((scores > own) & ~tied).sum(1) + (tied.sum(1) - 1) / 2
        hits[start : start + 1024] = above
    rank = hits  # how many come before
    return (rank < k).astype(np.float64), np.where(rank < k, 1 / np.log2(rank + 2), 0.0)
