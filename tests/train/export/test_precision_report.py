"""Card and report have the results of the gate; a compact one says whose its figures are."""

from __future__ import annotations

from sentimill_train.export.acceptance import NotJudged
from sentimill_train.export.precision_report import report_with

PAGE = '<p class="lead">Version 1, fp32</p>\n<nav>links</nav>\n<h2 id="record">Data</h2>\n'
TRIED = [NotJudged(precision="bf16", why="the CPU has <none>")]


def test_the_report_of_a_compact_bundle_says_first_that_its_figures_are_of_fp32() -> None:
    """Before the links to them, and with one to what int8 changes."""
    page = report_with(PAGE, TRIED, small=True)

    assert page.index("This one answers in int8 alone") < page.index("<nav>")
    assert 'href="#precisions"' in page
    assert page.index('<h2 id="precisions">') < page.index('<h2 id="record">')
    assert "the CPU has &lt;none&gt;" in page


def test_the_report_of_another_bundle_gets_the_section_alone() -> None:
    """Its figures are its own."""
    page = report_with(PAGE, TRIED)

    assert "int8 alone" not in page
    assert '<h2 id="precisions">' in page
