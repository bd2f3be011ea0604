"""The job beside what people write by hand: pandas and the transformers pipeline."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sentimill.classifier import Classifier
from sentimill.scoring.job import Score
from sentimill.scoring.scorers import LocalScorer

__all__ = ["peers"]


def peers(folder: Path, bundle: Path, texts: Sequence[str]) -> dict[str, object]:
    """Return rows per second of the job and of two hand-written scripts on the same CSV and rows.

    The scripts run the bundle's own encoder in fp32 with a stock classification head of the same
    size: what a transformers user has. Their answers differ from ours; the work does not.
    """
    import pandas

    source = folder / "in.csv"
    frame = pandas.DataFrame({"id": range(len(texts)), "text": list(texts)})
    frame.to_csv(source, index=False)
    max_tokens = Classifier.load(bundle).bundle.manifest.max_tokens
    pipe = _pipeline(bundle)
    pipe(list(texts[:8]), truncation=True, max_length=max_tokens)
    rates: dict[str, float] = {}
    for name, batch in (("pipeline in a loop", None), ("pipeline, batch_size=32", 32)):
        began = time.perf_counter()
        read = pandas.read_csv(source)
        kind = {"truncation": True, "max_length": max_tokens}
        if batch is None:
            answers = [pipe(text, **kind)[0]["label"] for text in read["text"]]
        else:
            answers = [one["label"] for one in pipe(list(read["text"]), batch_size=batch, **kind)]
        read["label"] = answers
        read.to_csv(folder / "hand.csv", index=False)
        rates[name] = len(texts) / (time.perf_counter() - began)
    began = time.perf_counter()
    scorer = LocalScorer(Classifier.load(bundle))
    Score(sources=(str(source),), target=str(folder / "out.csv")).run(scorer)
    rates["sentimill score"] = len(texts) / (time.perf_counter() - began)
    ours = rates["sentimill score"]
    return {
        "rows": len(texts),
        "rows_per_second": rates,
        "times_as_fast": {name: ours / rate for name, rate in rates.items()},
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
