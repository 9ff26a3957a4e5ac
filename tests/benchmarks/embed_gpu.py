"""The encoder on a GPU: MiniLM, and a decoder of 0.6 billion random weights, with the share of the card's peak."""

import shutil
import tempfile
import time
from pathlib import Path

import torch

from encoders.language_model import LanguageModel
from encoders.model_files import DEFAULT_MODEL, resolve_model

PEAK_FLOP_S = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L4": 121e12}  # bf16, dense, by the maker
DECODER = {
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 151_936,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": True,
}
SENTENCE = "purchased: red shoes; a desk lamp; coffee beans. added to cart: a tent. viewed: a novel; "


def gpu_figures(quick: bool) -> dict[str, float]:
    """Tokens a second and model FLOP utilisation; empty where there is no GPU."""
    if not torch.cuda.is_available():
        return {}
    name = torch.cuda.get_device_name()
    peak = next((flop_s for part, flop_s in PEAK_FLOP_S.items() if part in name), None)
    minilm = resolve_model(DEFAULT_MODEL).directory
    count = 256 if quick else 8192
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        decoder = _save_decoder(Path(folder, "decoder"), minilm)
        for label, directory, repeats in (("minilm", minilm, 5), ("decoder", decoder, 20)):
            model = LanguageModel(
                resolve_model(str(directory)),
                max_tokens=512,
                batch_tokens=65_536,
                device="cuda",
                precision="bf16",
            )
            texts = [f"{number} " + SENTENCE * repeats for number in range(count)]
            model.encode(texts[:512])
            torch.cuda.synchronize()
            started = time.perf_counter()
            encoded = model.encode(texts)
            seconds = time.perf_counter() - started
            parameters = sum(
                p.numel()
                for n, p in model._backend._model.named_parameters()
                if p.ndim == 2 and "embed" not in n
            )
            flop_s = 2 * parameters * int(encoded.num_tokens.sum()) / seconds
            figures[f"gpu_{label}_tokens_s"] = int(encoded.num_tokens.sum()) / seconds
            if peak is not None:
                figures[f"gpu_{label}_mfu"] = flop_s / peak
            print(
                f"{name}: {label} {figures[f'gpu_{label}_tokens_s']:.0f} tokens/s, {flop_s / 1e12:.0f} TFLOP/s"
            )
    return figures


def _save_decoder(folder: Path, tokenizer: Path) -> Path:
    from transformers import Qwen3Config, Qwen3Model

    torch.manual_seed(0)
    Qwen3Model(Qwen3Config(**DECODER)).to(torch.bfloat16).save_pretrained(folder)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tokenizer / file, folder / file)
    return folder
