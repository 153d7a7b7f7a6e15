"""How many kinds of vectors there are: clusters by cosine, or one alone.

Legend: n vectors, D width.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, leaves_list, linkage
from scipy.spatial.distance import squareform

SUBSTANTIAL = 0.25
"""Up to this mean silhouette "no substantial structure has been found" (Kaufman and Rousseeuw 1990, section 2.2)."""
_STRENGTHS = {0.7: "strong", 0.5: "reasonable", SUBSTANTIAL: "weak"}  # above each, as it is said there
_MOST = 8  # clusters
_FEWEST = 4  # vectors of which two clusters can be told from one


@dataclass(frozen=True, slots=True, eq=False)
class Clusters:
    """labels: int64 (n,), 0 for the largest cluster, all 0 if there is one. order: int64 (n,), like beside like.

    silhouette: the best mean that two or more clusters have, -1 to 1; None for fewer than four vectors.
    """

    labels: NDArray[np.int64]
    order: NDArray[np.int64]
    silhouette: float | None

    @property
    def count(self) -> int:
        return int(self.labels.max(initial=0)) + 1

    @property
    def strength(self) -> str:
        """What the structure is called that the silhouette shows."""
        return next((name for above, name in _STRENGTHS.items() if (self.silhouette or 0) > above), "none")


def clustered(vectors: NDArray[np.float32]) -> Clusters:
    """Average linkage of cosine distances, cut where the mean silhouette is largest; one cluster if that is too small.

    vectors: (n, D), none of them 0.
    """
    n = len(vectors)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    distances = np.clip(1 - unit @ unit.T, 0, None).astype(np.float64)
    np.fill_diagonal(distances, 0)
    labels = np.zeros(n, np.int64)
    if n < 2:
        return Clusters(labels, np.arange(n), None)
    tree = linkage(squareform((distances + distances.T) / 2, checks=False), "average")
    order = leaves_list(tree).astype(np.int64)
    if n < _FEWEST:
        return Clusters(labels, order, None)
    cuts = [fcluster(tree, count, "maxclust").astype(np.int64) - 1 for count in range(2, min(_MOST, n - 1) + 1)]
    best, cut = max(((_silhouette(distances, cut), cut) for cut in cuts), key=lambda found: found[0])
    if best > SUBSTANTIAL:
        labels = np.argsort(np.argsort(-np.bincount(cut), kind="stable"))[cut]
    return Clusters(labels, order[np.argsort(labels[order], kind="stable")], best)


def _silhouette(distances: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    """The mean over all vectors of (b - a) / max(a, b): a is the mean distance to the others of the own cluster, b that
    to the nearest other one; 0 for a vector alone (Rousseeuw 1987)."""
    member = np.eye(labels.max() + 1)[labels]  # (n, clusters)
    sizes, own = member.sum(0), (np.arange(len(labels)), labels)
    sums = distances @ member
    a = sums[own] / np.maximum(sizes[labels] - 1, 1)
    others = sums / sizes
    others[own] = np.inf
    b = others.min(1)
    widths = np.where(sizes[labels] > 1, (b - a) / np.maximum(np.maximum(a, b), 1e-12), 0)
    return float(widths.mean())
