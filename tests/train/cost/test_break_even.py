"""`sentimill cost`: the arithmetic, the price tables, and what the command prints."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from chromium import open_page
from sentimill.errors import UsageError
from sentimill_train.cli.cost import cost
from sentimill_train.cost.break_even import Large, Plan, sensitivity
from sentimill_train.cost.claims import choose, study
from sentimill_train.cost.prices import load_rates
from sentimill_train.cost.report import count
from sentimill_train.labelling.token_prices import PRICES

BASE = Plan(
    prompt_tokens=100,
    review_tokens=100,
    answer_tokens=10,
    reviews_per_second=100,
    usd_machine_hour=0.36,
    utilisation=0.5,
    label_rows=1000,
    usd_label_in=10,
    usd_label_out=10,
    gold_rows=100,
    usd_gold=1,
    engineering_days=2,
    upkeep_days_a_month=0,
    usd_day=500,
    training_hours=0,
)
LARGE = Large(name="x/large", tier="frontier", usd_in=4, usd_out=20)


def run(*arguments: str) -> str:
    """Run the command and return what it wrote to stdout."""
    app = typer.Typer()
    app.command()(cost)
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_costs_of_one_review_are_those_done_by_hand() -> None:
    """200 tokens at $4 and 10 at $20 a million; $0.36 an hour at 50 reviews a second."""
    assert BASE.large_usd(LARGE) == pytest.approx((200 * 4 + 10 * 20) / 1e6)
    assert BASE.student_usd() == pytest.approx(0.36 / 3600 / 50)
    assert BASE.ratio(LARGE) == pytest.approx(500)


def test_fixed_costs_are_the_sum_of_their_parts() -> None:
    """1,000 labels of 210 tokens at $10 a million, 100 gold labels, two days."""
    assert BASE.fixed_usd() == pytest.approx(1000 * 210 * 10 / 1e6 + 100 + 1000)


@given(
    replicas=st.integers(0, 3),
    rate=st.floats(1, 5000),
    price=st.floats(0.01, 50),
    usd_in=st.floats(0.01, 60),
    days=st.floats(0, 100),
)
def test_both_ways_cost_the_same_at_the_break_even(
    replicas: int, rate: float, price: float, usd_in: float, days: float
) -> None:
    """The volume that is named is the one at which the two totals meet; past it, never dearer."""
    plan = replace(
        BASE,
        replicas=replicas,
        reviews_per_second=rate,
        usd_machine_hour=price,
        engineering_days=days,
    )
    large = replace(LARGE, usd_in=usd_in)
    even = plan.break_even(large)
    if math.isinf(even):
        assert plan.large_usd(large) <= plan.student_usd()
        return
    assert plan.student_total(even) == pytest.approx(even * plan.large_usd(large), rel=1e-6)


def test_a_student_that_is_dearer_each_time_never_pays_back() -> None:
    """A slow student on a dear machine has no break-even, and JSON says null and not Infinity."""
    slow = replace(BASE, reviews_per_second=0.001)
    found = study(slow, [LARGE], 1e6, ())
    assert found.lines[0].break_even is None
    assert found.lines[0].pays_back == "never"


def test_always_on_machines_cost_whether_or_not_reviews_come() -> None:
    """One machine for a year is $3,153.60 at any volume within its capacity."""
    plan = replace(BASE, replicas=1, months=12)
    assert plan.student_total(0) - BASE.student_total(0) == pytest.approx(0.36 * 730 * 12)
    assert plan.student_total(1e6) == plan.student_total(0)
    assert plan.student_total(plan.capacity() * 2) > plan.student_total(0)


def test_the_tornado_has_every_assumption_once_and_its_widest_first() -> None:
    """Halving and doubling covers each number that is not zero, sorted by the swing."""
    swings = sensitivity(BASE, LARGE)
    widths = [swing.width for swing in swings]
    assert widths == sorted(widths, reverse=True)
    assert len({swing.name for swing in swings}) == len(swings)
    assert {"engineering_days", "large model's usd_in", "prompt_tokens"} <= {s.name for s in swings}


def test_every_tier_has_prices_with_a_source() -> None:
    """Frontier, small and hosted 8B each name models that the dated table really holds."""
    rates = load_rates()
    assert {"frontier", "small", "hosted-8b"} <= set(rates.tiers)
    for names in rates.tiers.values():
        assert all(rates.model(name).source for name in names)
    assert set(rates.no_batch_price) <= set(rates.models)
    assert all(machine.source for machine in rates.machines.values())


def test_a_batch_costs_half_where_the_provider_has_one() -> None:
    """Models without a stated batch price appear online only."""
    found = choose(load_rates(), ("anthropic/claude-opus-5-5", "openai/gpt-4"))
    assert [(large.name, large.batch, large.usd_in) for large in found] == [
        ("anthropic/claude-opus-5-5", False, 4.0),
        ("anthropic/claude-opus-5-5", True, 2.0),
        ("openai/gpt-4", False, 30.0),
    ]


def test_the_command_says_where_the_claims_hold_and_where_not() -> None:
    """The text names both claims for every tier, and marks what is assumed."""
    text = run()
    assert "frontier" in text
    assert "hosted-8b" in text
    assert "does not hold" in text
    assert "assumptions" in text


def test_json_holds_all_that_the_text_does() -> None:
    """One strict JSON object with the plan, every line, the tornado and the notes."""
    found = json.loads(run("--json", "--student-rate", "1000", "--engineering-days", "0.5"))
    assert found["plan"]["reviews_per_second"] == 1000
    assert {"model", "ratio", "break_even", "pays_back"} <= set(found["lines"][0])
    assert found["swings"] and found["notes"]


def test_a_price_table_of_ones_own_replaces_ours(tmp_path: Path) -> None:
    """--prices takes the teacher's format, and --model a model in it."""
    table = json.loads(PRICES.read_text())
    row = {"provider": "me", "model": "mine", "in": 1.0, "out": 2.0, "source": "my contract"}
    table["models"] = [row]
    path = tmp_path / "prices.json"
    path.write_text(json.dumps(table))
    found = json.loads(run("--json", "--prices", str(path), "--model", "me/mine"))
    assert {line["model"] for line in found["lines"]} == {"me/mine"}


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--model", "nobody/knows"], "MODEL_UNKNOWN"),
        (["--machine", "abacus"], "UNKNOWN_MACHINE"),
        (["--machine", "h200"], "NO_RATE"),
        (["--prices", "/nowhere.json"], "BAD_PRICES"),
    ],
)
def test_what_cannot_be_looked_up_is_a_usage_error(arguments: list[str], reason: str) -> None:
    """An unknown model, machine or table is named with a remedy; a rate is never guessed."""
    app = typer.Typer()
    app.command()(cost)
    result = CliRunner().invoke(app, arguments)
    assert isinstance(result.exception, UsageError)
    assert result.exception.reason == reason


