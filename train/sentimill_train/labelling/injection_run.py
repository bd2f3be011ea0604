"""The measurement behind `label --probe-injection`, for every teacher, within the budget."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from sentimill_train.labelling.injection_test import Probe, load_cases, probe
from sentimill_train.labelling.job import LabelJob
from sentimill_train.labelling.requests.response_cache import Store
from sentimill_train.labelling.session import Inquiry, Priced

__all__ = ["run_probes"]


def run_probes(job: LabelJob, teachers: Sequence[Priced]) -> list[Probe]:
    """Ask each teacher about every case. Raises UsageError when a price is unknown."""
    store = Store(job.store)
    try:
        return asyncio.run(_run(job, store, teachers))
    finally:
        store.close()


async def _run(job: LabelJob, store: Store, teachers: Sequence[Priced]) -> list[Probe]:
    inquiry = await Inquiry.open(job, store)
    cases = load_cases()
    results = []
    try:
        for priced in teachers:
            inquiry.check_price(priced)
            judge, _ = await inquiry.judge(priced, cases[0].review)
            results.append(await probe(judge, store, inquiry.asker(priced), cases))
    finally:
        for teacher, _ in teachers:
            await teacher.close()
    return results
