"""What a training reads: weights by file, the replay, samples, and what cannot be spelt."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sentimill.errors import UsageError
from sentimill_train.data.examples import read_examples, write_examples
from sentimill_train.data.schema import SENTIMENTS, Example
from sentimill_train.data.splits import Parted
from sentimill_train.data.tokenized import NO_LABEL
from sentimill_train.pipeline import inputs
from sentimill_train.pipeline.config import TrainConfig
from sentimill_train.pipeline.inputs import (
    check_allowed,
    judged_sample,
    learn_from_teacher,
    read_inputs,
    read_reviews,
    warn_of_absent_labels,
    warn_of_unknown_pieces,
)
from sentimill_train.pipeline.replay import Replay, read_replay
from sentimill_train.training.loop import FitConfig
from sentimill_train.training.teacher_logits import text_keys, write_logits
from sentimill_train.training.teacher_model import load_teacher
from train_parts import TWO, base, encoder, reviews, rows_of, write_base, write_reviews
from train_parts import student as new_student


def config(files: tuple[str, ...] = (), **settings: Any) -> TrainConfig:
    """Return the settings of a training on *files*, of which nothing is trained here."""
    return TrainConfig(reviews=files, out=Path("none"), **settings)


def test_every_row_of_a_file_can_have_a_weight_and_its_own_labels(tmp_path: Path) -> None:
    """A set that knows no neutral is named with the labels that it knows."""
    two, three = (str(write_reviews(tmp_path / name, 5)) for name in ("2.jsonl", "3.jsonl"))

    sources, found = read_reviews(
        config((two, three), weight_of={three: 2.0}, labels_of={two: TWO})
    )

    assert [(source.name, source.rows) for source in sources] == [("2.jsonl", 5), ("3.jsonl", 5)]
    assert [e.labels_allowed for e in found] == [TWO] * 5 + [None] * 5
    assert [e.weight for e in found] == [1.0] * 5 + [2.0] * 5


@pytest.mark.parametrize(
    ("allowed", "why"),
    [
        (("negative", "postive"), "names 'postive', but the labels of this training are"),
        ((), "names no label"),
        (
            ("negative", "neutral"),
            r"lacks labels that rows of this file have: positive \(rows: 2\)",
        ),
    ],
)
def test_labels_of_a_file_must_be_labels_and_include_those_of_its_rows(
    allowed: tuple[str, ...], why: str
) -> None:
    """Otherwise the file would teach nothing, or have an infinite loss."""
    rows = [Example(id=str(i), text="a", label=TWO[i % 2], source="f") for i in range(4)]

    with pytest.raises(UsageError, match=why) as caught:
        check_allowed({"f": allowed}, rows, SENTIMENTS)

    assert caught.value.reason == "BAD_LABELS_OF"


def test_labels_of_a_file_need_not_include_those_of_a_teacher() -> None:
    """A teacher may say neutral where a person could not."""
    shares = (0.1, 0.8, 0.1)
    row = Example(id="1", text="a", label="neutral", probs=shares, given="positive", source="f")

    check_allowed({"f": TWO}, [row, replace(row, given=None, teacher="m")], SENTIMENTS)


def replay(own: list[Example], **options: Any) -> Replay | None:
    """Return the replay beside *own*."""
    return read_replay(config(**options), own, encoder(), SENTIMENTS)


def test_the_package_gives_reviews_to_replay_that_are_not_the_own_ones() -> None:
    """None of the test split, whose figures would tell of texts learnt by heart."""
    packaged = [e for name in ("starter", "hard-kinds") for e in read_examples(name)]

    found, none = replay(reviews(400)), replay(packaged)

    assert found is not None
    assert (len(found.train), len(found.validation)) == (100, 200)
    assert (found.train.soft.sum(1) > 0).all()
    assert (found.validation.gold != NO_LABEL).all()
    assert none is None


def test_anchors_are_texts_without_labels(tmp_path: Path) -> None:
    """So that the answers of the base alone are learnt on them."""
    path = write_reviews(tmp_path / "anchors.jsonl", 6)

    found = replay(reviews(2), replay=False, anchors=(str(path),))

    assert found is not None
    assert (len(found.train), len(found.validation)) == (4, 0)
    assert not found.train.soft.any()


def test_other_labels_have_nothing_to_replay() -> None:
    """The reviews of the package know three labels."""
    assert read_replay(config(), [], encoder(), TWO) is None


def test_of_very_many_rows_a_sample_is_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training keeps them all."""
    monkeypatch.setattr(inputs, "JUDGED_ROWS", {"validation": 20, "test": 30})
    rows = tuple(reviews(40))
    parted = Parted(train=rows, validation=rows, test=rows, unlabelled=0, repeated=0)

    found = judged_sample(parted)

    assert [len(found.train), len(found.validation), len(found.test)] == [40, 20, 30]


