"""Exact match and F1 of answers, as the official scripts of SQuAD and of CMRC and DRCD count them.

Legend: G questions, R replicates.
"""

import difflib
import re
import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Scoring = Literal["auto", "words", "characters"]

ANSWER_METRICS = ("exact_match", "f1")
_BY_KIND = ("HasAns_exact", "HasAns_f1", "NoAns_exact", "NoAns_f1")

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_ASCII_PUNCTUATION = str.maketrans("", "", string.punctuation)
# What the scripts for Chinese take out (Cui et al. 2019, cmrc2018_evaluate.py); ASCII commas and full stops are kept.
_CHINESE_PUNCTUATION = str.maketrans("", "", "-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』")
_HAN = re.compile("[\u4e00-\u9fa5]")
# A Han character; a word or number, with its inner full stops, apostrophes and thousands; any other sign.
_SEGMENT = re.compile("[\u4e00-\u9fa5]|[^\\W\u4e00-\u9fa5]+(?:(?:[.'](?=\\w)|,(?=\\d))[^\\W\u4e00-\u9fa5]+)*|[^\\w\\s]")


@dataclass(frozen=True, slots=True)
class AnswerOutcome:
    """How well G questions were answered.

    exact, f1: float64 (G,), each in [0, 1], the best over the references. answerable: bool (G,).
    scoring: by which rules.
    """

    exact: Floats
    f1: Floats
    answerable: NDArray[np.bool_]
    scoring: Literal["words", "characters"]

    @property
    def num_sequences(self) -> int:
        return len(self.f1)

    @property
    def metrics(self) -> tuple[str, ...]:
        """Where some questions have no answer, each metric also for the questions with and without one."""
        return ANSWER_METRICS if self.answerable.all() else ANSWER_METRICS + _BY_KIND

    def value(self, metric: str) -> float:
        return float(self.values(metric, np.ones((1, self.num_sequences)))[0])

    def values(self, metric: str, weights: Floats) -> Floats:
        """The mean under each row of weights, 0 over no question. weights: (R, G), counts. Returns (R,)."""
        kind, _, name = metric.rpartition("Ans_")
        counted = {"": np.ones_like(self.answerable), "Has": self.answerable, "No": ~self.answerable}[kind]
        counts = weights * counted
        return counts @ self.scores(name) / np.maximum(counts.sum(1), 1)

    def scores(self, metric: str) -> Floats:
        """Of each question: (G,)."""
        return self.f1 if metric == "f1" else self.exact


def answer_outcome(
    references: Sequence[Sequence[str]], predicted: Sequence[str], scoring: Scoring = "auto"
) -> AnswerOutcome:
    """Scores G answers, "" being none.

    references: right answers of each question; none where the document has no answer.
    scoring: "words" (SQuAD; the rules of version 2.0 if any question has no answer, else 1.1), "characters" (CMRC
        2018 and DRCD), or "auto": characters if most letters of the references are Chinese.
    """
    if scoring == "auto":
        scoring = "characters" if chinese(references) else "words"
    judge = by_words if scoring == "words" else by_characters
    answerable = np.array([len(texts) > 0 for texts in references], bool)
    some_without = not answerable.all()
    pairs = zip(references, predicted, strict=True)
    scores = np.array([judge(texts or ("",), said, some_without) for texts, said in pairs], np.float64).reshape(-1, 2)
    return AnswerOutcome(scores[:, 0], scores[:, 1], answerable, scoring)


def by_words(references: Sequence[str], predicted: str, some_without: bool = False) -> tuple[float, float]:
    """(exact match, F1 over words) as SQuAD's scripts count (Rajpurkar et al. 2016, section 6.1; 2018 for 2.0).

    some_without: of a data set with unanswerable questions (2.0): references that normalize to nothing are left out,
    and where either side is empty, F1 is whether both are.
    """
    said, wanted = normalized(predicted), [normalized(text) for text in references]
    if some_without:
        wanted = [text for text in wanted if text] or [""]
    words, f1 = said.split(), 0.0
    for text in wanted:
        right = text.split()
        same = (Counter(words) & Counter(right)).total()
        f1 = max(f1, _f1(same, words, right, some_without))
    return float(said in wanted), f1


def by_characters(references: Sequence[str], predicted: str, some_without: bool = False) -> tuple[float, float]:
    """(exact match, F1) as the scripts of CMRC 2018 and DRCD count: over the longest run that both sides share.

    Units are Han characters and other words. The scripts cut the latter with NLTK; here English contractions ("don't")
    stay whole.
    """
    said, wanted = _bare(predicted), [_bare(text) for text in references]
    units = _SEGMENT.findall(said)
    f1 = 0.0
    for text in wanted:
        right = _SEGMENT.findall(text)
        run = difflib.SequenceMatcher(None, right, units, autojunk=False).find_longest_match()
        f1 = max(f1, _f1(run.size, units, right, some_without))
    return float(said in wanted), f1


def normalized(text: str) -> str:
    """Lower case, without ASCII punctuation, English articles and superfluous blanks."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_ASCII_PUNCTUATION)).split())


def _bare(text: str) -> str:
    return text.lower().strip().translate(_CHINESE_PUNCTUATION)


def _f1(same: int, predicted: list[str], gold: list[str], some_without: bool) -> float:
    if some_without and not (predicted and gold):
        return float(predicted == gold)
    return 2 * same / (len(predicted) + len(gold)) if same else 0.0


def chinese(references: Sequence[Sequence[str]]) -> bool:
    """Whether most letters are Han characters."""
    text = "".join(text for texts in references[:1000] for text in texts)
    return 2 * len(_HAN.findall(text)) > sum(character.isalnum() for character in text)
