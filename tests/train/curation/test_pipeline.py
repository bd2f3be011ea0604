"""Curating from end to end."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from sentimill.errors import InputError, TableError
from sentimill_train.cli.curate import curate
from sentimill_train.curation.drop_reasons import REASONS
from sentimill_train.curation.pipeline import Curated, CurateJob, curate_rows
from sentimill_train.curation.report import write_report

GOOD = ["lovely", "excellent", "perfect", "wonderful", "superb", "great"]
BAD = ["awful", "terrible", "broken", "horrible", "useless", "dreadful"]
THINGS = ["lamp", "kettle", "hotel", "phone", "jacket", "soup", "train", "novel", "chair", "garden"]


def row(n: int, label: str = "positive", **changes: Any) -> dict[str, Any]:
    """Return a row whose words fit its label."""
    rng = random.Random(n)
    words = GOOD if label == "positive" else BAD
    said = " and ".join(rng.sample(words, 3))
    text = f"The {rng.choice(THINGS)} that I bought {n} weeks ago was {said} for my house {n * 7}."
    sure = [0.02, 0.03, 0.95] if label == "positive" else [0.95, 0.03, 0.02]
    return {"id": f"r{n}", "text": text, "label": label, "probs": sure, "domain": "shop"} | changes


def rows(count: int, first: int = 0) -> list[dict[str, Any]]:
    """Return rows of two labels in turn."""
    return [row(first + n, ("positive", "negative")[n % 2]) for n in range(count)]


def write(path: Path, found: Iterable[dict[str, Any]]) -> str:
    """Write JSON lines."""
    path.write_text("".join(json.dumps(one) + "\n" for one in found), encoding="utf-8")
    return str(path)


def run(folder: Path, found: list[dict[str, Any]], **changes: Any) -> tuple[Curated, list[str]]:
    """Curate rows and return what happened and the ids that are left."""
    source = write(folder / "in.jsonl", found)
    job = CurateJob(source=source, out=folder / "out.jsonl", **changes)
    result = curate_rows(job)
    lines = (folder / "out.jsonl").read_text(encoding="utf-8").splitlines()
    return result, [json.loads(line)["id"] for line in lines]


def test_good_rows_pass_untouched_and_in_order(tmp_path: Path) -> None:
    """Nothing is rewritten on the way."""
    found = rows(40)
    result, ids = run(tmp_path, found)

    assert ids == [one["id"] for one in found]
    assert result.drops == {}
    assert json.loads((tmp_path / "out.jsonl").read_text().splitlines()[3]) == found[3]


GERMAN = "Der Wasserkocher war leider schon nach zwei Tagen kaputt und stinkt."


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ({"label": None, "probs": None}, "unlabelled"),
        ({"text": " ... "}, "empty"),
        ({"text": GERMAN}, "foreign"),
        ({"probs": [0.33, 0.33, 0.34]}, "unsure"),
        ({"disagreement": 0.9}, "disagreement"),
    ],
)
def test_bad_row_is_dropped_for_its_reason(
    tmp_path: Path, bad: dict[str, Any], reason: str
) -> None:
    """One reason a row, with an example of it."""
    result, ids = run(tmp_path, [*rows(20), row(99, **bad)])

    assert "r99" not in ids
    assert result.drops == {reason: 1}
    assert [one.id for one in result.examples[reason]] == ["r99"]  # type: ignore[index] # a Reason


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
    """Two against one wins; one against one helps nobody, so both go."""
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

    assert ids[0] == "r3"
    assert result.drops == {"duplicate": 2, "conflict": 2}


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


def test_wrong_labels_are_found(tmp_path: Path) -> None:
    """Ten of three hundred labels turned round: some of them go, and nothing else does.

    Not all of them: both rules of confident learning must agree, which spares hard but right rows.
    """
    found = rows(300)
    turned = {f"r{n}" for n in range(5, 300, 30)}
    for one in found:
        if one["id"] in turned:
            one["label"] = {"positive": "negative", "negative": "positive"}[one["label"]]
            one["probs"] = one["probs"][::-1]
    result, ids = run(tmp_path, found)
    dropped = {one["id"] for one in found} - set(ids)

    assert set(result.drops) == {"wrong-label"}
    assert len(dropped) >= 2
    assert dropped <= turned


def test_doubt_that_shares_tell_is_not_a_wrong_label(tmp_path: Path) -> None:
    """A student learns from shares; only labels that pretend to be sure are dropped."""
    found = rows(300)
    for n in range(5, 300, 30):
        found[n]["label"] = {"positive": "negative", "negative": "positive"}[found[n]["label"]]
        found[n]["probs"] = [0.5, 0.1, 0.4] if found[n]["label"] == "negative" else [0.4, 0.1, 0.5]
    result, _ = run(tmp_path, found)

    assert "wrong-label" not in result.drops


def test_classes_and_domains_are_capped(tmp_path: Path) -> None:
    """The surest rows stay."""
    found = [row(n, domain="shop" if n % 10 else "inn") for n in range(100)]
    found += [row(200 + n, "negative", domain="inn") for n in range(20)]
    for n in range(50):
        found[n]["probs"] = [0.2, 0.1, 0.7]
    capped, ids = run(tmp_path, found, class_ratio=2.0, domain_share=None, max_noise=None)
    split, _ = run(tmp_path, found, class_ratio=None, domain_share=0.6, max_noise=None)

    assert capped.classes["positive"] == (100, 40)
    assert not {f"r{n}" for n in range(50)} & set(ids)
    assert split.domains["shop"][1] <= 0.6 * split.kept
    assert set(capped.drops) | set(split.drops) == {"class-cap", "domain-cap"}


def test_keep_is_exact_and_balanced(tmp_path: Path) -> None:
    """As many as asked for, evenly from the classes."""
    result, ids = run(tmp_path, rows(200), keep=50)

    assert len(ids) == result.kept == 50
    assert result.classes["positive"][1] == result.classes["negative"][1] == 25
    assert result.drops["not-chosen"] + result.drops.get("wrong-label", 0) == 150


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
    result, ids = run(tmp_path, found, keep=70, scratch=scratch)

    assert len(ids) + sum(result.drops.values()) == result.rows == 151
    assert list(scratch.iterdir()) == []


def test_nothing_left_writes_nothing(tmp_path: Path) -> None:
    """The message says what went."""
    with pytest.raises(InputError, match="empty"):
        run(tmp_path, [row(1, text="a"), row(2, text="b")])

    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "row 2"),
        ('{"text": 3}', "row 2"),
        ('{"text": "x", "label": "angry"}', "angry"),
        ('{"text": "x", "probs": [0.5, 0.5]}', "2 probs for 3 labels"),
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
    source = write(tmp_path / "in.jsonl", found)
    app = typer.Typer()
    app.command()(curate)
    args = [source, str(tmp_path / "out.jsonl"), "--report", str(tmp_path / "report.html")]
    result = CliRunner().invoke(app, args)
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    tags = _Tags()
    tags.feed(html)

    assert result.exit_code == 0, result.exception
    assert tags.found["svg"] == 3
    assert tags.found["script"] == tags.found["img"] == tags.found["link"] == 0
    assert all(address.startswith("#") for address in tags.addresses)
    assert "duplicate: 10 of 16" in html
    assert "&lt;script&gt;" in html
    assert json.loads((tmp_path / "report.json").read_text())["drops"]["duplicate"] == 16


def test_every_reason_is_explained() -> None:
    """In words that a reader of the report understands."""
    assert all(len(meaning) > 10 for meaning in REASONS.values())
