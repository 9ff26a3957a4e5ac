"""Random models of a few thousand weights, saved as Hugging Face folders."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel, GPT2Config, GPT2Model, PreTrainedTokenizerFast

TEXT = (
    "a b c d e red blue green shoe phone lamp electronics smartphone samsung apple purchased added to cart "
    "viewed no purchases or views yet returned : ; , ."
)
WORDS = TEXT.split()


def save_bert(folder: Path, seed: int = 0) -> Path:
    """A BERT of width 16 that reads at most 64 tokens."""
    tokenizer = _tokenizer(["[PAD]", "[UNK]", "[CLS]", "[SEP]"])
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
    )
    BertModel(config).save_pretrained(folder)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
    ).save_pretrained(folder)
    return folder


def save_gpt2(folder: Path, padding_side: str = "right", seed: int = 0) -> Path:
    """A GPT-2 of width 16 without a padding token."""
    tokenizer = _tokenizer(["[UNK]"])
    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=tokenizer.get_vocab_size(),
        n_embd=16,
        n_layer=2,
        n_head=2,
        n_positions=64,
        initializer_range=0.5,
    )
    GPT2Model(config).save_pretrained(folder)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="[UNK]", padding_side=padding_side
    ).save_pretrained(folder)
    return folder


def _tokenizer(special: list[str]) -> Tokenizer:
    tokens = {token: index for index, token in enumerate([*special, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(tokens, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer
