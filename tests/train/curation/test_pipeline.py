"""Curating from end to end."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from sentimill.errors import InputError, TableError
from sentimill_train.cli.curate import curate
from sentimill_train.curation.drops import REASONS
from sentimill_train.curation.label_errors import Embed
from sentimill_train.curation.pipeline import Curated, CurateJob, curate_rows
from sentimill_train.curation.report import write_report
from sentimill_train.data.splits import split_of
from sentimill_train.metrics.classification import Floats

GOOD = ["lovely", "excellent", "perfect", "wonderful", "superb", "great"]
BAD = ["awful", "terrible", "broken", "horrible", "useless", "dreadful"]
THINGS = ["lamp", "kettle", "hotel", "phone", "jacket", "soup", "train", "novel", "chair", "garden"]


def row(n: int, label: str | None = "positive", **changes: Any) -> dict[str, Any]:
    """Return a row whose words fit its label."""
    rng = random.Random(n)
    words = GOOD if label == "positive" else BAD
    said = " and ".join(rng.sample(words, 3))
    text = f"The {rng.choice(THINGS)} that I bought {n} weeks ago was {said} for my house {n * 7}."
    sure = [0.02, 0.03, 0.95] if label == "positive" else [0.95, 0.03, 0.02]
    made = {"id": f"r{n}", "text": text, "label": label, "probs": sure, "domain": "shop"}
    return made | {"split": "train"} | changes


def rows(count: int, first: int = 0) -> list[dict[str, Any]]:
    """Return rows of two labels in turn."""
    return [row(first + n, ("positive", "negative")[n % 2]) for n in range(count)]


def write(path: Path, found: Iterable[dict[str, Any]]) -> str:
    """Write JSON lines."""
    path.write_text("".join(json.dumps(one) + "\n" for one in found), encoding="utf-8")
    return str(path)


HELD_OUT = [
    {"id": "v", "text": "", "split": "validation"},
    {"id": "t", "text": "", "split": "test"},
]


def written(folder: Path) -> list[dict[str, Any]]:
    """Return the rows of the output."""
    lines = (folder / "out.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def run(
    folder: Path, found: list[dict[str, Any]], embed: Embed | None = None, **changes: Any
) -> tuple[Curated, list[str]]:
    """Curate rows, with two held-out ones before them; return what happened and the ids left."""
    source = write(folder / "in.jsonl", [*HELD_OUT, *found])
    result = curate_rows(CurateJob(source=source, out=folder / "out.jsonl", **changes), embed)
    first, second, *ids = [one["id"] for one in written(folder)]
    assert (first, second) == ("v", "t")  # which pass untouched, whatever is asked for
    return result, ids


def test_good_rows_pass_untouched_and_in_order(tmp_path: Path) -> None:
    """Every column of a row is kept; its shares come by name."""
    found = [one | {"rating": 4, "country": "FR"} for one in rows(40)]
    result, ids = run(tmp_path, found)

    assert ids == [one["id"] for one in found]
    assert result.drops == {}
    names = ("negative", "neutral", "positive")
    shares = dict(zip(names, found[3]["probs"], strict=True))
    assert written(tmp_path)[5] == found[3] | {"probs": shares}


def test_only_train_is_filtered(tmp_path: Path) -> None:
    """Validation and test keep repeats, empty texts and rows without a label; train loses leaks."""
    raw = [
        row(1, text="", split="test"),
        row(2, label=None, probs=None, split="validation"),
        row(3, split="test"),
        row(4, text=row(3)["text"], split="test"),
        row(5, text=row(3)["text"].upper(), split="train"),
        row(6, text="", split="train"),
    ]
    result, ids = run(tmp_path, [*raw, *rows(30, 20)])

    assert ids[:4] == ["r1", "r2", "r3", "r4"]
    assert {"r5", "r6"}.isdisjoint(ids)
    assert result.drops == {"unreadable": 1, "leak": 1}
    assert result.passed == 4 + len(HELD_OUT)


def test_rows_that_train_will_hold_out_are_not_filtered(tmp_path: Path) -> None:
    """A file that is all train, as many of the hub are, has its judges taken out by hash."""
    found = [*rows(200), *rows(200)]
    source = write(tmp_path / "in.jsonl", found)

    result = curate_rows(CurateJob(source=source, out=tmp_path / "out.jsonl"))

    kept = [one["text"] for one in written(tmp_path)]
    assert {split_of(text) for text in kept if kept.count(text) == 2} == {"validation", "test"}
    assert {split_of(text) for text in kept if kept.count(text) == 1} == {"train"}
    assert result.drops == {"duplicate": result.kept}


def test_short_reviews_stay(tmp_path: Path) -> None:
    """One word is a review, and so are emoji."""
    short = ["Terrible!", "avoid", "😍😍", "Great"]
    found = [row(n, text=text) for n, text in enumerate(short)]
    _, ids = run(tmp_path, [*found, *rows(10, 20)])

    assert {"r0", "r1", "r2", "r3"} <= set(ids)


def test_both_sides_of_a_contrast_pair_stay(tmp_path: Path) -> None:
    """A near-repeat with another label teaches more than any other row."""
    text = " ".join(f"word{n}" for n in range(30))
    pair = [row(1, text=text), row(2, "negative", text=text.replace("word7", "not"))]
    result, ids = run(tmp_path, [*pair, *rows(10, 20)])

    assert {"r1", "r2"} <= set(ids)
    assert result.drops == {}


def test_repeats_keep_the_first(tmp_path: Path) -> None:
    """Case, blanks and Unicode forms do not make a text another one."""
    text = row(1)["text"]
    result, ids = run(
        tmp_path, [row(1), row(2, text=text.upper()), row(3, text=f" {text} "), *rows(10, 20)]
    )

    assert ids[:1] == ["r1"]
    assert result.drops == {"duplicate": 2}


def test_near_repeats_keep_the_first(tmp_path: Path) -> None:
    """A word changed in twenty."""
    text = " ".join(f"word{n}" for n in range(30))
    result, ids = run(
        tmp_path, [row(1, text=text), row(2, text=text.replace("word7", "other")), *rows(10, 20)]
    )

    assert "r2" not in ids
    assert result.drops == {"near-duplicate": 1}


def test_repeats_with_other_labels_follow_the_majority(tmp_path: Path) -> None:
    """Two against one wins; one against one is reported, and one row of each label stays."""
    won, tied = row(1)["text"], row(2)["text"]
    result, ids = run(
        tmp_path,
        [
            row(1, label="negative", probs=None, text=won),
            row(3, text=won),
            row(4, text=won),
            row(5, text=tied),
            row(6, label="negative", probs=None, text=tied),
            *rows(10, 20),
        ],
    )

    assert ids[:3] == ["r3", "r5", "r6"]
    assert result.drops == {"duplicate": 1, "conflict": 1}
    assert any("1 texts have conflicting labels" in note for note in result.notes)


def test_held_out_texts_leak_neither_exactly_nor_nearly(tmp_path: Path) -> None:
    """Against every file given, whatever its labels and format are."""
    long = " ".join(f"word{n}" for n in range(40))
    one = write(tmp_path / "test.jsonl", [{"text": row(1)["text"].upper()}])
    two = tmp_path / "dev.csv"
    two.write_text(f"text,stars\n{long},4\n", encoding="utf-8")
    found = [row(1), row(2, text=long.replace("word5 ", "x ")), *rows(10, 20)]
    result, ids = run(tmp_path, found, holdout=(one, str(two)))

    assert {"r1", "r2"}.isdisjoint(ids)
    assert result.drops == {"leak": 1, "near-leak": 1}
    assert result.rows == 12


def bag_of_words(texts: Sequence[str]) -> Floats:
    """Return embeddings that a classifier can read: which of the words are there."""
    return np.array([[float(word in text) for word in (*GOOD, *BAD)] for text in texts])


def test_wrong_labels_of_people_are_reported(tmp_path: Path) -> None:
    """Ten of three hundred labels are turned round: some are listed, and dropped on request.

    Not all of them: a label is listed where another is likelier than usual for the rows of that
    other label, which spares hard but right rows.
    """
    found = [one | {"probs": None} for one in rows(300)]
    turned = {f"r{n}" for n in range(5, 300, 30)}
    for one in found:
        if one["id"] in turned:
            one["label"] = {"positive": "negative", "negative": "positive"}[one["label"]]
    reported, all_ids = run(tmp_path, found, embed=bag_of_words)
    dropped, ids = run(tmp_path, found, embed=bag_of_words, drop_label_errors=True)

    assert reported.drops == {} and len(all_ids) == 300
    assert {one.id for one in reported.suspects} <= turned
    assert len(reported.suspects) == reported.label_errors >= 2
    assert all(one.suggested != one.label and one.likely > 0.5 for one in reported.suspects)
    assert dropped.drops == {"label-error": reported.label_errors}
    assert set(all_ids) - set(ids) == {one.id for one in reported.suspects}


def test_labels_of_a_model_are_not_judged(tmp_path: Path) -> None:
    """A student learns from its shares, which tell the doubt already."""
    found = rows(300)
    for n in range(5, 300, 30):
        found[n]["label"] = {"positive": "negative", "negative": "positive"}[found[n]["label"]]

    def none(texts: Sequence[str]) -> Floats:
        raise AssertionError("no text has to be embedded")

    result, _ = run(tmp_path, found, embed=none)

    assert result.label_errors == 0


def test_classes_and_domains_are_capped_on_request_alone(tmp_path: Path) -> None:
    """By chance, so that no kind of row is preferred."""
    found = [row(n, domain="shop" if n % 10 else "inn") for n in range(100)]
    found += [row(200 + n, "negative", domain="inn") for n in range(20)]
    plain, _ = run(tmp_path, found)
    capped, _ = run(tmp_path, found, class_ratio=2.0)
    split, _ = run(tmp_path, found, domain_share=0.6)

    assert plain.drops == {}
    assert capped.classes["positive"] == (100, 40)
    assert split.domains["shop"][1] <= 0.6 * split.kept
    assert set(capped.drops) | set(split.drops) == {"class-cap", "domain-cap"}


def test_keep_is_a_random_sample_of_exact_size(tmp_path: Path) -> None:
    """Of train alone; another seed draws other rows."""
    found = [*rows(200), row(900, split="test")]
    result, ids = run(tmp_path, found, keep=50)
    _, others = run(tmp_path, found, keep=50, seed=1)

    assert len(ids) == result.kept + 1 == 51
    assert result.drops == {"not-chosen": 150}
    assert 10 <= result.classes["positive"][1] <= 40
    assert set(ids) != set(others)


def test_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    """Rows and report alike."""
    source = write(tmp_path / "in.jsonl", [*rows(200), *rows(20)])
    written = []
    for name in ("a", "b"):
        job = CurateJob(source=source, out=tmp_path / f"{name}.jsonl", keep=90)
        found = curate_rows(job)
        write_report(tmp_path / f"{name}.html", replace(job, out=tmp_path), found)
        written.append(
            ((tmp_path / f"{name}.jsonl").read_bytes(), (tmp_path / f"{name}.html").read_bytes())
        )

    assert written[0] == written[1]


def test_rows_are_accounted_for(tmp_path: Path) -> None:
    """Kept and dropped are all there were, and no scratch file stays."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    found = [*rows(120), *rows(30), row(999) | {"label": None, "probs": None}]
    result, ids = run(tmp_path, found, keep=121, scratch=scratch)

    assert len(ids) + sum(result.drops.values()) == result.rows == 151
    assert any("1 rows of train have no label" in note for note in result.notes)
    assert list(scratch.iterdir()) == []


