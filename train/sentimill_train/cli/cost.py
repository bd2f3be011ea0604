"""`sentimill cost`: takes the numbers of the plan, and prints the study as text or JSON."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Final

import msgspec
import typer

from sentimill.atomic_write import write_atomically
from sentimill.cli import options as opt
from sentimill.errors import UsageError
from sentimill_train.cost.break_even import Plan
from sentimill_train.cost.claims import Line, Study, choose, study
from sentimill_train.cost.prices import Rates, load_rates
from sentimill_train.cost.report import count, render_cost
from sentimill_train.labelling.token_prices import PRICES
from sentimill_train.optional_packages import check_installed

_POSITIVE: Final = 1e-9
_Large: Final = partial(typer.Option, rich_help_panel="Large model")
_Student: Final = partial(typer.Option, rich_help_panel="Student in use")
_Making: Final = partial(typer.Option, rich_help_panel="Making the student")


def cost(
    *,
    volume: Annotated[
        float, opt.Input(min=1, help="Reviews over all months, for the totals.")
    ] = 1e6,
    review_tokens: Annotated[float, opt.Input(min=1, help="Mean tokens of a review.")] = 110.0,
    months: Annotated[float, opt.Input(min=0.1, help="How long the student serves.")] = 12.0,
    report: Annotated[
        Path | None, opt.Output(dir_okay=False, help="HTML file to write, with charts.")
    ] = None,
    as_json: Annotated[bool, opt.Output("--json", help="Print one JSON object.")] = False,
    model: Annotated[
        list[str] | None,
        _Large(help="provider/model; may be repeated.", show_default="one of each tier"),
    ] = None,
    prices: Annotated[Path, _Large(help="Table of prices.", show_default="ours")] = PRICES,
    prompt_tokens: Annotated[
        float, _Large(min=0, help="Tokens of instruction and examples in a call.")
    ] = 120.0,
    answer_tokens: Annotated[float, _Large(min=1, help="Mean tokens of an answer.")] = 6.0,
    reviews_a_call: Annotated[float, _Large(min=1, help="Reviews in one call.")] = 1.0,
    machine: Annotated[
        str | None, _Student(help="Name of the machine.", show_default="the measured one")
    ] = None,
    machine_price: Annotated[
        float | None,
        _Student(min=_POSITIVE, help="US dollars for a machine hour.", show_default="listed"),
    ] = None,
    student_rate: Annotated[
        float | None, _Student(min=_POSITIVE, help="Reviews a second.", show_default="measured")
    ] = None,
    utilisation: Annotated[
        float, _Student(min=0.001, max=1, help="Share of the rate that a real job reaches.")
    ] = 0.5,
    always_on: Annotated[
        int, _Student(min=0, help="Machines that are always on; 0 means a batch job.")
    ] = 0,
    upkeep_days: Annotated[float, _Student(min=0, help="Days of upkeep a month.")] = 0.25,
    label_rows: Annotated[
        float, _Making(min=0, help="Reviews labelled by the large model, once.")
    ] = 5_000.0,
    gold_rows: Annotated[float, _Making(min=0, help="Reviews labelled by people.")] = 500.0,
    gold_price: Annotated[float, _Making(min=0, help="US dollars for a label by people.")] = 0.10,
    engineering_days: Annotated[float, _Making(min=0, help="Days of work, once.")] = 5.0,
    day_rate: Annotated[float, _Making(min=0, help="US dollars for a day of work.")] = 600.0,
    training_hours: Annotated[float, _Making(min=0, help="Machine hours to train.")] = 3.0,
) -> None:
    """Show what reviews cost by large models and by a student, and when the student pays back."""
    opt.check_outputs([report], [prices])
    rates = load_rates(prices)
    larges = choose(rates, tuple(model or ()))
    rented = rates.machine(machine or rates.measured.machine)
    if machine and student_rate is None and machine != rates.measured.machine:
        why = (
            f"the student was measured on {rates.measured.machine}, not on {machine}:"
            " give its rate there with --student-rate"
        )
        raise UsageError(why, reason="NO_RATE")
    plan = Plan(
        prompt_tokens=prompt_tokens,
        review_tokens=review_tokens,
        answer_tokens=answer_tokens,
        reviews_a_call=reviews_a_call,
        reviews_per_second=student_rate or rates.measured.reviews_per_second,
        usd_machine_hour=machine_price or rented.usd_hour,
        utilisation=utilisation,
        replicas=always_on,
        months=months,
        label_rows=label_rows,
        usd_label_in=larges[0].usd_in,
        usd_label_out=larges[0].usd_out,
        gold_rows=gold_rows,
        usd_gold=gold_price,
        engineering_days=engineering_days,
        upkeep_days_a_month=upkeep_days,
        usd_day=day_rate,
        training_hours=training_hours,
    )
    notes = tuple(_notes(rates, rented.name, given_rate=student_rate is not None))
    found = study(plan, larges, volume, notes)
    if report is not None:
        check_installed("--report", "jinja2", "matplotlib")
        write_atomically(report, render_cost(found).encode())
    if as_json:
        typer.echo(msgspec.json.format(msgspec.json.encode(found), indent=2).decode())
    else:
        typer.echo("\n".join(_lines(found)))


def _notes(rates: Rates, machine: str, *, given_rate: bool) -> Iterator[str]:
    """Yield the sources of the figures, and which of them are assumptions."""
    yield f"model prices read {rates.checked}, machine prices {rates.machines_checked}"
    rented = rates.machine(machine)
    yield f"{machine}: {rented.source}{' (assumed)' if rented.assumed else ''}"
    if not given_rate:
        guess = "ASSUMED, give --student-rate: " if rates.measured.assumed else ""
        yield f"student's rate: {guess}{rates.measured.source}"
    yield "tokens, engineering, upkeep, gold labels and utilisation are assumptions: set your own"
    yield "large models: no cached prompts, no engineering, no upkeep counted"


def _lines(found: Study) -> Iterator[str]:
    yield (
        f"student: ${found.student_usd_million:.3f} a million reviews of machine time,"
        f" ${found.student_all_usd_million:,.2f} with everything at {count(found.volume)}"
    )
    spent = "  ".join(
        f"{name} ${_usd(usd).strip()}" for name, usd in found.fixed_usd.items() if usd
    )
    yield f"fixed:   {spent}"
    yield ""
    yield (
        f"{'large model':<36}{'tier':<11}{'$/million':>10}{'ratio':>9}{'all-in':>8}"
        f"{'break-even':>12}  claims: 100x, 100 K to 1 M"
    )
    yield from map(_row, found.lines)
    yield ""
    yield from found.findings
    yield ""
    yield f"total $ by volume   {''.join(f'{count(v):>10}' for v in found.volumes)}"
    yield f"{'student':<20}{''.join(map(_usd, found.student_totals_usd))}"
    for line in found.lines:
        if not line.batch:
            yield f"{line.model.rpartition('/')[2][:19]:<20}{''.join(map(_usd, line.totals_usd))}"
    yield ""
    yield f"break-even against {found.swings_against}, each assumption halved and doubled:"
    for swing in found.swings:
        pair = f"{count(swing.break_even_low):>10} to {count(swing.break_even_high):<10}"
        yield (
            f"  {swing.name:<26}{swing.low:>10.4g} to {swing.high:<10.4g}{pair}"
            f"{'#' * round(min(24, 8 * (swing.width - 1)))}"
        )
    yield ""
    for note in found.notes:
        yield f"note: {note}"


def _row(line: Line) -> str:
    even = count(line.break_even)
    holds = "holds" if line.hundredth else "does not hold"
    return (
        f"{line.name:<36}{line.tier:<11}{line.usd_million:>10,.2f}{line.ratio:>8,.0f}x"
        f"{line.ratio_all:>7.2g}x{even:>12}  {holds}; {line.pays_back}"
    )


def _usd(value: float) -> str:
    return f"{value:>10,.0f}" if value >= 10 else f"{value:>10.2f}"
