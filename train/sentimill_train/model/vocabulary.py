"""Trims the vocabulary of an encoder, half the weights of a small one, to the pieces reviews use.

A word whose piece is removed is split into smaller pieces that stay, down to single characters.
ASCII characters always stay; a character of another alphabet becomes unknown if no review has it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from safetensors.numpy import load_file, save

from sentimill.atomic_write import new_folder, write_durably
from sentimill.bundle.manifest import MANIFEST
from sentimill.bundle.reader import WEIGHTS
from sentimill.errors import TextError, UsageError
from sentimill.text.tokenizer import TextEncoder
from sentimill_train.model.pretrained import Pretrained

_WORDS: Final = "word_embeddings.weight"  # in every family with a WordPiece tokenizer
_ASCII: Final = frozenset(map(chr, range(33, 127)))
_LONGEST: Final = 512  # tokens of a review that are counted
_CHUNK: Final = 1024


def count_pieces(tokenizer_json: bytes, texts: Sequence[str]) -> Counter[int]:
    """Return how often each piece (by its id) occurs in *texts*, as the model reads them."""
    encoder = TextEncoder(tokenizer_json, max_tokens=_LONGEST, truncation="head-tail")
    counts: Counter[int] = Counter()
    for start in range(0, len(texts), _CHUNK):
        for encoded in encoder.encode(texts[start : start + _CHUNK]):
            if not isinstance(encoded, TextError):
                counts.update(encoded.ids.tolist())
    return counts


def keep_pieces(
    tokenizer_json: bytes, counts: Counter[int], pieces: int, *, required: Iterable[int] = ()
) -> list[int]:
    """Return the ids of at most *pieces* to keep, ascending: special ones, ASCII, most used.

    required: ids that must stay, in addition to the special ones of the tokenizer.

    Raises:
        UsageError: NOT_WORD_PIECES for a tokenizer of another kind, VOCABULARY_TOO_SMALL if
            *pieces* is less than the number that must stay.
    """
    spec = _spec(tokenizer_json)
    vocabulary: dict[str, int] = spec["model"]["vocab"]
    prefix = spec["model"]["continuing_subword_prefix"]
    always = {*required, vocabulary[spec["model"]["unk_token"]]}
    always |= {token["id"] for token in spec["added_tokens"]}
    always |= {i for token in _put_in(spec) for i in token["ids"]}
    always |= {i for piece, i in vocabulary.items() if piece.removeprefix(prefix) in _ASCII}
    if pieces < len(always):
        raise UsageError(
            f"--keep {pieces} is less than the {len(always)} special tokens and ASCII characters"
            " that always stay: raise it",
            reason="VOCABULARY_TOO_SMALL",
        )
    most_used = [i for i, _ in sorted(counts.items(), key=lambda found: (-found[1], found[0]))]
    used = [i for i in most_used if i not in always]
    return sorted([*always, *used[: pieces - len(always)]])


def trim_tokenizer(tokenizer_json: bytes, kept: Sequence[int]) -> bytes:
    """Return the tokenizer with only the pieces *kept*, renumbered in the same order."""
    spec = _spec(tokenizer_json)
    number = {old: new for new, old in enumerate(kept)}
    vocabulary: dict[str, int] = spec["model"]["vocab"]
    spec["model"]["vocab"] = {
        piece: number[i]
        for piece, i in sorted(vocabulary.items(), key=itemgetter(1))
        if i in number
    }
    for token in spec["added_tokens"]:
        token["id"] = number[token["id"]]
    for token in _put_in(spec):
        token["ids"] = [number[i] for i in token["ids"]]
    return json.dumps(spec, ensure_ascii=False).encode()


def trim_encoder(
    base: Pretrained, out: Path, texts: Iterable[str], pieces: int
) -> tuple[int, float]:
    """Write *base* to the new folder *out* with the *pieces* that *texts* use most.

    A manifest.json there records *base*, and what it was trained on.

    Returns the number of pieces kept, and how large a share of the pieces in *texts* they cover.

    Raises:
        UsageError: as `keep_pieces`; NOT_WORD_PIECES if the word vectors of *base* are not found.
    """
    tokenizer = base.tokenizer_json()
    counts = count_pieces(tokenizer, list(texts))
    config = json.loads((base.folder / "config.json").read_text(encoding="utf-8"))
    numbered = {key: i for key, i in config.items() if key.endswith("_token_id") and i is not None}
    kept = keep_pieces(tokenizer, counts, pieces, required=numbered.values())
    weights = load_file(base.folder / WEIGHTS)
    tables = [name for name in weights if name.endswith(_WORDS)]
    if not tables:
        raise UsageError(
            f"{base.name} has no weights named {_WORDS}: train with the whole vocabulary",
            reason="NOT_WORD_PIECES",
        )
    for name in tables:
        weights[name] = np.ascontiguousarray(weights[name][kept])
    number = {old: new for new, old in enumerate(kept)}
    config |= {key: number[i] for key, i in numbered.items()}
    config["vocab_size"] = len(kept)
    # As in a bundle, so that trainings from this encoder still know the sources of its base.
    made_of = {"base": base.as_base()}
    with new_folder(out) as work:
        write_durably(work / WEIGHTS, save(weights, metadata={"format": "pt"}))
        write_durably(work / "config.json", json.dumps(config, indent=2).encode() + b"\n")
        write_durably(work / "tokenizer.json", trim_tokenizer(tokenizer, kept))
        text = msgspec.json.format(msgspec.json.encode(made_of), indent=2)
        write_durably(work / MANIFEST, text + b"\n")
    return len(kept), sum(counts[i] for i in kept) / max(1, counts.total())


def _spec(tokenizer_json: bytes) -> dict[str, Any]:
    spec: dict[str, Any] = json.loads(tokenizer_json)
    if spec["model"]["type"] != "WordPiece":
        raise UsageError(
            f"the tokenizer is {spec['model']['type']}, but only WordPiece can be trimmed: train"
            " with the whole vocabulary",
            reason="NOT_WORD_PIECES",
        )
    return spec


def _put_in(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the special tokens that are added to a text, each with its `ids`."""
    return list((spec["post_processor"] or {}).get("special_tokens", {}).values())
