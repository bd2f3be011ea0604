"""Tables for the README and the report, as rows of text computed from a run's JSON alone."""

from __future__ import annotations

from benchmarks.proof.race import ratio_of
from benchmarks.proof.record import BY_LENGTH, Proof, Ratio, Speed
from benchmarks.record import between
from sentimill_train.cost.claims import Study
from sentimill_train.cost.report import count
from sentimill_train.metrics.intervals import Figure
from sentimill_train.reporting.markdown import markdown_table

Table = tuple[tuple[str, ...], list[tuple[str, ...]]]
"""Heads, and rows of as many cells."""


def ratio_table(proof: Proof) -> Table:
    """Return the ratios of student and large model. A ratio that does not repeat is an interval."""
    heads = ("large model", "how it is known", "student is faster by")
    return heads, [(row.large, row.basis, _times(row)) for row in proof.ratios]


def speed_table(proof: Proof) -> Table:
    """Return a row for every contestant."""
    heads = ("contestant", "precision", "reviews/s", "tokens/s", "operations a review", "MiB")
    return heads, [_speed(row) for row in proof.speeds]


def quality_table(proof: Proof) -> Table:
    """Return accuracy with 95 % intervals: a row a set and number of classes, a column a model."""
    models = list(dict.fromkeys(row.name for row in proof.qualities))
    found = {(row.dataset, row.classes, row.name): row.accuracy for row in proof.qualities}
    rows: list[tuple[str, ...]] = []
    for dataset, classes in dict.fromkeys((row.dataset, row.classes) for row in proof.qualities):
        figures = [found.get((dataset, classes, model)) for model in models]
        counts = (f"{next(one.rows for one in figures if one):,}", str(classes))
        rows.append((dataset, *counts, *(percent(one) for one in figures)))
    return ("reviews of", "rows", "classes", *(f"{model}, %" for model in models)), rows


def cascade_table(proof: Proof) -> Table:
    """Return the student alone, the best threshold, and the large model for all reviews."""
    heads = ("asks the large model", "of reviews, %", "accuracy, %", "$ a million")
    shown = [one for one in proof.cascade if one.best or one.threshold in (0.0, 1.01)]
    return heads, [
        (
            {0.0: "never", 1.01: "always"}.get(one.threshold, f"below {one.threshold:g}"),
            f"{100 * one.handed_over:.1f}",
            percent(one.accuracy),
            f"{one.usd_million:,.2f}",
        )
        for one in shown
    ]


def percent(figure: Figure | None) -> str:
    """Return a share with its interval, in percent; blank where there is none."""
    if figure is None:
        return ""
    return f"{100 * figure.value:.1f} ({100 * figure.low:.1f} to {100 * figure.high:.1f})"


def regenerate(readme: str, made: str, part: str = "proof") -> str:
    """Return *readme* with *made* between the markers of a part. The markers stay."""
    return between(readme, part, f"{made}\n")


def readme_part(proof: Proof) -> str:
    """Return the README's part on a run: the ratios, the speeds, quality, the cascade."""
    around = proof.machine.around
    student = student_of(proof)
    parts = [
        f"One run of {proof.minutes:.0f} minutes on {proof.machine.name}, shared with other work"
        f" (load {around['load_average']:.1f} before it), at commit `{around['commit']}`: compare"
        f" within it. The student ({student.precision}) against a large model used the fastest fair"
        " way: its instruction cached, one pass a batch, one label token read. **The large model's"
        " weights are random**, so its speed is real and its answers mean nothing.",
        markdown_table(*ratio_table(proof)),
        markdown_table(*speed_table(proof)),
        "Accuracy against the reviews' own labels, two classes without the neutral rows. The"
        f" teacher is the frontier model whose judgement was distilled{_retained(proof)}",
        markdown_table(*quality_table(proof)),
        "The cascade, against the labels of its three classes, at the teacher's online price:",
        markdown_table(*cascade_table(proof)),
        "`benchmarks/results/proof.html` has the plots and the rest; `docs/proof.md` how it is"
        " measured.",
    ]
    return "\n\n".join(parts)


