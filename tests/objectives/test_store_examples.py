"""From a store to training sequences: nothing lost, pairs balanced, each sequence a pure function of its number."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pluri.batches.example import IGNORE, Examples
from pluri.errors import UsageError
from pluri.objectives import pairs
from pluri.objectives.config import ObjectiveConfig
from pluri.objectives.pieces import Cut, cut_at_sentences
from pluri.objectives.store_examples import StoreExamples
from pluri.sequences.alphabets import DNA
from pluri.tokens.prepare import prepare
from pluri.tokens.training import train_tokenizer

CLS, SEP, MASK = 2, 3, 4
CONFIGS = [{}] + [{"pair": pair, "masked": masked} for pair in ("nsp", "sop") for masked in (True, False)]


def source(store: Any, length: int = 64, seed: int = 0, documents: Any = None, **config) -> StoreExamples:
    return StoreExamples(store, ObjectiveConfig(**config), length=length, seed=seed, documents=documents)


def everything(made: StoreExamples, epoch: int = 0) -> Examples:
    index = np.arange(len(made))
    return made.examples(index, np.full_like(index, epoch))


def sequences(examples: Examples) -> list[tuple[Any, ...]]:
    """The whole content of each example."""
    spans = [slice(a, b) for a, b in zip(examples.offsets[:-1], examples.offsets[1:], strict=True)]
    arrays = (examples.input_ids, examples.labels, examples.token_type_ids)
    classes = [None] * len(spans) if examples.sequence_labels is None else examples.sequence_labels.tolist()
    parts = [tuple(None if each is None else each[span].tolist() for each in arrays) for span in spans]
    return [(*part, label) for part, label in zip(parts, classes, strict=True)]


def parts(example: tuple[Any, ...]) -> tuple[list[int], list[int]]:
    """The two parts of an uncorrupted example, the second one empty if there is none; checks the frame."""
    ids, _, types, label = example
    seps = [i for i, each in enumerate(ids) if each == SEP]
    assert ids[0] == CLS
    assert ids[-1] == SEP
    assert len(seps) == (1 if label == IGNORE else 2)
    assert types == [0] * (seps[0] + 1) + [1] * (len(ids) - seps[0] - 1)
    return ids[1 : seps[0]], ids[seps[0] + 1 : -1]


def ids_of(store: Any, document: int) -> list[int]:
    return store.ids[store.offsets[document] : store.offsets[document + 1]].tolist()


def documents_of(made: StoreExamples) -> list[int]:
    return made._pieces.take(np.arange(len(made))).documents.tolist()


@pytest.mark.parametrize("cutter", [Cut, cut_at_sentences])
@given(lengths=st.lists(st.integers(0, 90), min_size=1, max_size=12), room=st.integers(1, 40))
def test_pieces_cover_every_token_once(make_store, cutter: Any, lengths: list[int], room: int):
    store = make_store(lengths)
    made = cutter(store, np.arange(len(lengths)), room)
    pieces = made.take(np.arange(len(made)))
    assert made.mean_length == pytest.approx(sum(lengths) / max(len(made), 1))
    assert made.borders(np.arange(len(lengths) + 1)).tolist() == [
        np.count_nonzero(pieces.documents < document) for document in range(len(lengths) + 1)
    ]
    assert pieces.lengths.max(initial=1) <= room
    assert pieces.lengths.min(initial=1) >= 1
    found = store.gather(pieces.documents, pieces.starts, pieces.lengths)
    assert np.array_equal(found.ids, store.ids)


def test_pieces_end_at_sentences_unless_one_is_too_long(store):
    pieces = cut_at_sentences(store, np.arange(store.num_documents), 30)
    assert pieces.lengths.mean() > 15
    for document, start, length in zip(pieces.documents, pieces.starts, pieces.lengths, strict=True):
        ids = ids_of(store, document)
        ends = [i + 1 for i, each in enumerate(ids) if each < 12] + [len(ids)]
        fitting = [end for end in ends if start < end <= start + 30]
        assert start + length == (max(fitting) if fitting else start + 30)


def test_masked_sequences_hold_the_text(store):
    made = source(store)
    examples = everything(made)
    assert examples.labels is not None
    assert examples.lengths.max() == 64
    assert made.mean_length == pytest.approx(examples.lengths.mean())
    truth = np.where(examples.labels == IGNORE, examples.input_ids, examples.labels)
    assert np.array_equal(truth[truth >= 5], store.ids)
    assert np.all(truth[examples.offsets[:-1]] == CLS)
    assert np.all(truth[examples.offsets[1:] - 1] == SEP)
    assert examples.token_type_ids is None
    assert examples.sequence_labels is None


@pytest.mark.parametrize("config", CONFIGS)
@given(data=st.data())
def test_an_example_does_not_depend_on_its_group(store, config: dict[str, Any], data: st.DataObject):
    made = source(store, **config)
    chosen = st.lists(st.tuples(st.integers(0, len(made) - 1), st.integers(0, 2)), min_size=1, max_size=12)
    index, epoch = np.array(data.draw(chosen)).T
    together = sequences(made.examples(index, epoch))
    alone = [sequences(made.examples(index[i : i + 1], epoch[i : i + 1]))[0] for i in range(len(index))]
    assert together == alone


@pytest.mark.parametrize("config", CONFIGS)
def test_epochs_and_seeds_differ(store, config: dict[str, Any]):
    made = source(store, **config)
    assert sequences(everything(made)) == sequences(everything(source(store, **config)))
    assert sequences(everything(made)) != sequences(everything(made, epoch=1))
    assert sequences(everything(made)) != sequences(everything(source(store, seed=1, **config)))


def test_sop_parts_are_neighbours_in_or_out_of_order(store):
    made = source(store, masked=False, pair="sop")
    for example, document in zip(sequences(everything(made)), documents_of(made), strict=True):
        first, second = parts(example)
        label = example[-1]
        if label == IGNORE:
            assert second == []
            continue
        before, after = (second, first) if label == 1 else (first, second)
        text = " ".join(map(str, ids_of(store, document)))
        assert " ".join(map(str, before + after)) in text
        assert before[-1] < 12  # a sentence ends there


def test_nsp_second_part_follows_or_is_from_another_document(store):
    made = source(store, masked=False, pair="nsp")
    everywhere = [" ".join(map(str, ids_of(store, d))) for d in range(store.num_documents)]
    for example, document in zip(sequences(everything(made)), documents_of(made), strict=True):
        first, second = parts(example)
        label = example[-1]
        if label == IGNORE:
            assert second == []
            continue
        assert first[-1] < 12
        own = " ".join(map(str, first + second)) in everywhere[document]
        assert own == (label == 0) or len(second) < 5  # a short part may by chance be spelled like the true one
        if label == 1 and len(second) > 4:
            homes = {d for d, text in enumerate(everywhere) if " ".join(map(str, second)) in text}
            assert homes
            assert document not in homes


@pytest.mark.parametrize("pair", ["nsp", "sop"])
def test_pairs_are_balanced(store, pair: str):
    made = source(store, masked=False, pair=pair)
    labels = np.array([label for epoch in range(8) for *_, label in sequences(everything(made, epoch))])
    labels = labels[labels != IGNORE]
    assert len(labels) > 3000
    assert abs(labels.sum() - len(labels) / 2) < 2.5 * np.sqrt(len(labels))  # five standard deviations


@pytest.mark.parametrize("length", [64, 512])
def test_lengths_say_nothing_of_nsp(make_store, length: int, monkeypatch: pytest.MonkeyPatch):
    """Whatever the coin says of true or random, the same pair of lengths comes out: no guess by lengths beats it."""
    store = make_store(np.random.default_rng(2).lognormal(4.6, 0.8, 2000).astype(int).tolist())
    made = source(store, length=length, masked=False, pair="nsp")
    draw, found = pairs.uniform, []
    for coin in (0.0, 0.9):
        monkeypatch.setattr(pairs, "uniform", lambda k, c, coin=coin: coin + 0 * draw(k, c) if c == 1 else draw(k, c))
        found.append(everything(made))
    random, true = found
    assert random.sequence_labels is not None
    assert true.sequence_labels is not None
    known = np.asarray(true.sequence_labels != IGNORE)
    assert known.mean() > 0.6
    assert set(true.sequence_labels[known]) == {0}
    assert set(random.sequence_labels[known]) == {1}
    assert np.array_equal(true.offsets, random.offsets)
    assert true.token_type_ids is not None
    assert random.token_type_ids is not None
    assert np.array_equal(true.token_type_ids, random.token_type_ids)
    assert not np.array_equal(true.input_ids, random.input_ids)


def test_masks_and_pairs_are_drawn_together(store):
    examples = everything(source(store, pair="sop"))
    assert examples.labels is not None
    assert examples.sequence_labels is not None
    rate = (examples.labels != IGNORE).sum() / store.ids.size
    assert 0.14 < rate < 0.17


def test_documents_are_a_part_of_the_store(store):
    whole, half = source(store), source(store, documents=np.arange(0, 300, 2))
    assert 0 < len(half) < len(whole)
    examples = everything(source(store, masked=False, pair="nsp", documents=np.arange(0, 300, 2)))
    odd = {tuple(ids_of(store, d)[-5:]) for d in range(1, 300, 2) if len(ids_of(store, d)) > 20}
    assert not odd & {tuple(ids[-6:-1]) for ids, *_ in sequences(examples)}


def test_a_store_on_disk_gives_what_its_text_says(tmp_path: Path):
    lines = ["The cat sat. It slept all day. Then it ate.", "Dogs bark. They run far.", "One sentence only"]
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("\n".join(lines), encoding="utf-8")
    store = prepare([corpus], train_tokenizer([corpus], kind="char"), tmp_path / "store", workers=1)
    made = source(store, length=64, masked=False, pair="sop")
    whole = {}
    for ids, _, types, label in sequences(everything(made)):
        first = store.tokenizer.decode([i for i, t in zip(ids, types, strict=True) if t == 0]).strip()
        second = store.tokenizer.decode([i for i, t in zip(ids, types, strict=True) if t == 1]).strip()
        whole[f"{second} {first}" if label == 1 else f"{first} {second}".strip()] = label
    assert set(whole) == set(lines)
    assert whole[lines[2]] == IGNORE
    assert IGNORE not in (whole[lines[0]], whole[lines[1]])


def test_impossible_sources_are_refused(make_store):
    with pytest.raises(UsageError, match="leaves no room"):
        source(make_store([10]), length=2)
    alone = everything(source(make_store([100]), masked=False, pair="nsp"))  # no other document to take a part from
    assert np.all(alone.sequence_labels == np.int64(IGNORE))
    assert len(source(make_store([0]))) == 0


def test_either_strand_by_the_sequences_key(tmp_path):
    """With masking all but off: what is read is the sequence, or its reverse complement; k-mers, too."""
    texts = ["ACGTTGCANNRY"[i % 5 :] + "GATTACA" for i in range(60)]
    (tmp_path / "g.fa").write_text("".join(f">{i}\n{text}\n" for i, text in enumerate(texts)))
    kinds: Any = (("dna", 1), ("kmer", 3))
    for kind, k in kinds:
        tokenizer = train_tokenizer(tmp_path / "g.fa", kind=kind, k=k)
        store = prepare(tmp_path / "g.fa", tokenizer, tmp_path / kind, workers=1)
        config = ObjectiveConfig(reverse_complement=True, mask=0.0, random=0.0)
        source = StoreExamples(store, config, length=64, seed=3)
        made = [source.examples(np.arange(60), np.full(60, epoch)) for epoch in (0, 0, 1)]
        assert made[0].input_ids.tolist() == made[1].input_ids.tolist() != made[2].input_ids.tolist()
        turned = 0
        for i, text in enumerate(texts):
            ids = made[0].input_ids[made[0].offsets[i] + 1 : made[0].offsets[i + 1] - 1].tolist()
            forward, other = (tokenizer.encode_kmers(t).tolist() for t in (text, DNA.reverse_complement(text)))
            assert ids in (forward, other)
            turned += ids == other
        assert 15 < turned < 45
    (tmp_path / "t.txt").write_text("some text")
    text = prepare(tmp_path / "t.txt", train_tokenizer(tmp_path / "t.txt", kind="char"), tmp_path / "t", workers=1)
    with pytest.raises(UsageError, match="reverse_complement: only DNA has another strand"):
        StoreExamples(text, config, length=9, seed=0)
