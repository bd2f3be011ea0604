"""Parts for tests of training: a tokenizer of a few words, a checkpoint of kilobytes, reviews."""

from __future__ import annotations

import random
from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import TemplateProcessing
from transformers import BertConfig, BertModel

from sentimill.text.tokenizer import TextEncoder
from sentimill_train.data.examples import write_examples
from sentimill_train.data.schema import Example
from sentimill_train.data.tokenized import Rows, tokenise
from sentimill_train.model.pretrained import Pretrained, find_pretrained
from sentimill_train.model.student import Student, new_student, save_student

# Matrices this small gain nothing from a second thread, and on a busy machine two wait for each
# other.
torch.set_num_threads(1)

TWO = ("negative", "positive")
_WORDS = (
    ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    + ["lovely", "broken", "item", "was", "it"]
    + [chr(c) for c in range(ord("a"), ord("z") + 1)]
    + [f"##{chr(c)}" for c in range(ord("a"), ord("z") + 1)]
)
VOCABULARY = len(_WORDS)


def tokenizer_json() -> bytes:
    """Return a tokenizer.json that spells what it has no word for."""
    words = {word: i for i, word in enumerate(_WORDS)}
    tokenizer = Tokenizer(WordPiece(words, unk_token="[UNK]"))
    tokenizer.normalizer = BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = BertPreTokenizer()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return str(tokenizer.to_str()).encode()


def write_base(folder: Path, *, layers: int = 2) -> Path:
    """Write a BERT checkpoint with random weights to *folder*."""
    torch.manual_seed(7)
    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=256,
    )
    BertModel(config).save_pretrained(folder)
    (folder / "tokenizer.json").write_bytes(tokenizer_json())
    return folder


def base(folder: Path) -> Pretrained:
    """Return the checkpoint of `write_base` as training finds it."""
    return find_pretrained(str(write_base(folder)))


def encoder(max_tokens: int = 32) -> TextEncoder:
    """Return a tokenizer as training and serving use it."""
    return TextEncoder(tokenizer_json(), max_tokens=max_tokens, truncation="head-tail")


def student(folder: Path, *, labels: tuple[str, ...] = TWO, seed: int = 0) -> Student:
    """Return a tiny student that has not been trained."""
    torch.manual_seed(seed)
    return new_student("tiny", base(folder), labels, vocabulary=VOCABULARY)


def loud_student(folder: Path) -> Path:
    """Save a tiny student whose attention and biases matter in *folder*, and return where."""
    made = student(folder / "base")
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, values in made.named_parameters():
            if name.endswith("bias"):
                values.add_(0.1 * torch.randn(values.shape, generator=rng))
            elif "query" in name or "key" in name:
                values.mul_(20)
            elif "value" in name or "dense" in name:
                values.mul_(5)
    save_student(made, folder / "saved")
    return folder / "saved"


def reviews(rows: int, *, seed: int = 0, shares: bool = False) -> list[Example]:
    """Return different reviews that one of two words decides."""
    draw = random.Random(seed)
    made = []
    for i in range(rows):
        label = draw.choice(TWO)
        noise = "".join(draw.choice("abcdefghij") for _ in range(draw.randrange(4, 9)))
        word = "lovely" if label == "positive" else "broken"
        probs = (0.1, 0.9) if label == "positive" else (0.9, 0.1)
        made.append(
            Example(
                id=f"r-{i}",
                text=f"item {noise} was {word}",
                label=label,
                probs=probs if shares else None,
                source="made",
            )
        )
    return made


def write_reviews(path: Path, rows: int = 400) -> Path:
    """Write reviews that one of two words decides."""
    write_examples(path, reviews(rows))
    return path


def rows_of(examples: list[Example], labels: tuple[str, ...] = TWO) -> Rows:
    """Return *examples* as numbers."""
    rows, refused = tokenise(examples, encoder(), labels)
    assert refused == []
    return rows