def test_the_report_has_both_charts_and_opens_in_silence(tmp_path: Path) -> None:
    """A browser has nothing to say about the page, and the page fetches nothing."""
    page = tmp_path / "cost.html"
    run("--report", str(page))
    text = page.read_text()
    assert text.count("<svg") == 2
    assert "does not hold against" in text
    assert re.findall(r'(?:src|href)="(?!#|data:)', text) == []
    _, console = open_page(page, tmp_path / "profile")
    assert console == []


def test_a_hundredth_of_everything_comes_later_than_a_hundredth_of_machine_time() -> None:
    """At the named volume, and not before, the totals are a hundred apart."""
    (line,) = study(BASE, [LARGE], 1e6, ()).lines
    assert line.hundredth
    assert line.hundredth_all is not None
    total = BASE.student_total(line.hundredth_all)
    assert line.hundredth_all * BASE.large_usd(LARGE) == pytest.approx(100 * total)


def test_an_assumption_that_kills_the_break_even_is_shown_as_never() -> None:
    """Doubling what decides it may leave none, and the table still prints."""
    assert "never" in run("--student-rate", "0.06", "--model", "anthropic/claude-opus-5-5")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (12.4, "12"),
        (999.4, "999"),
        (999.7, "1 K"),
        (1_234_000, "1.23 M"),
        (999_400, "999 K"),
        (999_700, "1 M"),
        (1.2e12, "1,200 G"),
        (math.inf, "never"),
    ],
)
def test_numbers_of_reviews_are_rounded_to_three_digits(value: float, shown: str) -> None:
    """In the unit of the rounded number."""
    assert count(value) == shown


def test_a_cost_of_cents_is_not_shown_as_nothing() -> None:
    """Three hours of a small machine cost some cents."""
    assert "training $0.36" in run("--machine-price", "0.12", "--training-hours", "3")
    assert "engineering $3,000 " in run()


def test_every_number_of_the_plan_is_an_option() -> None:
    """Nothing of what the comparison rests on is fixed in the code."""
    found = json.loads(run("--json", "--utilisation", "0.25", "--months", "6"))
    assert found["plan"]["utilisation"] == 0.25
    assert found["plan"]["months"] == 6
    assert set(found["plan"]) == set(Plan.__dataclass_fields__)
