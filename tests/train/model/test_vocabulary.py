"""A trimmed encoder spells with fewer pieces, and says the same of what it spells as before."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from safetensors.numpy import load_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from typer.testing import CliRunner, Result

from sentimill.bundle.manifest import Base, Source
from sentimill.errors import UsageError
from sentimill.text.tokenizer import TextEncoder
from sentimill_train.cli.trim import trim
from sentimill_train.data.schema import Example
from sentimill_train.data.tokenized import tokenise
from sentimill_train.model.pretrained import find_pretrained
from sentimill_train.model.student import load_student, new_student, predict, save_student
from sentimill_train.model.vocabulary import count_pieces, keep_pieces, trim_encoder, trim_tokenizer
from train_parts import TWO, VOCABULARY, encoder, tokenizer_json, write_base, write_reviews

TEXTS = ["item was lovely", "item was lovely", "item was broken"]


app = typer.Typer()
app.command()(trim)


def run_trim(*args: object) -> Result:
    """Run `sentimill trim` on *args*."""
    return CliRunner().invoke(app, [str(arg) for arg in args])


def pieces(data: bytes, text: str) -> list[str]:
    """Return how a tokenizer spells *text*."""
    tokens: list[str] = Tokenizer.from_buffer(data).encode(text).tokens
    return tokens


def fewest() -> int:
    """Return how many pieces always stay: four special ones, and the letters, bare and joined."""
    return 4 + 2 * 26


def test_the_most_used_pieces_stay() -> None:
    """`item`, `was` and `lovely` are read more often than `broken` and `it`."""
    data = tokenizer_json()
    kept = keep_pieces(data, count_pieces(data, TEXTS), fewest() + 3, required=[0])

    trimmed = trim_tokenizer(data, kept)

    assert pieces(trimmed, "item was lovely") == ["[CLS]", "item", "was", "lovely", "[SEP]"]
    assert pieces(trimmed, "it")[1:-1] == ["i", "##t"]
    assert len(kept) == fewest() + 3


def test_what_is_cut_is_spelt_with_what_is_left() -> None:
    """With nothing but letters every word can still be read."""
    data = tokenizer_json()
    trimmed = trim_tokenizer(data, keep_pieces(data, Counter(), fewest(), required=[0]))

    assert "".join(p.removeprefix("##") for p in pieces(trimmed, "broken")[1:-1]) == "broken"


def test_pieces_are_numbered_in_their_old_order_without_gaps() -> None:
    """So that row i of the trimmed word vectors is the i-th piece that was kept."""
    data = tokenizer_json()
    kept = keep_pieces(data, count_pieces(data, TEXTS), fewest() + 2, required=[0])
    before, after = Tokenizer.from_buffer(data), Tokenizer.from_buffer(trim_tokenizer(data, kept))

    assert [before.id_to_token(i) for i in kept] == [
        after.id_to_token(i) for i in range(after.get_vocab_size())
    ]


def test_a_text_of_kept_pieces_gets_the_same_logits(tmp_path: Path) -> None:
    """The head is kept too, for the base is a student that was trained."""
    torch.manual_seed(1)
    whole = write_base(tmp_path / "base")
    save_student(
        new_student("minilm-l6", find_pretrained(str(whole)), TWO, vocabulary=VOCABULARY), whole
    )
    count, share = trim_encoder(
        find_pretrained(str(whole)), tmp_path / "small", TEXTS, fewest() + 4
    )

    small = new_student(
        "minilm-l6", find_pretrained(str(tmp_path / "small")), TWO, vocabulary=count
    )

    examples = [Example(id="1", text=TEXTS[0], label="positive", source="made")]
    before, _ = tokenise(examples, encoder(), TWO)
    shorter = TextEncoder(
        (tmp_path / "small" / "tokenizer.json").read_bytes(),
        max_tokens=32,
        truncation="head-tail",
    )
    after, _ = tokenise(examples, shorter, TWO)
    assert before.ids.tolist() != after.ids.tolist()
    assert np.array_equal(predict(load_student(whole), before), predict(small, after))
    assert share == 1.0


def test_a_trimmed_encoder_is_smaller_and_its_padding_is_where_its_config_says(
    tmp_path: Path,
) -> None:
    """Only word vectors go; every other weight is the same."""
    base = find_pretrained(str(write_base(tmp_path / "base")))
    trim_encoder(base, tmp_path / "small", TEXTS, fewest())

    before = load_file(base.folder / "model.safetensors")
    after = load_file(tmp_path / "small" / "model.safetensors")
    config = json.loads((tmp_path / "small" / "config.json").read_text())
    assert {name for name in before if before[name].shape != after[name].shape} == {
        "embeddings.word_embeddings.weight"
    }
    assert config["vocab_size"] == fewest() == len(after["embeddings.word_embeddings.weight"])
    assert config["pad_token_id"] == 0


def test_what_the_base_learnt_is_known_of_what_is_trimmed(tmp_path: Path) -> None:
    """Its files with their rows, its own base with the revision, through two trims."""
    whole = write_base(tmp_path / "whole")
    learnt = [{"name": "r.csv", "sha256": "b", "rows": 3}]
    before = {"name": "owner/encoder", "sha256": "c", "revision": "abc"}
    (whole / "manifest.json").write_text(json.dumps({"sources": learnt, "base": before}))
    base = find_pretrained(str(whole))

    trim_encoder(base, tmp_path / "once", TEXTS, fewest() + 4)
    once = find_pretrained(str(tmp_path / "once"))
    trim_encoder(once, tmp_path / "twice", TEXTS, fewest() + 2)
    twice = find_pretrained(str(tmp_path / "twice"))

    assert once.sources == twice.sources == (Source(name="r.csv", sha256="b", rows=3),)
    line = []
    made_of: Base | None = twice.as_base()
    while made_of is not None:
        line.append((made_of.name, made_of.sha256, made_of.revision))
        made_of = made_of.base
    assert line == [
        ("twice", twice.sha256, None),
        ("once", once.sha256, None),
        ("whole", base.sha256, None),
        ("owner/encoder", "c", "abc"),
    ]


def test_fewer_pieces_than_always_stay_are_refused() -> None:
    """With the number below which it cannot go."""
    with pytest.raises(UsageError, match=str(fewest())):
        keep_pieces(tokenizer_json(), Counter(), fewest() - 1, required=[0])


def test_other_tokenizers_are_refused() -> None:
    """A byte-pair vocabulary is a chain of merges, from which no link can go."""
    other = Tokenizer(WordLevel({"[UNK]": 0}, unk_token="[UNK]")).to_str().encode()

    with pytest.raises(UsageError, match="WordLevel") as caught:
        keep_pieces(other, Counter(), 10)

    assert caught.value.reason == "NOT_WORD_PIECES"


def test_the_command_writes_a_base_and_says_what_to_do_with_it(
    tmp_path: Path,
) -> None:
    """Plain files, that `train --base` reads."""
    base = write_base(tmp_path / "base")
    reviews = write_reviews(tmp_path / "r.jsonl", 40)

    done = run_trim(base, tmp_path / "small", "--on", reviews, "--keep", fewest() + 3)

    assert done.exit_code == 0, done.output
    said = done.stderr
    assert f"{fewest() + 3} word pieces" in said
    assert f"--base {tmp_path / 'small'}" in said
    assert find_pretrained(str(tmp_path / "small")).folder == tmp_path / "small"


def test_the_command_overwrites_nothing(tmp_path: Path) -> None:
    """A folder that is there is left as it is."""
    error = run_trim("base", tmp_path, "--on", "reviews.csv", "--keep", 100).exception

    assert isinstance(error, UsageError)
    assert "exists" in str(error)
