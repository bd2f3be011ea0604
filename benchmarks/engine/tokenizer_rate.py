"""How fast does tokie tokenise, and does it ever give other ids than the reference?

    python -m benchmarks.engine.tokenizer_rate --data FOLDER

Three questions. First: on which code points do the two differ without the guard? Each code point is
tried alone, within a word and between full stops, with vocabularies that hold every character. No
code point on which they differ may be among the proven ones. Second: with the guard, does any text
of the folder's sets get other ids, another cut or another error, and how many texts take the fast
path? Third: what is the rate, in batches and text by text, in one thread and in two? All are
measured in turns.

The bound: cleaning and the lists and arrays of ids are Python, and hold the GIL. So threads of one
process gain little even from a tokenizer that costs nothing, and processes gain more. `tokenizers`
spreads a batch over all cores by itself, so rates are given by wall clock and by processor time. No
text leaves the program.
"""

from __future__ import annotations

import argparse
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Final

import msgspec
import pyarrow.parquet as pq
from tokenizers import Tokenizer

from benchmarks.record import RESULTS, surroundings, write_result
from benchmarks.reviews import read_reviews
from sentimill.errors import TextError
from sentimill.text.cleaning import clean
from sentimill.text.fast_tokenizer import (
    PROVEN,
    FastTokenizer,
    fast_tokenizer,
    is_proven,
    read_tokie,
)
from sentimill.text.tokenizer import Encoded, TextEncoder

PLACES = ("{}", "a{}b", ".{}.")
BLOCK = 1 << 15
"""Code points that share a vocabulary."""
TOKENS = 128
LONG_TOKENS = 512  # compared up to here
BATCHES = (64, 1)
THREADS = (1, 2)
KINDS: Final = ("fast", "reference")


def encoder(path: Path, kind: str, max_tokens: int) -> TextEncoder:
    """Return an encoder with the fast tokenizer, or with none."""
    made = TextEncoder(path.read_bytes(), max_tokens=max_tokens, truncation="head-tail")
    if made._fast is None:
        raise SystemExit("tokie is not installed: pip install tokie==0.1.4")
    if kind == "reference":
        made._fast = None
    return made


def code_points(tokenizer_json: str) -> dict[str, object]:
    """Compare both, without the guard, on every code point in every place."""
    spec = msgspec.json.decode(tokenizer_json)
    special = [token["content"] for token in spec["added_tokens"]]
    proven = {chr(code) for first, last in PROVEN for code in range(first, last + 1)}
    differ: set[str] = set()
    total = 0
    for start in range(0, 0x110000, BLOCK):
        block = [c for c in map(chr, range(start, start + BLOCK)) if not "\ud800" <= c <= "\udfff"]
        total += len(block)
        pieces = [*special, *map(chr, range(33, 127)), *block]
        pieces += [f"##{piece}" for piece in pieces[len(special) :]]
        spec["model"]["vocab"] = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
        made = msgspec.json.encode(spec).decode()
        fast, reference = read_tokie(made), Tokenizer.from_str(made)
        for place in PLACES:
            texts = [place.format(char) for char in block]
            expected = reference.encode_batch_fast(texts, add_special_tokens=False)
            for char, text, one in zip(block, texts, expected, strict=True):
                if fast.encode(text, False).ids != one.ids:
                    differ.add(char)
    return {
        "code_points": total,
        "places": PLACES,
        "proven": len(proven),
        "differ": len(differ),
        "differ_and_proven": len(differ & proven),
    }


def outcome(result: Encoded | TextError) -> object:
    """Return the part of a result that has to be equal."""
    if isinstance(result, TextError):
        return str(result)
    return result.ids.tobytes(), result.truncated


