"""Examples become flat arrays, and batches hold every row once within their budget."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sentimill.errors import TextError
from sentimill.text.tokenizer import Encoded
from sentimill_train.data.schema import Example
from sentimill_train.data.tokenized import NO_LABEL, pad_rows, plan_epoch, tokenise
from train_parts import TWO, encoder, rows_of


def example(text: str, **given: object) -> Example:
    """Return a labelled example."""
    values = {"id": text, "label": "positive", "source": "made"} | given
    return Example(text=text, **values)  # type: ignore[arg-type] # each test gives the right kinds


def test_rows_hold_the_ids_that_serving_reads() -> None:
    """Training and serving see one text alike, also a long one that is cut."""
    texts = ["it was lovely", "broken " * 100, "a <br/> b &amp; c"]

    rows = rows_of([example(text) for text in texts])

    for i, encoded in enumerate(encoder().encode(texts)):
        assert isinstance(encoded, Encoded)
        assert rows.ids[rows.starts[i] : rows.starts[i + 1]].tolist() == encoded.ids.tolist()
    assert rows.lengths().max() == 32
    assert rows.ids.dtype == np.int32


def test_gold_and_shares_are_kept_in_label_order() -> None:
    """A row without shares has zeros there."""
    rows = rows_of([example("a", label="negative"), example("b", probs=(0.25, 0.75))])

    assert rows.gold.tolist() == [0, 1]
    assert rows.soft.tolist() == [[0.0, 0.0], [0.25, 0.75]]


def test_a_text_that_cannot_be_read_is_handed_back() -> None:
    """One bad text does not stop a training of many."""
    examples = [example("a"), example(" \x00 "), example("x" * (1 << 21)), example("b")]

    rows, refused = tokenise(examples, encoder(), TWO)

    assert len(rows) == 2
    assert [(r.example, r.error.reason) for r in refused] == [
        (examples[1], "EMPTY_TEXT"),
        (examples[2], "TEXT_TOO_LARGE"),
    ]
    assert all(isinstance(r.error, TextError) for r in refused)


def test_an_unlabelled_example_says_that_it_has_no_label() -> None:
    """It shifts no label after it."""
    rows, _ = tokenise([example("a", label=None), example("b")], encoder(), TWO)

    assert rows.gold.tolist() == [NO_LABEL, 1]


def test_the_digest_changes_with_any_part() -> None:
    """Of two sets of rows that are told apart only by their shares, too."""
    texts = [example("a"), example("b")]
    digests = {
        rows_of(texts).sha256(),
        rows_of(texts[::-1]).sha256(),
        rows_of([texts[0], example("b", label="negative")]).sha256(),
        rows_of([texts[0], example("b", probs=(0.25, 0.75))]).sha256(),
    }

    assert len(digests) == 4
    assert rows_of(texts).sha256() == rows_of(texts).sha256()


def test_nothing_at_all_is_no_row() -> None:
    """An empty split is for others to refuse."""
    rows, refused = tokenise([], encoder(), TWO)

    assert (len(rows), refused, rows.soft.shape) == (0, [], (0, 2))


def test_rows_are_padded_to_the_longest_chosen() -> None:
    """And to no more."""
    rows = rows_of([example("a"), example("it was lovely it was"), example("it was")])

    ids, mask = pad_rows(rows, [2, 0], pad_id=0)

    assert mask.tolist() == [[1, 1, 1, 1], [1, 1, 1, 0]]
    assert ids[1].tolist()[-1] == 0


@given(
    lengths=st.lists(st.integers(1, 300), min_size=1, max_size=200),
    batch_tokens=st.integers(1, 2000),
    batch_rows=st.integers(1, 32),
    seed=st.integers(0, 5),
)
def test_an_epoch_holds_every_row_once_within_the_budget(
    lengths: list[int], batch_tokens: int, batch_rows: int, seed: int
) -> None:
    """Nothing lost, nothing twice, no batch too large but a row that is so alone."""
    sizes = np.array(lengths, dtype=np.int64)
    rng = np.random.default_rng(seed)

    batches = list(plan_epoch(sizes, batch_tokens=batch_tokens, batch_rows=batch_rows, rng=rng))

    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        assert 1 <= len(batch) <= batch_rows
        assert len(batch) == 1 or sizes[batch].max() * len(batch) <= batch_tokens


def test_two_epochs_differ_and_a_seed_repeats_them() -> None:
    """Batches are mixed anew each time, in a way that can be had again."""
    sizes = np.arange(1, 400, dtype=np.int64) % 50 + 1

    def epochs(seed: int) -> list[list[list[int]]]:
        rng = np.random.default_rng(seed)
        return [list(plan_epoch(sizes, batch_tokens=500, batch_rows=8, rng=rng)) for _ in range(2)]

    first, second = epochs(3)
    assert sorted(map(sorted, first)) != sorted(map(sorted, second))
    assert epochs(3) == [first, second]


def test_batches_waste_little_on_padding() -> None:
    """Rows of like length share a batch."""
    sizes = np.random.default_rng(0).integers(5, 256, size=4000)
    rng = np.random.default_rng(1)

    padded = sum(
        int(sizes[batch].max()) * len(batch)
        for batch in plan_epoch(sizes, batch_tokens=4096, batch_rows=32, rng=rng)
    )

    assert padded / sizes.sum() < 1.1