def test_nothing_left_writes_nothing(tmp_path: Path) -> None:
    """The message says what went."""
    with pytest.raises(InputError, match="unreadable"):
        run(tmp_path, [row(1, text=" "), row(2, text="")])
    with pytest.raises(InputError, match=r"no row of .* is for train: give more rows, or a column"):
        run(tmp_path, [row(1, split="test"), row(2, split="validation")])

    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "row 2"),
        ('{"text": 3}', "row 2"),
        ('{"text": "x", "label": "angry"}', "angry"),
        ('{"text": "x", "probs": [0.5, 0.5]}', "probs must be 3 numbers"),
        ('{"text": "x", "probs": [97, 2, 1]}', "sum to 1"),
    ],
)
def test_bad_line_is_named(tmp_path: Path, line: str, said: str) -> None:
    """File, row and remedy."""
    path = tmp_path / "in.jsonl"
    path.write_text(json.dumps(row(1)) + "\n" + line + "\n", encoding="utf-8")

    with pytest.raises(TableError, match=re.escape(said)):
        curate_rows(CurateJob(source=str(path), out=tmp_path / "out.jsonl"))


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found[tag] += 1
        self.addresses += [v or "" for k, v in attrs if k in ("src", "href", "xlink:href")]


def test_report_is_one_safe_file(tmp_path: Path) -> None:
    """Reviews are escaped, charts are inside, nothing is fetched, every reason has its examples."""
    evil = '<script>alert(1)</script><img src="http://x.example/a.png">'
    found = [*rows(80), *rows(15), row(201), row(202, text=f"{evil}", domain="<b>$x$")]
    found += [{**found[-1], "id": "<i>again"}]
    source = write(tmp_path / "in.jsonl", [*HELD_OUT, *found])
    app = typer.Typer()
    app.command()(curate)
    args = [source, str(tmp_path / "out.jsonl"), "--report", str(tmp_path / "report.html")]
    args += ["--no-label-errors"]
    result = CliRunner().invoke(app, args)
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    tags = _Tags()
    tags.feed(html)

    assert result.exit_code == 0, result.exception
    assert tags.found["svg"] == 2
    assert tags.found["script"] == tags.found["img"] == 0
    assert all(address.startswith(("#", "data:,")) for address in tags.addresses)
    assert "duplicate: 10 of 16" in html
    assert "&lt;script&gt;" in html
    assert json.loads((tmp_path / "report.json").read_text())["drops"]["duplicate"] == 16


def test_every_reason_is_explained() -> None:
    """In words that a reader of the report understands."""
    assert all(len(meaning) > 10 for meaning in REASONS.values())