def gpu_part(proof: Proof) -> str:
    """Return the README's part on a GPU run: rates, and those of the engine and the large model."""
    around = proof.machine.around
    engine = next(row for row in proof.speeds if row.path == "engine")
    large = max((row for row in proof.speeds if row.kind == "large"), key=lambda row: row.rate)
    heads = ("contestant", "precision", "reviews/s", "of the engine", f"times {large.name}")
    rows: list[tuple[str, ...]] = [
        (
            row.name,
            row.precision,
            f"{row.rate:,.0f}",
            f"{row.rate / engine.rate:.3f}" if row.path == "grpc" else "",
            f"{ratio_of(row, large).value:,.0f}" if row.kind == "student" else "",
        )
        for row in proof.speeds
        if row.path in ("engine", "grpc") or row.kind == "large"
    ]
    lengths = ", ".join(
        f"{point.value:.0f} tokens {point.reviews_per_second:,.0f} reviews a second"
        f" ({point.reviews_per_second / point.bound:.0%})"
        for point in proof.scaling
        if point.axis == BY_LENGTH and point.bound is not None
    )
    rate = proof.machine.matmul_flops["fp16"] / 1e12
    parts = [
        f"On one {proof.machine.name} with {around['cores']} cores, in one run of"
        f" {proof.minutes:.0f} minutes at commit `{around['commit']}`; reviews of"
        f" {engine.tokens / engine.reviews:.0f} tokens, served by `serve --workers N` to callers on"
        " the same cores. The large model is entered as above:",
        markdown_table(heads, rows),
        f"The engine by length, and what of the card's measured matrix rate ({rate:.0f} TFLOP/s in"
        f" fp16) that is: {lengths}.",
    ]
    return "\n\n".join(parts)


def cost_part(proof: Proof, cost: Study) -> str:
    """Return the part of docs/when-to-use.md: costs by model, break-even, and retained accuracy."""
    student = f"{cost.student_usd_million:,.2f}"
    heads = ("who answers", "$ a million reviews", "times the student", "pays back from")
    rows: list[tuple[str, ...]] = [("the student, machine time alone", student, "1", "")]
    rows += [
        (one.name, f"{one.usd_million:,.2f}", f"{one.ratio:,.0f}", count(one.break_even))
        for one in cost.lines
    ]
    fixed = sum(cost.fixed_usd.values())
    parts = [
        f"Measured on {proof.machine.name} ({cost.notes[-1]}) and costed with the default plan of"
        f" `sentimill cost`: ${fixed:,.0f} of labels, work and upkeep over"
        f" {cost.plan.months:.0f} months before the first answer; {cost.notes[0]}.",
        markdown_table(heads, rows),
        "\n".join(f"- {found[0].upper()}{found[1:]}." for found in cost.findings),
    ]
    if proof.retained is not None:
        parts.append(
            f"The student's two-class accuracy is {percent(proof.retained)} % of its teacher's, on"
            f" {proof.retained.rows} rows that it learnt nothing of."
        )
    return "\n\n".join(parts)


def student_of(proof: Proof) -> Speed:
    """Return the student's entry in the duel with the large model."""
    return next(row for row in proof.speeds if row.kind == "student" and row.path == "duel")


def _retained(proof: Proof) -> str:
    if proof.retained is None:
        return "."
    return (
        f": on {proof.retained.rows} rows that the student learnt nothing of, it retains"
        f" {percent(proof.retained)} % of the teacher's two-class accuracy."
    )


def _times(row: Ratio) -> str:
    if row.repeats:
        return f"{row.value:,.0f} x"
    return f"{row.low:,.0f} to {row.high:,.0f} x (does not repeat within 10 %)"


def _speed(row: Speed) -> tuple[str, ...]:
    flops = "" if row.flops is None else f"{row.flops:.3g}"
    mib = "" if row.weights_mib is None else f"{row.weights_mib:,.0f}"
    name = row.name + (" (random weights)" if row.random_weights else "")
    rate = f"{row.rate:,.0f}" if row.rate >= 100 else f"{row.rate:.3g}"
    return name, row.precision, rate, f"{row.token_rate:,.0f}", flops, mib
