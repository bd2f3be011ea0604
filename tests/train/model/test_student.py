"""The student is an encoder with a mean and a head, and survives a save to the bit."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, BertModel, DistilBertConfig, DistilBertModel

from sentimill.errors import UsageError
from sentimill_train.model.pretrained import find_pretrained
from sentimill_train.model.student import load_student, new_student, predict, save_student
from train_parts import TWO, VOCABULARY, base, reviews, rows_of, student, tokenizer_json, write_base

ROWS = rows_of(reviews(20))


def test_logits_are_the_head_of_the_mean_over_tokens(tmp_path: Path) -> None:
    """Padding is no part of the mean."""
    made = student(tmp_path).train(False)
    ids = torch.tensor([[2, 9, 6, 3, 0], [2, 8, 9, 7, 3]])
    mask = (ids != 0).long()

    with torch.inference_mode():
        found = made(ids, mask)
        states = made.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        means = torch.stack([states[0, :4].mean(0), states[1].mean(0)])
        expected = made.head(means)

    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected)


def test_a_saved_student_gives_the_same_logits(tmp_path: Path) -> None:
    """Through config.json and model.safetensors, and no other file."""
    made = student(tmp_path / "base")
    save_student(made, tmp_path / "saved")

    again = load_student(tmp_path / "saved")

    files = sorted(path.name for path in (tmp_path / "saved").iterdir())
    assert files == ["config.json", "model.safetensors"]
    assert np.array_equal(predict(made, ROWS), predict(again, ROWS))
    assert again.config.id2label == dict(enumerate(TWO))
    assert not again.training


def test_eager_attention_gives_the_same_answers(tmp_path: Path) -> None:
    """It is what can be exported."""
    made = student(tmp_path / "base")
    save_student(made, tmp_path / "saved")

    eager = load_student(tmp_path / "saved", attention="eager")

    assert eager.encoder.config._attn_implementation == "eager"
    np.testing.assert_allclose(predict(made, ROWS), predict(eager, ROWS), atol=1e-5)


def test_transformers_loads_the_encoder_of_a_saved_student(tmp_path: Path) -> None:
    """So that it can serve others as a base, without our class."""
    made = student(tmp_path / "base")
    save_student(made, tmp_path / "saved")

    encoder = AutoModel.from_pretrained(tmp_path / "saved", add_pooling_layer=False)

    assert isinstance(encoder, BertModel)
    for name, tensor in encoder.state_dict().items():
        assert torch.equal(tensor, made.encoder.state_dict()[name]), name


def test_weights_that_nothing_uses_are_not_saved(tmp_path: Path) -> None:
    """A student has no pooler, also one that goes on from a bundle that still holds one."""
    made = student(tmp_path / "base")
    save_student(made, tmp_path / "saved")
    tensors = load_file(tmp_path / "saved/model.safetensors")
    assert not any(".pooler." in name for name in tensors)

    old = {**tensors, "bert.pooler.dense.weight": torch.zeros(32, 32)}
    save_file(old, tmp_path / "saved/model.safetensors", metadata={"format": "pt"})
    save_student(load_student(tmp_path / "saved"), tmp_path / "again")

    assert load_file(tmp_path / "again/model.safetensors").keys() == tensors.keys()
    assert AutoModel.from_pretrained(tmp_path / "again").pooler is not None  # a new one, if asked


def test_the_encoder_starts_from_the_checkpoint(tmp_path: Path) -> None:
    """Every weight of it, but the pooler that the mean replaces."""
    folder = write_base(tmp_path, layers=1)
    checkpoint = BertModel.from_pretrained(folder).state_dict()

    made = new_student("minilm-l6", find_pretrained(str(folder)), TWO, vocabulary=VOCABULARY)

    loaded = made.encoder.state_dict()
    assert loaded.keys() == {name for name in checkpoint if "pooler" not in name}
    assert all(torch.equal(loaded[name], checkpoint[name]) for name in loaded)


def test_other_families_of_bert_can_be_the_base(tmp_path: Path) -> None:
    """DistilBERT has neither token types nor a pooler."""
    config = DistilBertConfig(vocab_size=VOCABULARY, dim=32, n_layers=1, n_heads=2, hidden_dim=64)
    write_base(tmp_path)
    DistilBertModel(config).save_pretrained(tmp_path)

    made = new_student("minilm-l6", find_pretrained(str(tmp_path)), TWO, vocabulary=VOCABULARY)
    save_student(made, tmp_path / "saved")

    assert np.array_equal(predict(load_student(tmp_path / "saved"), ROWS), predict(made, ROWS))


def layers_of(encoder: Any) -> Any:
    """Return the layers of a BERT, which its types hide."""
    return encoder.encoder.layer


def test_three_layers_of_six_are_every_other_one(tmp_path: Path) -> None:
    """With the last, behind which the mean is taken; the rest of the encoder is all there."""
    folder = write_base(tmp_path / "base", layers=6)
    full = layers_of(BertModel.from_pretrained(folder))

    made = new_student("minilm-l3", find_pretrained(str(folder)), TWO, vocabulary=VOCABULARY)

    assert len(layers_of(made.encoder)) == made.config.num_hidden_layers == 3
    for layer, kept in zip(layers_of(made.encoder), (1, 3, 5), strict=True):
        assert torch.equal(layer.output.dense.weight, full[kept].output.dense.weight)
    save_student(made, tmp_path / "saved")
    assert np.array_equal(predict(load_student(tmp_path / "saved"), ROWS), predict(made, ROWS))


def test_three_layers_of_a_student_keep_its_head(tmp_path: Path) -> None:
    """Which is a better start than a new one; an encoder of fewer layers is refused."""
    folder = write_base(tmp_path / "base", layers=6)
    large = new_student("minilm-l6", find_pretrained(str(folder)), TWO, vocabulary=VOCABULARY)
    save_student(large, tmp_path / "large")
    (tmp_path / "large" / "tokenizer.json").write_bytes(tokenizer_json())

    found = find_pretrained(str(tmp_path / "large"))
    made = new_student("minilm-l3", found, TWO, vocabulary=VOCABULARY)

    assert len(layers_of(made.encoder)) == made.config.num_hidden_layers == 3
    assert torch.equal(made.head.weight, large.head.weight)
    few = find_pretrained(str(write_base(tmp_path / "few", layers=2)))
    with pytest.raises(UsageError, match="keeps 3 layers"):
        new_student("minilm-l3", few, TWO, vocabulary=VOCABULARY)


def test_a_checkpoint_of_another_kind_is_refused(tmp_path: Path) -> None:
    """With the reason and what to use."""
    write_base(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "nonsense"}')

    with pytest.raises(UsageError, match="BERT family") as caught:
        new_student("minilm-l6", find_pretrained(str(tmp_path)), TWO, vocabulary=VOCABULARY)

    assert caught.value.reason == "BASE_UNSUPPORTED"


def test_predictions_come_in_the_order_of_the_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Although they are made by length."""
    made = student(tmp_path)
    found = []

    for tokens in (64, 1):
        monkeypatch.setattr("sentimill_train.model.student._BATCH_TOKENS", tokens)
        found.append(predict(made, ROWS))

    np.testing.assert_allclose(found[0], found[1], atol=1e-6)


def test_loading_says_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """No progress bar, and no report of the pooler that was left out on purpose."""
    with caplog.at_level(logging.INFO):
        made = new_student("minilm-l6", base(tmp_path), TWO, vocabulary=VOCABULARY)
        capfd.readouterr()
        save_student(made, tmp_path / "saved")
        load_student(tmp_path / "saved")

    assert capfd.readouterr() == ("", "")
    assert caplog.records == []
