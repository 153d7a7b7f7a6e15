"""Sentences computed from results: what pretraining bought, what it did not, and where the curves cross."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from pluri.report.comparison import Comparison, Estimate, crossings, size_to_reach

PRETRAINED, RANDOM_START = "pretrained", "random start"
COUNTS = "counted neighbours, no training"
"""What a pretraining began from that did not begin by chance: no step of training, then the labels."""
NO_RIVALS = (PRETRAINED, COUNTS, RANDOM_START, "embeddings reset", "own pretraining", "frozen features", "majority")
"""Everything else is a simple method that a careful person would try first."""

METHODS = {
    PRETRAINED: "The model that first taught itself by filling in blanks, then learned from the labels.",
    COUNTS: "The same network before that schooling, with its embeddings filled from counts of which tokens stand side "
    "by side; then it learned from the labels. Its distance to the pretrained model is what training on blanks bought.",
    RANDOM_START: "The very same network begun by chance: it learns from the labels alone. "
    "Its distance to the pretrained model is what all that came before the labels bought.",
    "embeddings reset": "The pretrained model with the vectors of its tokens begun by chance: what it knows of words "
    "is gone, what it does with them is left.",
    "own pretraining": "Another model, which taught itself on such sequences; then it learned from the labels.",
    "frozen features": "The pretrained model left exactly as it was; only a new last layer learned from the labels.",
    "TF-IDF + logistic regression": "A classic: counts words or groups of characters, and weighs them.",
    "TF-IDF + ridge regression": "A classic: counts words or groups of characters, and weighs them.",
    "letters at their places + linear": "A classic: which letter stands at each place of sequences of one length.",
    "character windows + linear": "A classic: looks at the characters around each token, and weighs them.",
    "QANet": "A network built for questions before there was pretraining; it learns from the labels alone.",
    "static vectors + logistic regression": "A classic: one vector for each word, wherever it stands; weighs them.",
    "static vectors + ridge regression": "A classic: one vector for each word, wherever it stands; weighs them.",
    "source copied": "Gives each text back as it is. Anything useful must beat it.",
    "majority": "Always gives the most frequent answer. Anything useful must beat it.",
}
TASKS = {
    "tag": "to give a label to every token",
    "classify": "to give a label to every sequence",
    "pair": "to give a label to every two sequences",
    "answer": "to find the answer to a question in a document",
    "translate": "to write a text for a text",
}
METRICS = {
    "accuracy": ("accuracy", "the share of answers that are right"),
    "acc": ("accuracy", "the share of answers that are right, where the likeliest choice is the answer"),
    "acc_norm": ("accuracy by length", "the same, where the answer is the choice that is likeliest a character"),
    "acc_calibrated": ("calibrated accuracy", "the same, where what a choice has without any content is taken away"),
    "macro_f1": ("macro F1", "the balance of hits and false alarms, every label counting the same"),
    "f1_macro": ("macro F1", "the balance of hits and false alarms, every label counting the same"),
    "micro_f1": ("micro F1", "the balance of hits and false alarms, every answer counting the same"),
    "positive_f1": ("F1 of the positive label", "the balance of hits and false alarms of one of the two labels"),
    "f1": ("F1", "the balance of hits and false alarms"),
    "chrf": ("chrF", "how many short runs of characters are those of the true text, 0 to 100"),
    "bleu": ("BLEU", "how many short runs of words are those of the true text, 0 to 100"),
    "rouge1": ("ROUGE-1", "how many words are those of the true text"),
    "rouge2": ("ROUGE-2", "how many pairs of words are those of the true text"),
    "rougeL": ("ROUGE-L", "how many words stand in the order of the true text"),
    "length_ratio": ("length", "words written for each word of the true text: 1 is as long"),
    "repetition": ("repetition", "the share of four words in a row that were said before in the same text"),
    "exact_match": ("exact match", "the share of answers that are right to the letter"),
    "span_f1": ("F1 of spans", "the balance of hits and false alarms; a hit has the right type and both ends right"),
    "span_precision": ("precision of spans", "the share of the predicted spans that are right"),
    "span_recall": ("recall of spans", "the share of the true spans that were found"),
    "mcc": ("Matthews correlation", "how well answers and truth agree: 1 is always, 0 is chance"),
    "pearson": ("Pearson correlation", "how well answers follow the true numbers: 1 is perfectly, 0 not at all"),
    "spearman": (
        "rank correlation",
        "how well the order of the answers follows the true order: 1 is perfectly, 0 not at all",
    ),
}
MINUS = "\N{MINUS SIGN}"


@dataclass(frozen=True, slots=True)
class Headline:
    """claim: the sentence. evidence: the interval behind it. details: further sentences, each true by itself."""

    claim: str
    evidence: str = ""
    verdict: Literal["better", "worse", "unclear", "none"] = "none"
    details: list[str] = field(default_factory=list)


def metric_name(metric: str) -> str:
    return METRICS[metric][0] if metric in METRICS else metric.replace("_", " ")


def shown(comparison: Comparison, value: float) -> str:
    """A value of the metric: per cent if it is a share, else three decimals."""
    return f"{100 * value:.1f}%" if comparison.percent else f"{value:.3f}".replace("-", MINUS)


def signed(comparison: Comparison, value: float, *, unit: bool = False) -> str:
    """A difference: points if the metric is a share."""
    text = f"{100 * value:+.1f}" if comparison.percent else f"{value:+.3f}"
    if not float(text):
        text = text.lstrip("+-")
    return text.replace("-", MINUS) + (" points" if unit and comparison.percent else "")


def interval(comparison: Comparison, found: Estimate) -> str:
    """ "95% interval +9.1 to +14.3" of a difference, or why there is none."""
    if found.low is None or found.high is None:
        return "one seed, so no interval"
    return f"95% interval {signed(comparison, found.low)} to {signed(comparison, found.high)}"


def count(value: float) -> str:
    """1234 -> 1,234; 1.53e6 -> 1.5 million."""
    for size, name in ((1e9, "billion"), (1e6, "million")):
        if value >= size:
            return f"{value / size:.1f} {name}"
    return f"{value:,.0f}"


def about(value: float) -> str:
    """A size read off a line, to two digits: 187.3 -> 190."""
    digits = max(0, math.floor(math.log10(value)) - 1) if value >= 1 else 0
    return f"{round(value / 10**digits) * 10**digits:,}"


def headline(comparison: Comparison, unit: str) -> Headline:
    """The sentence on top of the report, for the fewest labels with which the pretrained model was tried."""
    method = pretrained_method(comparison)
    if method is None:
        return _best(comparison, unit)
    sizes = [size for size in comparison.sizes if comparison.group(method, size)]
    other = random_start(comparison, method) or rival(comparison, sizes[0])
    if other is None:
        return _best(comparison, unit)
    sizes = [size for size in sizes if comparison.group(other, size)] or sizes
    return _compared(comparison, method, other, sizes[0], unit)


def _compared(comparison: Comparison, method: str, other: str, size: int | None, unit: str) -> Headline:
    ours, theirs = comparison.estimate(method, size), comparison.estimate(other, size)
    found = comparison.difference(method, other, size)
    if ours is None or theirs is None or found is None:
        return _best(comparison, unit)
    name, ours_shown, theirs_shown = (
        metric_name(comparison.metric),
        shown(comparison, ours.mean),
        shown(comparison, theirs.mean),
    )
    with_labels = f"With {_labels(size, unit)}, "
    counts = comparison.estimate(COUNTS, size)
    total = " in all" if counts is not None else ""
    evidence = f"{signed(comparison, found.mean, unit=True)}{total}, {interval(comparison, found)}"
    direction = found.sign if found.low is not None else (found.mean > 0) - (found.mean < 0)
    verdict = direction * comparison.better
    if verdict > 0 and not other.startswith(RANDOM_START):
        claim = f"{with_labels}the pretrained model reaches {ours_shown} {name}, against {theirs_shown} with {other}"
        return Headline(claim, evidence, "better", _details(comparison, method, unit))
    if verdict > 0:
        verb = "lifts" if comparison.better > 0 else "lowers"
        claim = f"{with_labels}pretraining {verb} {name} from {theirs_shown} to {ours_shown}"
        if counts is not None:
            between = (
                f"{shown(comparison, counts.mean)} by counting neighbours, and to {ours_shown} by training after it"
            )
            claim = f"{with_labels}{name} goes from {theirs_shown} with a random start to {between}"
        return Headline(claim, evidence, "better", _details(comparison, method, unit))
    against = f"{name} is {ours_shown}, against {theirs_shown} with {_named(other)}"
    if verdict < 0:
        claim = f"{with_labels}pretraining did not help: {against}"
        return Headline(claim, evidence, "worse", _details(comparison, method, unit))
    claim = f"{with_labels}pretraining made no clear difference: {against}"
    return Headline(claim, evidence, "unclear", _details(comparison, method, unit))


def _best(comparison: Comparison, unit: str) -> Headline:
    size = comparison.sizes[0]
    means = {method: found.mean for method in comparison.methods if (found := comparison.estimate(method, size))}
    best = max(means, key=lambda method: comparison.better * means[method])
    value = shown(comparison, means[best])
    return Headline(f"With {_labels(size, unit)}, {_named(best)} reaches {value} {metric_name(comparison.metric)}")


def pretrained_method(comparison: Comparison) -> str | None:
    return next((method for method in comparison.methods if method.startswith(PRETRAINED)), None)


def random_start(comparison: Comparison, method: str) -> str | None:
    """The random start that belongs to this pretrained method: of the same run if there are several."""
    for name in (RANDOM_START + method.removeprefix(PRETRAINED), RANDOM_START):
        if name in comparison.methods:
            return name
    return None


def rival(comparison: Comparison, size: int | None) -> str | None:
    """The best simple method at this size: the one that an honest report must name."""
    means = {
        method: comparison.better * found.mean
        for method in comparison.methods
        if not method.startswith(NO_RIVALS) and (found := comparison.estimate(method, size))
    }
    return max(means, key=lambda method: means[method]) if means else None


def _details(comparison: Comparison, method: str, unit: str) -> list[str]:
    sizes = [size for size in comparison.sizes if comparison.group(method, size)]
    sentences = [
        _beyond_counts(comparison, method, sizes[0]),
        _worth(comparison, method, sizes[0], unit),
        _against_rivals(comparison, method, sizes, unit),
    ]
    best = rival(comparison, sizes[0])
    for other in dict.fromkeys((random_start(comparison, method), best)):
        if other is not None:
            sentences += _crossing(comparison, method, other, unit)
    return [sentence for sentence in sentences if sentence]


def _beyond_counts(comparison: Comparison, method: str, size: int | None) -> str:
    """How much of the gain stands already in the counts that pretraining began from, and what training adds to it."""
    added, start = comparison.difference(method, COUNTS, size), random_start(comparison, method)
    if added is None:
        return ""
    counts = comparison.difference(COUNTS, start, size) if start is not None else None
    already = f" {signed(comparison, counts.mean, unit=True)} without one step of training;" if counts else ""
    sentence = f"Counting which tokens stand side by side gives{already} the training after it changes that by"
    unclear = ": no clear difference" if added.low is not None and added.sign == 0 else ""
    return f"{sentence} {signed(comparison, added.mean, unit=True)} ({interval(comparison, added)}){unclear}."


def _worth(comparison: Comparison, method: str, size: int | None, unit: str) -> str:
    """How many labels the random start needs for what the pretrained model does with the fewest."""
    ours, other = comparison.estimate(method, size), random_start(comparison, method)
    curve = comparison.curve(other) if other is not None else {}
    if ours is None or size is None or len(curve) < 2 or size not in curve:
        return ""
    if comparison.better * (ours.mean - curve[size]) <= 0:
        return ""
    needed = size_to_reach(curve, ours.mean, comparison.better)
    if needed is None:
        few = f"what {size:,} reach with pretraining"
        return f"From a random start, even {max(curve):,} labelled {unit} do not reach {few}."
    if needed < 1.15 * size:
        return ""
    return (
        f"From a random start, the same network needs about {about(needed)} labelled {unit} to be as good: "
        f"{needed / size:.1f} times as many."
    )


def _against_rivals(comparison: Comparison, method: str, sizes: list[int | None], unit: str) -> str:
    """How the pretrained model stands to the best simple method of each size."""
    verdicts, names = [], []
    for size in sizes:
        best = rival(comparison, size)
        found = comparison.difference(method, best, size) if best is not None else None
        if best is None or found is None:
            continue
        names.append(best)
        gap = signed(comparison, abs(found.mean), unit=True).lstrip("+")
        ahead = found.mean * comparison.better > 0
        level = found.low is not None and found.sign == 0
        verdict = "level (no clear difference)" if level else f"{gap} {'better' if ahead else 'worse'}"
        verdicts.append(f"{verdict} with {'all' if size is None else f'{size:,}'}")
    if not names:
        return ""
    if len(set(names)) > 1:
        verdicts = [f"{verdict} ({name})" for verdict, name in zip(verdicts, names, strict=True)]
        return f"Against the best simple method, the pretrained model is, by labelled {unit}, {listed(verdicts)}."
    sentence = f"Against the best simple method ({names[0]}), the pretrained model is {listed(verdicts)}"
    return f"{sentence} labelled {unit}."


def _crossing(comparison: Comparison, method: str, other: str, unit: str) -> list[str]:
    ours, theirs = comparison.curve(method), comparison.curve(other)
    sentences = []
    for place in crossings(ours, theirs):
        after = min(size for size in set(ours) & set(theirs) if size > place)
        leader = "the pretrained model" if comparison.better * (ours[after] - theirs[after]) > 0 else _named(other)
        sentences.append(
            f"The curves of the pretrained model and {_named(other)} cross at about {about(place)} labelled {unit}; "
            f"from there on {leader} is ahead."
        )
    return sentences


def listed(items: Sequence[str]) -> str:
    """a, b and c"""
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + " and " + items[-1]


def _named(method: str) -> str:
    return {RANDOM_START: "a random start", PRETRAINED: "the pretrained model"}.get(method, method)


def _labels(size: int | None, unit: str) -> str:
    return f"all labelled {unit}" if size is None else f"{size:,} labelled {unit}"
