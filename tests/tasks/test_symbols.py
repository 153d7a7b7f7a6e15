"""A text model on foreign sequences: from the words that symbols become to the table and the kept model."""

import json
import shlex

import numpy as np
import pytest
from transformers import AutoTokenizer

from pluri.checkpoints.huggingface import load_model, save_model
from pluri.errors import DataError, UsageError
from pluri.models.config import preset
from pluri.models.heads import Model
from pluri.run.finetune import FinetuneConfig, finetune
from pluri.run.predict import predict
from pluri.tasks.compare import OWN, PLACES, PRETRAINED, RANDOM_START, RESET
from pluri.tasks.fit import with_new_head
from pluri.tasks.task import define_task
from pluri.tokens.symbols import meanings, random_words
from pluri.tokens.training import train_tokenizer


def test_each_letter_becomes_a_word_of_the_model(tokenizer):
    drawn = [random_words(tokenizer, ["ACGT", "acgn"], seed) for seed in range(20)]
    for symbols in drawn:
        ids = symbols.encode_kmers("ACGTURYKMSWBDHVN-")
        assert len(set(ids.tolist())) == 16  # U is T
        assert not np.isin(ids, tokenizer.special_ids).any()
        assert not tokenizer.continues_word[ids].any()
        roles = ("pad_id", "unk_id", "cls_id", "sep_id", "mask_id")
        assert [getattr(symbols, role) for role in roles] == [getattr(tokenizer, role) for role in roles]
    assert len({symbols.encode_kmers("A")[0] for symbols in drawn}) > 5
    again = random_words(tokenizer, ["GATTACA"], 3)
    assert again.hash == drawn[3].hash
    assert meanings(again, tokenizer)["A"] == tokenizer.tokens(again.encode_kmers("A"))[0]


@pytest.mark.parametrize(
    ("texts", "text", "tokens"),
    [
        (["n60 d4 n61"], "n61 n60 n62", ["n61", "n60", "[UNK]"]),
        (["x=!Ü"], "=xÜy", ["=", "x", "Ü", "[UNK]"]),
        (["MKV"], "mkvu?", ["M", "K", "V", "U", "[UNK]"]),
    ],
)
def test_symbols_are_words_characters_or_letters(tokenizer, tmp_path, texts, text, tokens):
    symbols = random_words(tokenizer, texts, 0)
    (encoding,) = symbols.encode_batch([text])
    assert encoding.tokens == tokens
    symbols.save(tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    spelled = " ".join(text.upper()) if symbols.kmer else text
    assert theirs(spelled)["input_ids"] == [symbols.cls_id, *encoding.ids, symbols.sep_id]


def test_more_symbols_than_words(tokenizer):
    with pytest.raises(UsageError, match=r"symbols: the model's vocabulary has .* words for 500 symbols"):
        random_words(tokenizer, [" ".join(f"w{i}" for i in range(500))], 0)


def test_reset_embeddings_leave_the_body(small, made):
    task = define_task("classify", made.classified(20, 1))
    reset, random = (with_new_head(small, task, 5, fresh=fresh) for fresh in ("embeddings", True))
    ours = small.state_dict()
    for name, tensor in reset.state_dict().items():
        known = name in ours and "embeddings.tokens" not in name
        assert tensor.equal(ours[name] if known else random.state_dict()[name]), name


def test_a_table_with_its_own_pretraining_and_a_folder_that_predicts(tmp_path, small, tokenizer, made):
    pytest.importorskip("sklearn")
    save_model(tmp_path / "text", small, tokenizer)
    letters = np.array(list("ACGT"))
    files = {}
    for part, count in {"train": 40, "validation": 16, "test": 16}.items():
        rows = [letters[np.random.default_rng([count, i]).integers(0, 4, 30)] for i in range(count)]
        lines = [f"{''.join(row)},{'yes' if row[3] in 'AC' else 'no'}" for row in rows]
        files[part] = str(tmp_path / f"{part}.csv")
        (tmp_path / f"{part}.csv").write_text("\n".join(["text,label", *lines]))
    (tmp_path / "g.fa").write_text(">g\nACGT\n")
    dna = train_tokenizer(tmp_path / "g.fa", kind="dna")
    config = preset("bert", "tiny", vocab_size=dna.vocab_size, max_length=48, hidden_size=16, num_heads=2)
    save_model(tmp_path / "dna", Model(config, {"masked": dna.vocab_size}), dna)
    settings = {"task": "classify", "model": str(tmp_path / "text"), "output": str(tmp_path / "out"), **files}
    settings |= {"symbols": "random words", "own": str(tmp_path / "dna"), "seeds": 2, "min_steps": 3, "epochs": 0.1}
    settings |= {"reverse_complement": True, "class_weights": {"yes": 1.0, "no": 2.0}}
    results = finetune(FinetuneConfig.parse(settings), progress=False)
    words = shlex.split(results.command)[2:]
    said = [b if a == "--set" else f"{a[2:]}={b}" for a, b in zip(words[::2], words[1::2], strict=True)]
    assert FinetuneConfig.load(None, said) == FinetuneConfig.parse(settings)
    methods = dict.fromkeys(row["method"] for row in results.rows)
    assert list(methods)[:4] == [PRETRAINED, OWN, RESET, RANDOM_START]
    assert PLACES in methods
    (note,) = (note for note in results.notes if note.startswith("each symbol"))
    assert "A = '" in note
    _, kept = load_model(tmp_path / "out")
    assert kept.alphabet is not None
    (tmp_path / "new.fa").write_text(">one\nACGTTAGCNN\n")
    assert predict(tmp_path / "out", str(tmp_path / "new.fa"), tmp_path / "said.jsonl") == 1
    assert json.loads((tmp_path / "said.jsonl").read_text())["id"] == "one"
    (tmp_path / "new.fa").write_text(">one\nMKVLE\n")
    with pytest.raises(DataError, match=r"new\.fa:1: 'L' is no letter of DNA"):
        predict(tmp_path / "out", str(tmp_path / "new.fa"), tmp_path / "said.jsonl")
