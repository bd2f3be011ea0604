"""Which rows to keep when there are too many: caps a class and a domain, quality, diversity."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from sentimill_train.curation.row_store import Spool

__all__ = ["class_limits", "domain_limits", "keep_best", "over_limit", "quotas"]

_FIT_ROWS: Final = 20_000
_CHUNK_ROWS: Final = 5_000
_ROWS_PER_CLUSTER: Final = 10
_MOST_CLUSTERS: Final = 200
_DIMENSIONS: Final = 48


def class_limits(counts: NDArray[np.int64], ratio: float) -> NDArray[np.int64]:
    """Return how many rows each class may have: *ratio* times the smallest class that occurs."""
    present = counts[counts > 0]
    if len(present) < 2:
        return counts
    return np.minimum(counts, np.int64(np.floor(ratio * present.min())))


def domain_limits(counts: NDArray[np.int64], share: float) -> NDArray[np.int64]:
    """Return how many rows each domain may have so that none holds more than *share* of the rest.

    Unchanged where there are too few domains for any choice to meet the share.
    """
    if (counts > 0).sum() * share < 1:
        return counts
    low, high = 0, int(counts.max(initial=0))
    while low < high:  # the largest limit that holds its own share; a smaller one always does
        limit = (low + high + 1) // 2
        if min(limit, int(counts.max())) <= share * np.minimum(counts, limit).sum():
            low = limit
        else:
            high = limit - 1
    return np.minimum(counts, low)


def over_limit(
    groups: NDArray[np.int64], limits: NDArray[np.int64], quality: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Return the positions beyond each group's limit, the worst of the group by *quality*."""
    dropped = []
    for group, limit in enumerate(limits):
        members = np.flatnonzero(groups == group)
        if len(members) > limit:
            best_first = members[np.argsort(-quality[members], kind="stable")]
            dropped.append(best_first[limit:])
    return np.sort(np.concatenate(dropped)) if dropped else np.empty(0, dtype=np.int64)


def quotas(counts: NDArray[np.int64], total: int) -> NDArray[np.int64]:
    """Split *total* among classes as evenly as their sizes allow."""
    found = np.zeros_like(counts)
    left = min(total, int(counts.sum()))
    while left > 0:
        open_ = np.flatnonzero(found < counts)
        each = max(1, left // len(open_))
        for k in open_:
            take = min(each, int(counts[k] - found[k]), left)
            found[k] += take
            left -= take
    return found


def keep_best(
    spool: Spool,
    rows: NDArray[np.int64],
    labels: NDArray[np.int64],
    quality: NDArray[np.float64],
    total: int,
    seed: int,
) -> NDArray[np.int64]:
    """Return the positions in *rows* to keep, sorted: good ones from everywhere.

    Texts are clustered by their words. Within each class, clusters take turns to give their best
    row, so a thousand praises of one phone do not crowd out the only review of a hotel.
    """
    clusters = _clusters(spool, rows, min(_MOST_CLUSTERS, max(2, total // _ROWS_PER_CLUSTER)), seed)
    classes = int(labels.max(initial=0)) + 1
    counts = np.bincount(labels, minlength=classes).astype(np.int64)
    kept: list[int] = []
    for k, quota in enumerate(quotas(counts, total)):
        members = np.flatnonzero(labels == k)
        members = members[np.argsort(-quality[members], kind="stable")]
        turn = np.zeros(len(members), dtype=np.int64)  # a row's rank within its own cluster
        seen: dict[int, int] = {}
        for i, cluster in enumerate(clusters[members].tolist()):
            turn[i] = seen.get(cluster, 0)
            seen[cluster] = int(turn[i]) + 1
        kept.extend(members[np.argsort(turn, kind="stable")][:quota].tolist())
    return np.array(sorted(kept), dtype=np.int64)


def _clusters(spool: Spool, rows: NDArray[np.int64], count: int, seed: int) -> NDArray[np.int64]:
    """Return a cluster for each row, from TF-IDF in few dimensions."""
    from sklearn.cluster import MiniBatchKMeans
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import Normalizer

    if len(rows) <= count:
        return np.arange(len(rows), dtype=np.int64)
    step = max(1, len(rows) // _FIT_ROWS)
    sample = spool.texts(rows[::step][:_FIT_ROWS].tolist())
    vectorizer = TfidfVectorizer(
        sublinear_tf=True, max_features=20_000, stop_words="english", dtype=np.float32
    )
    features = vectorizer.fit_transform(sample)
    dimensions = min(_DIMENSIONS, min(features.shape) - 1)
    if dimensions < 1:
        return np.zeros(len(rows), dtype=np.int64)
    space = make_pipeline(TruncatedSVD(dimensions, random_state=seed), Normalizer(copy=False))
    points = space.fit_transform(features)
    means = MiniBatchKMeans(
        min(count, len(sample)), random_state=seed, n_init=1, batch_size=2048, max_iter=30
    )
    means.fit(points)
    found = np.empty(len(rows), dtype=np.int64)
    for start in range(0, len(rows), _CHUNK_ROWS):
        texts = spool.texts(rows[start : start + _CHUNK_ROWS].tolist())
        found[start : start + len(texts)] = means.predict(
            space.transform(vectorizer.transform(texts))
        )
    return found
