"""What is missing is named, with the command that installs it."""

from __future__ import annotations

from importlib import import_module

import pytest

from sentimill.errors import UsageError
from sentimill_train.optional_packages import check_installed, needed_for


def test_what_is_installed_is_no_error() -> None:
    """Nothing is imported for it, and nothing is said."""
    check_installed("judging", "numpy", "torch")


def test_every_package_that_is_missing_is_named() -> None:
    """At once: nobody should install them one by one."""
    with pytest.raises(UsageError, match=r"judging needs .*\(no_such_a, no_such_b\)") as caught:
        check_installed("judging", "numpy", "no_such_a", "no_such_b")

    assert caught.value.reason == "EXTRA_MISSING"


def test_an_import_that_fails_names_its_package() -> None:
    """Other errors inside are not ours to explain."""
    with pytest.raises(UsageError, match=r"trimming needs .*\(no_such_a\)"), needed_for("trimming"):
        import_module("no_such_a")

    with pytest.raises(ValueError, match="mine"), needed_for("trimming"):
        raise ValueError("mine")
