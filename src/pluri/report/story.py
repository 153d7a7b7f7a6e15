"""What was done, in plain words for a reader who knows neither the language of the data nor machine learning."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pluri.report.comparison import Comparison, Estimate
from pluri.report.loss import count_of, held_out, loss_key, settled
from pluri.report.words import (
    COUNTS,
    TASKS,
    Headline,
    count,
    headline,
    listed,
    pretrained_method,
    random_start,
    signed,
    size_to_reach,
)
from pluri.run.folder import Journal, Results, number

Journals = Sequence[tuple[str, Journal]]


def pretraining_headline(journals: Sequence[Journal]) -> Headline:
    """The headline of a run that only pretrained: how much better it guesses than by frequency alone."""
    journal = next((j for j in journals if j.pretraining and j.steps), None)
    losses = [] if journal is None else _losses(journal)
    if journal is None or not losses:
        return Headline("What went in, and where every token went" if not journals else "Training, step by step")
    entropy, unseen = journal.unigram_entropy, held_out(journal)
    last, measured = (settled(losses), "") if unseen is None else (unseen, " on held-out text")
    read = f"After {count(journal.last('tokens') or 0)} tokens"
    minutes = journal.last("seconds")
    if minutes is not None:
        read += f" in {minutes / 60:.1f} minutes"
    if entropy is None:
        return Headline(f"{read}, the model guesses hidden tokens with a loss of {last:.2f} nats")
    evidence = f"loss {last:.2f} nats{measured}, against {entropy:.2f} from frequencies alone"
    if last < 0.97 * entropy:
        guesses = f"as if among {count_of(last)} equally likely ones, not {count_of(entropy)}"
        claim = f"{read}, the model guesses a hidden token {guesses}"
        return Headline(claim, evidence, "better")
    return Headline(f"{read}, the model has not yet learned more than how frequent each token is", evidence, "worse")


def _losses(journal: Journal) -> list[float]:
    return [loss for step in journal.steps if (loss := number(step.get(loss_key(journal)))) is not None]


def tiles(
    results: Sequence[Results], journals: Journals, compared: Sequence[Comparison], unit: str
) -> list[dict[str, str]]:
    """The few numbers that stand out, largest first."""
    found = []
    comparison = next((c for c in compared if headline(c, unit).verdict != "none"), None)
    method = pretrained_method(comparison) if comparison else None
    other = random_start(comparison, method) if comparison is not None and method is not None else None
    if comparison is not None and method is not None and other is not None:
        size = next((s for s in comparison.sizes if comparison.difference(method, other, s)), None)
        gain = comparison.difference(method, other, size)
        if gain is not None:
            points = "points" if comparison.percent else ""
            at = "" if size is None else f" at {size:,} labels"
            parts, trained = [("pretraining", gain)], comparison.difference(method, COUNTS, size)
            if trained is not None:
                parts = [("counting and training", gain), ("the training alone", trained)]
            for by, part in parts:
                label = _gained(part, comparison, by) + at
                found.append({"value": signed(comparison, part.mean), "unit": points, "label": label})
        ours, curve = comparison.estimate(method, size), comparison.curve(other)
        needed = size_to_reach(curve, ours.mean, comparison.better) if ours is not None else None
        if needed and size and needed >= 1.15 * size:
            found.append(
                {"value": f"{needed / size:.1f}×", "unit": "", "label": "as many labels needed from a random start"}
            )
    minutes = sum(result.minutes for result in results if result.minutes is not None)
    if minutes:
        found.append({"value": f"{minutes:.1f}", "unit": "minutes", "label": "for all of it, start to end"})
    tokens = sum(journal.last("tokens") or 0 for _, journal in journals if journal.pretraining)
    if tokens:
        value, _, unit_of_count = count(tokens).partition(" ")
        found.append({"value": value, "unit": unit_of_count, "label": "tokens read, none labelled"})
    return found


def _gained(gain: Estimate, comparison: Comparison, by: str) -> str:
    if gain.low is not None and gain.sign == 0:
        return f"by {by}, no clear difference,"
    return f"{'gained' if gain.mean * comparison.better > 0 else 'lost'} by {by}"


def steps(
    manifests: Iterable[Mapping[str, Any]],
    journals: Journals,
    compared: Sequence[Comparison],
    unit: str,
    *,
    noted: bool = False,
) -> list[dict[str, str]]:
    """The numbered steps of the work; only those that were done. noted: the results carry notes that limit them."""
    pretraining = [journal for _, journal in journals if journal.pretraining]
    counted = any(COUNTS in comparison.methods for comparison in compared)
    found = [_raw(manifests), _blanks(pretraining, counted), _labels(compared, unit), _judged(compared, noted)]
    return [step for step in found if step is not None]


def _raw(manifests: Iterable[Mapping[str, Any]]) -> dict[str, str] | None:
    ledgers = [manifest["ledger"] for manifest in manifests]
    kept = sum(number(ledger.get("kept")) or 0 for ledger in ledgers)
    documents = sum(number(ledger.get("documents")) or 0 for ledger in ledgers)
    if not kept:
        return None
    source = f"{count(documents)} documents, {count(kept)} tokens" if documents else f"{count(kept)} tokens"
    text = f"{source}. Nobody labelled them. A token is a small piece: a character, a part of a word, or a word."
    return {"name": "Take raw sequences", "text": text}


def _blanks(journals: Sequence[Journal], counted: bool) -> dict[str, str] | None:
    """counted: training did not begin by chance, and the results tell what that alone is worth."""
    if not journals:
        return None
    journal = journals[0]
    objective = journal.config.get("objective")
    rate = number(objective.get("mlm_probability")) if isinstance(objective, Mapping) else None
    part = f"{100 * rate:.0f}% of the tokens" if rate else "some of the tokens"
    tokens, seconds = journal.last("tokens"), journal.last("seconds")
    weights = number(journal.start.get("parameters"))
    network = f"a neural network with {count(weights)} weights" if weights else "a neural network"
    text = f"Pretraining: {part} are hidden, and {network} learns to guess them from what stands around."
    if tokens:
        text += f" It read {count(tokens)} tokens" + (f" in {seconds / 60:.1f} minutes." if seconds else ".")
    if counted:
        text += " Before the first step, its embeddings were filled from counts of which tokens stand side by side."
    return {"name": "Fill in blanks", "text": text}


def _labels(compared: Sequence[Comparison], unit: str) -> dict[str, str] | None:
    if not compared:
        return None
    parts = (task.partition(" on ") for task in dict.fromkeys(comparison.task for comparison in compared))
    tasks = [f"{TASKS.get(task, task)}{on}{test}" for task, on, test in parts]
    sizes = sorted({size for comparison in compared for size in comparison.counts})
    if all(comparison.prompted for comparison in compared):
        amount = f"{listed([f'{size:,}' for size in sizes])} labelled {unit}"
        text = f"Prompting: the task was put into words, behind {amount}. Nothing was trained."
        return {"name": "Read a few examples", "text": text}
    amount = f"{listed([f'{size:,}' for size in sizes])} labelled {unit}" if sizes else f"labelled {unit}"
    return {
        "name": "Learn from a few labels",
        "text": f"Fine-tuning: the network then learned {listed(tasks)}, from only {amount}.",
    }


def _judged(compared: Sequence[Comparison], noted: bool) -> dict[str, str] | None:
    if not compared:
        return None
    judged = "on the same examples (see the notes below the results)" if noted else "on examples that none had seen"
    text = f"Every method learned from the same labels and was judged {judged}. {_times(compared)}"
    return {"name": "Judge fairly", "text": text}


def _times(compared: Sequence[Comparison]) -> str:
    """How often it was done with other draws of labels: of each size by itself where they differ."""
    times: dict[int | None, int] = {}
    for comparison in compared:
        for size in comparison.sizes:
            seeds = [{row.seed for row in comparison.group(method, size)} for method in comparison.methods]
            done = min(len(found) for found in seeds if found)
            times[size] = min(done, times.get(size, done))
    if len(set(times.values())) > 1:
        parts = [f"{_once(done)} with {'all' if size is None else f'{size:,}'} labels" for size, done in times.items()]
        return f"It was done {listed(parts)}, each time with another draw."
    done = max(times.values())
    draws = ", each time with another draw of labels" if done > 1 else ""
    return f"All of it was done {_once(done)}{draws}."


def _once(times: int) -> str:
    return "once" if times == 1 else "twice" if times == 2 else f"{times} times"
