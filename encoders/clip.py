"""Models of the CLIP kind: texts and pictures as vectors in one space."""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor, nn

from encoders.config import Precision
from encoders.hugging_face import (
    cut_to_length,
    load_config,
    load_model,
    load_picture_processor,
    load_tokenizer,
    pad,
    unloadable,
)
from encoders.model_files import ModelError, ModelFiles, check_length, read_config

BATCH_PICTURES = 32
MAX_PIXELS = 100_000_000  # larger ones are refused unread: they are damaged or hostile


def is_clip(files: ModelFiles) -> bool:
    """Whether a model reads pictures too."""
    return bool(read_config(files).get("model_type") == "clip")


class ClipTexts:
    """CLIP's reader of texts, with its tokenizer."""

    def __init__(self, files: ModelFiles, dtype: torch.dtype, max_tokens: int, device: torch.device) -> None:
        """Load the files; whatever fails raises its own error."""
        config = load_config(files)
        check_length(max_tokens, config.text_config.max_position_embeddings)
        self._tokenizer = load_tokenizer(files)
        self._max_tokens = max_tokens
        self._device = device
        self._model = load_model(files, dtype).eval().requires_grad_(False).to(device)
        self.width = int(config.projection_dim)

    def tokenize(self, texts: Sequence[str]) -> tuple[list[list[int]], NDArray[np.bool_]]:
        """Token ids of each text, and whether it was cut."""
        return cut_to_length(self._tokenizer, texts, self._max_tokens)

    @torch.inference_mode()
    def pooled(self, tokens: Sequence[list[int]]) -> Tensor:
        """Vectors of tokenised texts. [B, D]."""
        # CLIP reads the vector at the first end token, and padding on the right does not reach it.
        ids, _ = pad(tokens, self._tokenizer.eos_token_id)
        return _features(self._model.get_text_features(input_ids=ids.to(self._device)))


class PictureModel:
    """CLIP's reader of pictures: bytes in, vectors of length 1 out."""

    def __init__(self, files: ModelFiles, precision: Precision, device: str = "cpu") -> None:
        """Load the model's files; no network.

        Raises:
            ModelError: The files cannot be loaded.
        """
        try:
            dtype = torch.bfloat16 if precision == "bf16" else torch.float32
            self._model = load_model(files, dtype).eval().requires_grad_(False).to(device)
            self.width = int(self._model.config.projection_dim)
            self._processor = load_picture_processor(files)
        except Exception as error:  # transformers and safetensors each raise their own
            raise ModelError(unloadable(files, error)) from error
        self._device, self._dtype = device, dtype

    @torch.inference_mode()
    def encode(self, pictures: Sequence[bytes]) -> tuple[NDArray[np.float32], dict[int, str]]:
        """Vectors float32 [B, D], 0 where a picture cannot be read, and the reasons by row."""
        vectors = np.zeros((len(pictures), self.width), dtype=np.float32)
        problems: dict[int, str] = {}
        for start in range(0, len(pictures), BATCH_PICTURES):
            ready: dict[int, Image.Image] = {}
            for row in range(start, min(start + BATCH_PICTURES, len(pictures))):
                try:
                    ready[row] = _open(pictures[row])
                except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
                    problems[row] = f"not a readable picture: {' '.join(str(error).split())}"
            if ready:
                pixels = self._processor(list(ready.values()), return_tensors="pt")[
                    "pixel_values"
                ]  # [b, 3, S, S]
                pixels = pixels.to(self._device, self._dtype)
                features = _features(self._model.get_image_features(pixel_values=pixels)).float()
                vectors[list(ready)] = nn.functional.normalize(features, dim=-1).cpu().numpy()
        return vectors, problems


def join_vectors(texts: NDArray[np.float32], pictures: NDArray[np.float32]) -> NDArray[np.float32]:
    """Middle of each item's text and picture on the unit sphere; where one is 0, the other. float32 [N, D]."""
    both = texts + pictures
    length = np.linalg.norm(both, axis=1, keepdims=True)
    return np.asarray(both / np.where(length > 0, length, 1.0), dtype=np.float32)


def _open(data: bytes) -> Image.Image:
    """A picture in three colours."""
    with Image.open(io.BytesIO(data)) as file:
        if file.width * file.height > MAX_PIXELS:
            raise ValueError(f"{file.width} x {file.height} pixels, more than {MAX_PIXELS}")
        return file.convert("RGB")


def _features(output: Any) -> Tensor:
    """The projected vectors; newer versions of transformers wrap them. [B, D]."""
    found: Tensor = output if isinstance(output, Tensor) else output.pooler_output
    return found
