"""How a column is found, and what is said where it is not there."""

from __future__ import annotations

import pytest

from sentimill.errors import TableError
from sentimill.scoring.formats.table import find_column


@pytest.mark.parametrize(
    ("columns", "wanted", "message"),
    [
        (
            ["id", " Text "],
            "text",
            "r.csv has no column 'text', but ' Text ': write it so in --option, as ' Text '",
        ),
        (
            ["id", "Text"],
            "text",
            "r.csv has no column 'text', but 'Text': write it so in --option, as Text",
        ),
        (["a.b", "id "], "x", "it has a.b, 'id ': name one with --option"),
        (["Text", "TEXT"], "text", "it has Text, TEXT: name one with --option"),
        (["review"], "review.text", "a field inside of 'review' cannot be named: make it a column"),
    ],
)
def test_a_missing_column_is_told_with_the_option_that_names_it(
    columns: list[str], wanted: str, message: str
) -> None:
    """In another case, or with blanks around it, one column is most likely meant."""
    with pytest.raises(TableError) as caught:
        find_column("r.csv", columns, wanted, "--option")

    assert message in str(caught.value)
    assert caught.value.reason == "MISSING_COLUMN"
