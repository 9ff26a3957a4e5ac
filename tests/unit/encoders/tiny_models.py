"""Random models of a few thousand weights, saved as Hugging Face folders."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertModel,
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    GPT2Config,
    GPT2Model,
    LlamaConfig,
    LlamaModel,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3Model,
)

TEXT = (
    "a b c d e red blue green shoe phone lamp electronics smartphone samsung apple purchased added to cart "
    "viewed no purchases or views yet returned : ; , ."
)
WORDS = TEXT.split()


def save_bert(folder: Path, seed: int = 0) -> Path:
    """A BERT of width 16 that reads at most 64 tokens."""
    tokenizer = _tokenizer(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
        initializer_range=0.5,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    BertModel(config).save_pretrained(folder)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        mask_token="[MASK]",
        sep_token="[SEP]",
    ).save_pretrained(folder)
    return folder


def save_gpt2(folder: Path, padding_side: str = "right", seed: int = 0) -> Path:
    """A GPT-2 of width 16 without a padding token."""
    sizes = {
        "n_embd": 16,
        "n_layer": 2,
        "n_head": 2,
        "n_positions": 64,
        "resid_pdrop": 0.0,
        "embd_pdrop": 0.0,
    }
    return _save_decoder(folder, GPT2Config(**sizes, **_COMMON), GPT2Model, padding_side, seed)


def save_qwen(folder: Path, padding_side: str = "right", seed: int = 0) -> Path:
    """A Qwen 3 of width 16 with grouped keys."""
    config = Qwen3Config(**_SIZES, **_COMMON, head_dim=8)
    return _save_decoder(folder, config, Qwen3Model, padding_side, seed)


def save_llama(folder: Path, padding_side: str = "right", seed: int = 0) -> Path:
    """A Llama of width 16 with grouped keys."""
    return _save_decoder(folder, LlamaConfig(**_SIZES, **_COMMON), LlamaModel, padding_side, seed)


_COMMON = {"vocab_size": len(WORDS) + 1, "initializer_range": 0.5}
_SIZES = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 64,
}


def save_clip(folder: Path, seed: int = 0) -> Path:
    """A CLIP of width 12 that reads at most 32 tokens and pictures of 16 by 16 pixels."""
    tokenizer = _tokenizer(["[UNK]", "[START]", "[END]"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[START] $A [END]", special_tokens=[("[START]", 1), ("[END]", 2)]
    )
    sizes = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "projection_dim": 12,
    }
    torch.manual_seed(seed)
    config = CLIPConfig(
        text_config={
            **sizes,
            "vocab_size": tokenizer.get_vocab_size(),
            "max_position_embeddings": 32,
            "bos_token_id": 1,
            "eos_token_id": 2,
        },
        vision_config={**sizes, "image_size": 16, "patch_size": 8},
        projection_dim=12,
        initializer_factor=20.0,
    )
    CLIPModel(config).save_pretrained(folder)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="[UNK]",
        bos_token="[START]",
        eos_token="[END]",
        pad_token="[END]",
    ).save_pretrained(folder)
    processor = CLIPImageProcessorPil(
        size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}, do_convert_rgb=True
    )
    processor.save_pretrained(folder)
    return folder


def _save_decoder(
    folder: Path, config: PreTrainedConfig, kind: type[PreTrainedModel], padding_side: str, seed: int
) -> Path:
    torch.manual_seed(seed)
    kind(config).save_pretrained(folder)
    PreTrainedTokenizerFast(
        tokenizer_object=_tokenizer(["[UNK]"]), unk_token="[UNK]", padding_side=padding_side
    ).save_pretrained(folder)
    return folder


def _tokenizer(special: list[str]) -> Tokenizer:
    tokens = {token: index for index, token in enumerate([*special, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(tokens, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer
