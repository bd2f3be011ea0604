"""Compares the job with scripts that people write by hand: pandas and the transformers pipeline."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sentimill.classifier import Classifier
from sentimill.scoring.job import Score
from sentimill.scoring.scorers import LocalScorer

__all__ = ["peers"]


def peers(folder: Path, bundle: Path, texts: Sequence[str], repeats: int) -> dict[str, object]:
    """Compare the job with two hand-written scripts on the same CSV, in turns.

    The scripts run the bundle's own encoder in fp32 with a stock classification head of the same
    size: what a transformers user has. Their answers differ from ours; the work does not. The time
    to load a model is not counted for any of them.
    """
    import pandas

    source = folder / "in.csv"
    frame = pandas.DataFrame({"id": range(len(texts)), "text": list(texts)})
    frame.to_csv(source, index=False)
    classifier = Classifier.load(bundle)
    scorer = LocalScorer(classifier)
    pipe = _pipeline(bundle)
    cut = {"truncation": True, "max_length": classifier.bundle.manifest.max_tokens}
    pipe(list(texts[:8]), **cut)

    def by_hand(batch: int | None) -> None:
        read = pandas.read_csv(source)
        if batch is None:
            read["label"] = [pipe(text, **cut)[0]["label"] for text in read["text"]]
        else:
            answers = pipe(list(read["text"]), batch_size=batch, **cut)
            read["label"] = [one["label"] for one in answers]
        read.to_csv(folder / "hand.csv", index=False)

    def ours() -> None:
        Score(sources=(str(source),), target=str(folder / "out.csv"), overwrite=True).run(scorer)

    ways: dict[str, Callable[[], None]] = {
        "pipeline in a loop": lambda: by_hand(None),
        "pipeline, batch_size=32": lambda: by_hand(32),
        "sentimill score": ours,
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, work in ways.items():
            began = time.perf_counter()
            work()
            seconds[name].append(time.perf_counter() - began)
    job = seconds["sentimill score"]
    return {
        "rows": len(texts),
        "repeats": repeats,
        "rows_per_second": {k: len(texts) / statistics.median(v) for k, v in seconds.items()},
        "times_as_fast": {
            name: statistics.median(hand / own for hand, own in zip(spent, job, strict=True))
            for name, spent in seconds.items()
            if spent is not job
        },
        "seconds": seconds,
    }


def _pipeline(bundle: Path) -> Any:
    """Return the pipeline over the bundle's encoder, with a fresh head of its labels."""
    from transformers import (
        AutoConfig,
        BertForSequenceClassification,
        PreTrainedTokenizerFast,
        pipeline,
    )

    config = AutoConfig.from_pretrained(bundle, num_labels=3)
    model = BertForSequenceClassification(config)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(bundle / "tokenizer.json"),
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        unk_token="[UNK]",
    )
    return pipeline("text-classification", model=model, tokenizer=tokenizer, device="cpu")
