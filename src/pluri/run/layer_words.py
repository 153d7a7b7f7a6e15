"""Pseudo-words in each layer: two words of the corpus written as one, and whether what is around them tells which.

Legend: n occurrences, L layers (the embedding and each layer), D width, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from pluri.inference.embeddings import batches_of, checked_length, frame, on_device
from pluri.inference.word_vectors import word_vectors
from pluri.models.heads import Model
from pluri.run.corpus import Corpus, is_word
from pluri.tasks.intervals import Interval, draws, percentiles
from pluri.tasks.pseudo_words import balanced, paired, told_apart
from pluri.tasks.static import StaticVectors
from pluri.tokens.tokenizer import Tokenizer

_PAIRS, _FEWEST, _MOST = 40, 10, 25  # pairs, and occurrences of each word of one


@dataclass(frozen=True, slots=True)
class Occurrence:
    """A sentence, and the characters [start, end) where one of the two words of a pair stands, the second or not."""

    pair: int
    second: bool
    sentence: str
    start: int
    end: int

    def written(self, word: str) -> str:
        """The sentence with another word there."""
        return f"{self.sentence[: self.start]}{word}{self.sentence[self.end :]}"


@dataclass(frozen=True, slots=True)
class PseudoWords:
    """pairs: the words that are one each. occurrences: as many of either word of a pair, one a sentence."""

    pairs: list[tuple[str, str]]
    occurrences: list[Occurrence]

    @classmethod
    def of(cls, sentences: Sequence[str], corpus: Corpus, seed: int) -> "PseudoWords":
        """Words in at least 10 sentences, paired by frequency: 40 pairs at most, drawn by chance."""
        spots: dict[str, dict[int, list[tuple[int, int]]]] = {}
        for i, sentence in enumerate(sentences):
            for name, span in corpus.words(sentence):
                if is_word(name) and not any(character.isdigit() for character in name):
                    spots.setdefault(name.lower(), {}).setdefault(i, []).append(span)
        drawn = paired({name: len(own) for name, own in spots.items()}, _FEWEST, _PAIRS, seed)
        pairs: list[tuple[str, str]] = []
        found: list[Occurrence] = []
        for a, b in drawn:
            once = [
                [i for i, spans in spots[word].items() if len(spans) == 1 and i not in spots[other]]
                for word, other in ((a, b), (b, a))
            ]
            sides = balanced(once[0], once[1], _MOST)
            if len(sides[0]) >= _FEWEST // 2:
                for word, second, side in ((a, False, sides[0]), (b, True, sides[1])):
                    found += [Occurrence(len(pairs), second, sentences[i], *spots[word][i][0]) for i in side]
                pairs.append((a, b))
        return cls(pairs, found)

    def name(self, occurrence: Occurrence) -> str:
        """The artificial word: both, one after the other."""
        return "".join(self.pairs[occurrence.pair])

    def tokenized(self, corpus: Corpus) -> list[list[str]]:
        """The words of each sentence, the artificial one as one word: what static vectors learn from."""
        found = []
        for each in self.occurrences:
            before, after = (corpus.words(part) for part in (each.sentence[: each.start], each.sentence[each.end :]))
            found.append([name.lower() for name, _ in before] + [self.name(each)] + [name.lower() for name, _ in after])
        return found

    def score(self, vectors: NDArray[np.float32], known: NDArray[np.bool_]) -> Interval | None:
        """The mean over pairs of the share that is told apart, and its interval over pairs. vectors: (n, D).

        known: (n,), of which occurrences there is a vector; what leaves too few of a pair is left out.
        """
        pair = np.array([each.pair for each in self.occurrences])
        second = np.array([each.second for each in self.occurrences])
        shares = []
        for p in range(len(self.pairs)):
            sides = [np.flatnonzero(known & (pair == p) & (second == side)).tolist() for side in (False, True)]
            first, last = balanced(sides[0], sides[1], _MOST)
            if len(first) >= _FEWEST // 2:
                shares.append(told_apart(vectors[first + last], second[first + last]))
        return mean_interval(shares)


def mean_interval(values: Sequence[float]) -> Interval | None:
    if not len(values):
        return None
    each = np.array(values, np.float64)
    return percentiles(float(each.mean()), draws(len(each)) @ each / len(each))


def by_vectors(model: Model, tokenizer: Tokenizer, corpus: Corpus, words: PseudoWords) -> list[Interval | None]:
    """Of each layer, how well its vectors of the artificial words tell apart what stood there."""
    texts = [each.written(words.name(each)) for each in words.occurrences]
    runs = []  # which words of its sentence the artificial one is: several characters in scripts without spaces
    for each, text in zip(words.occurrences, texts, strict=True):
        end = each.start + len(words.name(each))
        runs.append([k for k, (_, (s, e)) in enumerate(corpus.words(text)) if s >= each.start and e <= end])
    vectors = np.zeros((model.config.num_layers + 1, len(texts), model.config.hidden_size), np.float32)
    known = np.zeros(len(texts), bool)
    for chunk in word_vectors(model, tokenizer, map(corpus.read, texts)):
        for text in map(int, np.unique(chunk.text)):
            rows = np.flatnonzero((chunk.text == text) & np.isin(chunk.place, runs[text]))
            if len(rows) and len(rows) == len(runs[text]):
                vectors[:, text], known[text] = chunk.vectors[:, rows].mean(1), True
    return [words.score(layer, known) for layer in vectors]


def by_static(vectors: StaticVectors, words: PseudoWords) -> Interval | None:
    """The same with static vectors, of which an artificial word has one: chance, whatever they are."""
    rows = vectors.of([words.name(each) for each in words.occurrences])
    return words.score(vectors.vectors[rows], rows > 0)


@torch.inference_mode()
def by_prediction(
    model: Model, tokenizer: Tokenizer, words: PseudoWords
) -> tuple[Interval | None, Interval | None, int]:
    """What a model with masked tokens predicts where the artificial word stands.

    Returns the share of occurrences where the true word is likelier than the other, the mean probability of the true
    one if it is one of the two, each the mean over pairs, and the number of pairs. Only pairs of which both words are
    one piece wherever they stand can be asked.
    """
    length, mask = checked_length(model, tokenizer, None), tokenizer.mask_id
    assert mask is not None
    before, after = frame(tokenizer)
    asked: list[tuple[Occurrence, list[int], int, list[int]]] = []  # with its ids, the masked place, the two pieces
    for each in words.occurrences:
        pair = words.pairs[each.pair]
        encodings = tokenizer.encode_batch([each.written(word) for word in pair])
        places = [
            [k for k, (s, e) in enumerate(encoding.offsets) if e > each.start and s < each.start + len(word)]
            for encoding, word in zip(encodings, pair, strict=True)
        ]
        if all(len(place) == 1 for place in places) and places[0] == places[1]:
            at, ids = places[0][0], list(encodings[0].ids)
            pieces = [encoding.ids[at] for encoding in encodings]
            if pieces[0] != pieces[1] and at + len(before) + len(after) < length:
                ids[at] = mask
                asked.append((each, [*before, *ids[: length - len(before) - len(after)], *after], at, pieces))
    model = on_device(model, "auto")
    probability = np.zeros(len(asked))
    pieces = [np.array(ids, np.int64) for _, ids, _, _ in asked]
    for index, batch in batches_of(pieces, model) if asked else ():
        places = torch.tensor([asked[i][2] + len(before) for i in index], device=batch.starts.device)
        logits = model.outputs("masked", model.hidden(batch), batch, batch.starts + places).float()  # (n, V)
        two = logits.gather(1, torch.tensor([asked[i][3] for i in index], device=logits.device)).softmax(1)
        true = torch.tensor([int(asked[i][0].second) for i in index], device=two.device)
        probability[index] = two.gather(1, true[:, None])[:, 0].cpu().numpy()
    pair = np.array([each.pair for each, _, _, _ in asked], np.int64)
    own = [probability[pair == p] for p in range(len(words.pairs)) if (pair == p).sum() >= _FEWEST]
    hits = [float(np.where(each == 0.5, 0.5, each > 0.5).mean()) for each in own]
    return mean_interval(hits), mean_interval([float(each.mean()) for each in own]), len(own)
