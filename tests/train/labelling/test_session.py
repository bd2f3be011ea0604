"""What a session assumes before it asks."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from labelling_runs import job_in
from sentimill_train.labelling.providers.anthropic import AnthropicTeacher
from sentimill_train.labelling.providers.openai import OpenAITeacher
from sentimill_train.labelling.requests.response_cache import ResponseCache
from sentimill_train.labelling.session import Session


@pytest.mark.parametrize(
    ("opened", "votes", "mode"),
    [
        (OpenAITeacher, 1, "logprobs"),
        (OpenAITeacher, 5, "logprobs"),
        (AnthropicTeacher, 1, "stated"),
        (AnthropicTeacher, 5, "votes"),
    ],
)
def test_the_plan_assumes_the_mode_that_a_teacher_is_asked_in(
    tmp_path: Path,
    opened: type[OpenAITeacher] | type[AnthropicTeacher],
    votes: int,
    mode: str,
) -> None:
    """Anthropic gives no log-probabilities, and stated shares are a longer answer."""
    job = job_in(tmp_path, votes=votes)
    teacher = opened("m", url="http://127.0.0.1:1", key="test", timeout_s=1.0)
    with contextlib.closing(ResponseCache(job.store)) as store:
        found = Session(job, store).likely_annotator(teacher)

    assert found.prompt.mode == mode