def real_texts(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield the name and the texts of each set."""
    for path in sorted(folder.glob("*.parquet")):
        yield path.stem, pq.read_table(path, columns=["text"])["text"].to_pylist()


def compare(folder: Path, path: Path) -> dict[str, object]:
    """Encode every text of the folder with and without the fast tokenizer."""
    with_it, without = (encoder(path, kind, LONG_TOKENS) for kind in KINDS)
    counts: Counter[str] = Counter()
    sets: dict[str, int] = {}
    for name, texts in real_texts(folder):
        sets[name] = len(texts)
        for start in range(0, len(texts), 1024):
            part = texts[start : start + 1024]
            both = zip(with_it.encode(part), without.encode(part), strict=True)
            counts["differ"] += sum(outcome(a) != outcome(b) for a, b in both)
            counts["fast"] += sum(goes_fast(text) for text in part)
    total = sum(sets.values())
    return {
        "texts": total,
        "sets": sets,
        "differ": counts["differ"],
        "fast_share": counts["fast"] / total,
    }


def goes_fast(text: str) -> bool:
    """Return whether the whole text takes the fast path; the part that is cut may prevent it."""
    try:
        return is_proven(clean(text))
    except TextError:
        return False


def turn(
    encoders: Sequence[TextEncoder], texts: Sequence[str], batch: int, seconds: float
) -> tuple[float, float]:
    """Encode in one thread for each encoder; return texts a second by clock and processor time."""
    done = [0] * len(encoders)
    began, began_cpu = time.perf_counter(), time.process_time()

    def work(thread: int) -> None:
        at = thread * len(texts) // len(encoders)
        while time.perf_counter() < began + seconds:
            part = texts[at : at + batch]
            encoders[thread].encode(part)
            done[thread] += len(part)
            at = at + batch if at + batch < len(texts) else 0

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(encoders))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    clock, cpu = time.perf_counter() - began, time.process_time() - began_cpu
    return sum(done) / clock, sum(done) / cpu


def rates(path: Path, texts: Sequence[str], rounds: int, seconds: float) -> list[dict[str, object]]:
    """Return the medians of all combinations, which are measured in turns."""
    encoders = {kind: [encoder(path, kind, TOKENS) for _ in range(max(THREADS))] for kind in KINDS}
    cases = [(batch, threads) for batch in BATCHES for threads in THREADS]
    found: dict[tuple[int, int, str], list[tuple[float, float]]] = {}
    for number in range(rounds + 1):
        for batch, threads in cases:
            for kind in KINDS if number % 2 else reversed(KINDS):
                one = turn(encoders[kind][:threads], texts, batch, seconds)
                if number:  # the first round warms up
                    found.setdefault((batch, threads, kind), []).append(one)
    shown: list[dict[str, object]] = []
    for batch, threads in cases:
        turns = {kind: found[batch, threads, kind] for kind in KINDS}
        clock = {kind: median(each[0] for each in turns[kind]) for kind in KINDS}
        cpu = {kind: median(each[1] for each in turns[kind]) for kind in KINDS}
        shown.append(
            {
                "texts_a_call": batch,
                "threads": threads,
                "texts_per_second": clock,
                "texts_per_cpu_second": cpu,
                "times_the_reference": clock["fast"] / clock["reference"],
                "times_the_reference_by_cpu": cpu["fast"] / cpu["reference"],
                "turns": turns,
            }
        )
    return shown


def parts_us(path: Path, fast: FastTokenizer, texts: Sequence[str]) -> dict[str, float]:
    """Return the microseconds a text that cleaning, ids and all of the fast way take."""
    reader = encoder(path, "fast", TOKENS)
    cleaned = [body for text in texts if is_proven(body := clean(text))]

    def middle(work: Callable[[], object]) -> float:
        seconds: list[float] = []
        for _ in range(5):
            began = time.perf_counter()
            work()
            seconds.append(time.perf_counter() - began)
        return median(seconds) / len(texts) * 1e6

    return {
        "clean": middle(lambda: [clean(text) for text in texts]),
        "ids": middle(lambda: fast.ids(cleaned)),
        "all": middle(lambda: reader.encode(texts)),
    }


def main() -> None:
    """Compare, measure, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="a folder of Parquet files")
    parser.add_argument(
        "--tokenizer", type=Path, default=Path("bundles/reference/tokenizer.json"), help="of BERT"
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each turn")
    parser.add_argument("--out", type=Path, default=RESULTS / "tokenising.json")
    given = parser.parse_args()
    reference = Tokenizer.from_file(str(given.tokenizer))
    reference.no_truncation()
    reference.no_padding()
    began = time.perf_counter()
    fast = fast_tokenizer(reference.to_str())
    made_s = time.perf_counter() - began
    if fast is None:
        raise SystemExit("tokie is not installed: pip install tokie==0.1.4")
    texts = read_reviews(given.data, 2048)
    result: dict[str, object] = {
        "question": __doc__,
        "tokenizer": str(given.tokenizer),
        "max_tokens": TOKENS,
        "mean_characters": sum(map(len, texts)) / len(texts),
        "seconds_to_make": made_s,
        "rates": rates(given.tokenizer, texts, given.rounds, given.seconds),
        "parts_us": parts_us(given.tokenizer, fast, texts),
        "real_texts": compare(given.data, given.tokenizer),
        "code_points": code_points(reference.to_str()),
        "machine": surroundings(),
    }
    print(write_result(given.out, result))  # noqa: T201 # the result of a program


if __name__ == "__main__":
    main()