def test_a_teacher_answers_a_text_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the file has is not asked again, and what it lacks is added to it."""
    from sentimill_train.model.student import save_student
    from train_parts import tokenizer_json

    save_student(new_student(tmp_path / "base", seed=3), tmp_path / "large")
    (tmp_path / "large" / "tokenizer.json").write_bytes(tokenizer_json())
    examples = [replace(e, label=None) for e in reviews(12)]
    teacher = load_teacher(tmp_path / "large", TWO, examples, max_tokens=32, truncation="head-tail")

    def learnt(rows: int) -> np.typing.NDArray[np.float32]:
        return learn_from_teacher(
            config(teacher_logits=tmp_path / "logits.parquet", fit=FitConfig(bf16=False)),
            rows_of(examples[:rows]),
            examples[:rows],
            TWO,
            teacher,
        ).soft

    first = learnt(8)
    asked: list[int] = []
    answer = type(teacher).logits

    def noting(self: object, wanted: list[int], *more: object) -> object:
        asked.extend(wanted)
        return answer(self, wanted, *more)  # type: ignore[arg-type] # the teacher of above

    monkeypatch.setattr(type(teacher), "logits", noting)
    again = learnt(12)

    assert asked == [8, 9, 10, 11]
    np.testing.assert_array_equal(again[:8], first)
    np.testing.assert_allclose(again.sum(1), 1, rtol=1e-6)


def test_class_weights_count_for_the_answers_of_a_teacher(tmp_path: Path) -> None:
    """A row without a label has the weight of what the teacher says, and is learnt."""
    bare = [replace(e, id=f"u-{i}", label=None) for i, e in enumerate(reviews(20, seed=5))]
    file, answers = tmp_path / "r.jsonl", tmp_path / "logits.parquet"
    write_examples(file, [replace(e, split="train") for e in bare] + reviews(200))
    logits = np.tile(np.array([-20, 20], dtype=np.float32), (len(bare), 1))
    write_logits(answers, text_keys([e.text for e in bare]), logits, TWO)
    settings = config(
        (str(file),),
        labels=TWO,
        base=str(write_base(tmp_path / "base")),
        teacher_logits=answers,
        class_weights="positive=3",
    )

    found = read_inputs(settings, lambda step: None).rows["train"]

    unlabelled = found.gold == NO_LABEL
    assert unlabelled.sum() == len(bare)
    np.testing.assert_allclose(found.weight[unlabelled], 3.0)


def test_reviews_that_the_vocabulary_cannot_spell_are_told_before_training(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With the share, and what to do about it."""
    spelt_by = base(tmp_path)
    known = rows_of(reviews(30))
    odd = rows_of(
        [replace(e, text="\u043e\u0442\u043b\u0438\u0447\u043d\u043e") for e in reviews(30)]
    )

    with caplog.at_level(logging.WARNING):
        shares = [warn_of_unknown_pieces(rows, spelt_by) for rows in (known, odd)]

    assert shares[0] == 0 < 0.3 < shares[1]
    assert len(caplog.messages) == 1
    assert "give --base an encoder of their language" in caplog.text


def test_a_label_that_no_row_has_is_told_before_training(caplog: pytest.LogCaptureFixture) -> None:
    """A file of negative and positive reviews would teach that nothing is neutral."""
    rows = [Example(id=str(i), text="a", label=TWO[i % 2], source="s") for i in range(4)]
    complete = [*rows, Example(id="5", text="b", label="neutral", source="s")]
    told = [replace(example, labels_allowed=("negative", "positive")) for example in rows]
    shared = [replace(example, probs=(0.4, 0.2, 0.4)) for example in rows]

    with caplog.at_level(logging.WARNING):
        for quiet in (complete, told, shared):
            warn_of_absent_labels(quiet, SENTIMENTS)
        assert caplog.messages == []
        warn_of_absent_labels(rows, SENTIMENTS)

    assert "no row for train is labelled neutral" in caplog.text
    assert "--labels-of FILE=negative,positive" in caplog.text


def test_no_folder_of_a_file_is_named_in_the_manifest(tmp_path: Path) -> None:
    """Not that of a path with a colon either; the folders may be private."""
    folder = tmp_path / "client: secret"
    folder.mkdir()

    sources, _ = read_reviews(config((str(write_reviews(folder / "r: 1.jsonl", 3)), "starter")))

    assert [source.name for source in sources] == ["r: 1.jsonl", "starter"]


def test_the_reviews_of_several_files_keep_their_order(tmp_path: Path) -> None:
    """And the same file gives the same rows each time."""
    path = tmp_path / "r.jsonl"
    write_examples(path, reviews(3))

    _, found = read_reviews(config((str(path),), labels=TWO))

    assert [e.text for e in found] == [e.text for e in reviews(3)]
