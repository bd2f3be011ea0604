"""The model card says what a reader must know before using a model."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from sentimill.bundle.manifest import Base, Manifest, Precision, Source
from sentimill_train.packaging.model_card import model_card

MANIFEST = Manifest(
    schema_version=1,
    name="mine",
    version="1",
    created="2026-11-30T00:00:00+00:00",
    labels=("negative", "neutral", "positive"),
    max_tokens=256,
    truncation="head-tail",
    pad_id=0,
    base=Base(name="owner/encoder", sha256="a" * 64, revision="abc123"),
    precisions={
        "fp32": Precision(
            file="onnx/fp32.onnx", temperature=1.25, max_logit_difference=0.0, parity_rows=1
        )
    },
    golden=(),
    files={},
    sources=(Source(name="reviews.csv", sha256="b" * 64, rows=40),),
    training={"preset": "minilm-l6", "seed": 7, "epochs": 3},
)


def card(notes: str = "", **changes: object) -> str:
    """Return the card of MANIFEST with *changes*."""
    return model_card(replace(MANIFEST, **changes), "## Figures\n\nsome\n", notes)


@pytest.mark.parametrize(
    "says",
    [
        "# mine",
        "negative, neutral or positive",
        "## Intended use",
        "owner/encoder at revision abc123",
        "a" * 64,
        "256 tokens is cut (head-tail)",
        "temperature 1.2500",
        "| seed | 7 |",
        f"| reviews.csv | 40 | `{'b' * 64}` |",
        "## Figures\n\nsome",
        "## Limits",
    ],
)
def test_the_card_says(says: str) -> None:
    """What it is for, where it came from, how good it is and where it is weak."""
    assert says in card()


def test_a_name_cannot_break_a_table() -> None:
    """A bar or a line break in the name of a file or label stays inside its cell."""
    odd = Source(name="a|b\nc.csv", sha256="b" * 64, rows=1)

    assert "| a\\|b c.csv | 1 |" in card(sources=(odd,))


def test_the_tiny_preset_does_not_claim_the_weights_of_its_base() -> None:
    """It only has the tokenizer."""
    assert "two random layers, with the tokenizer" in card(training={"preset": "tiny"})


def test_the_card_says_what_was_kept_of_the_base_and_what_is_read_of_a_text() -> None:
    """Three layers are not its encoder, and what is cut off depends on the truncation."""
    fewer = card(training={"preset": "minilm-l3"}, truncation="head")

    assert "the encoder of the base with three of its layers, the mean" in fewer
    assert "The end of a long text is not read." in fewer
    assert "The middle of a long text is not read." in card()


def test_the_card_names_all_that_came_before() -> None:
    """The base of the base too, and what they had learnt from."""
    encoder = Base(name="owner/encoder", sha256="c" * 64, revision="abc123")
    whole = Base(name="whole", sha256="d" * 64, base=encoder)
    learnt = (Source(name="before.csv", sha256="e" * 64, rows=9),)
    trimmed = Base(name="trimmed", sha256="a" * 64, sources=learnt, base=whole)

    said = card(base=trimmed)

    line = said[said.index("The base is") : said.index("A text longer")]
    places = [line.index(name) for name in ("trimmed", "whole", "owner/encoder at revision abc123")]
    assert places == sorted(places)
    assert all(letter * 64 in line for letter in "acd")
    assert f"| before.csv | 9 | `{'e' * 64}` |" in said


def test_a_local_base_has_no_revision() -> None:
    """Nor is one made up."""
    local = card(base=Base(name="folder", sha256="a" * 64))

    assert "The base is folder," in local
    assert "None" not in local


def test_notes_of_the_one_who_trained_it_come_with_the_data() -> None:
    """Such as the terms of the reviews; without any there is no empty place for them."""
    noted = card(notes="### Terms\n\nResearch use.\n")

    assert "`\n\n### Terms\n\nResearch use.\n\n## Figures" in noted.replace(" |", "")
    assert "\n\n\n" not in card()
