"""The rules as the Prometheus operator reads them: run this file, and it writes its TARGET."""

from __future__ import annotations

from pathlib import Path
from textwrap import indent
from typing import Final

__all__ = ["TARGET", "manifest"]

_HERE: Final = Path(__file__).parent
TARGET: Final = _HERE.parent / "kubernetes/prometheus-operator/prometheusrule.yaml"
# Two resources: groups of both files have the same names, which one may not have twice.
_HEAD: Final = """\
---
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: sentimill-{name}
spec:
"""


def manifest() -> str:
    """Return a PrometheusRule for each file of rules, comments included."""
    note = (
        "# Made by deploy/prometheus/operator_rules.py of rules.yml and alerts.yml: edit those.\n"
    )
    return note + "".join(
        _HEAD.format(name=name) + indent((_HERE / f"{name}.yml").read_text(encoding="utf-8"), "  ")
        for name in ("rules", "alerts")
    )


if __name__ == "__main__":
    TARGET.write_text(manifest(), encoding="utf-8")
