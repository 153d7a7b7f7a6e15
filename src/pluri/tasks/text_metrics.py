"""How well texts were written: BLEU, chrF, ROUGE and exact match; and whether they are too short or repeat themselves.

Legend: G texts, K numbers that a metric counts of each, R replicates.
"""

import importlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pluri.errors import UsageError
from pluri.tasks.answer_metrics import chinese

Floats = NDArray[np.float64]

TEXT_METRICS = ("chrf", "bleu", "rouge1", "rouge2", "rougeL", "exact_match")
_DIAGNOSES = ("length_ratio", "repetition")

_WORD = re.compile("[\u4e00-\u9fff]|[^\\W_\u4e00-\u9fff]+")  # a Han character, or another word
_REPEATED = 4  # words in a row


@dataclass(frozen=True, slots=True)
class TextOutcome:
    """How well G texts were written.

    chrf, bleu: sacrebleu's, 0 to 100, of the whole test set (Popovic 2015; Post 2018). rouge1, rouge2, rougeL: the mean
    F of shared words, word pairs, and the longest common subsequence (Lin 2004), 0 to 1. exact_match: the share of
    texts that are the reference. length_ratio: words written for each of the reference. repetition: the mean share of
    four words in a row that stood before in the same text.

    counts: of each metric float64 (G, K), of which those of the whole set are sums. combined: of each of those metrics,
        from the sums to its value; of the others, the mean over texts is taken.
    """

    counts: dict[str, Floats]
    combined: dict[str, Callable[[Sequence[float]], float]]

    @property
    def num_sequences(self) -> int:
        return len(self.counts["exact_match"])

    @property
    def metrics(self) -> tuple[str, ...]:
        return TEXT_METRICS + _DIAGNOSES

    def value(self, metric: str) -> float:
        return float(self.values(metric, np.ones((1, self.num_sequences)))[0])

    def values(self, metric: str, weights: Floats) -> Floats:
        """The metric under each row of weights. weights: (R, G), how often each text counts. Returns (R,)."""
        sums = weights @ self.counts[metric]  # (R, K)
        if metric in self.combined:
            return np.array([self.combined[metric](row.tolist()) for row in sums])
        return sums[:, 0] / np.maximum(weights.sum(1), 1)


def text_outcome(references: Sequence[str], written: Sequence[str]) -> TextOutcome:
    """Scores G texts. Most letters Chinese: BLEU cuts into characters, as sacrebleu's tokenizer zh does, else as 13a.

    UsageError if sacrebleu or rouge-score is not installed.
    """
    metrics, rouge = check_installed()
    bleu, chrf = metrics.BLEU(tokenize="zh" if chinese([references]) else "13a", force=True), metrics.CHRF()
    rouge_names = [name for name in TEXT_METRICS if name.startswith("rouge")]
    scorer = rouge.RougeScorer(rouge_names, tokenizer=_Words())
    scores = [scorer.score(reference, text) for reference, text in zip(references, written, strict=True)]
    counts = {name: _column([score[name].fmeasure for score in scores]) for name in rouge_names}
    # What sacrebleu itself sums up for its own resampling: of each text the numbers that its score is made of.
    for name, metric in (("bleu", bleu), ("chrf", chrf)):
        counts[name] = np.array(metric._extract_corpus_statistics(list(written), [list(references)]), np.float64)
    counts["length_ratio"] = counts["bleu"][:, :2]
    pairs = list(zip(references, written, strict=True))
    counts["exact_match"] = _column([float(text.strip() == reference.strip()) for reference, text in pairs])
    counts["repetition"] = _column([repetition(text) for text in written])
    combined = {
        "bleu": lambda sums: bleu._compute_score_from_stats(sums).score,
        "chrf": lambda sums: chrf._compute_score_from_stats(sums).score,
        "length_ratio": lambda sums: sums[0] / max(sums[1], 1.0),
    }
    return TextOutcome(counts, combined)


def repetition(text: str) -> float:
    """The share of four words in a row that stood before in the text; 0 of a text with fewer words."""
    words = _WORD.findall(text.lower())
    runs = [tuple(words[i : i + _REPEATED]) for i in range(len(words) - _REPEATED + 1)]
    return 1 - len(set(runs)) / len(runs) if runs else 0.0


def check_installed() -> tuple[Any, Any]:
    """The modules sacrebleu.metrics and rouge_score.rouge_scorer. UsageError if one of them is not installed."""
    try:
        return importlib.import_module("sacrebleu.metrics"), importlib.import_module("rouge_score.rouge_scorer")
    except ImportError as error:
        do = "pip install 'pluri[seq2seq]'"
        raise UsageError(f"texts are scored by sacrebleu and rouge-score: {error}", do=do) from None


class _Words:
    """What ROUGE compares: words in lower case. Of ASCII text those of rouge-score itself, which knows no others."""

    def tokenize(self, text: str) -> list[str]:
        return _WORD.findall(text.lower())


def _column(values: Sequence[float]) -> Floats:
    return np.array(values, np.float64).reshape(-1, 1)
