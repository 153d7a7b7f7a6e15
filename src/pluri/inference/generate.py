"""Going on with texts: a causal model writes what follows a prompt."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pluri.checkpoints.huggingface import load_model
from pluri.errors import UsageError
from pluri.inference.int8 import Int8Model
from pluri.inference.search import Generation, Stopped, beam_search, sample
from pluri.inference.steps import CausalSteps
from pluri.models.heads import Model
from pluri.runtime import Keys, keep_freed_memory, pick_device, pick_dtype, sequence_keys
from pluri.tokens.template import before_text
from pluri.tokens.tokenizer import Tokenizer

_CACHED_TOKENS = 16384  # of the rows that are written at the same time: 1.2 GB at GPT-2's smallest size
_PARTIAL = "\ufffd"  # what a byte-level tokenizer decodes the first bytes of a character to


def generate(
    prompts: str | Sequence[str], folder: str | Path, *, int8: bool = False, **settings: Any
) -> list[dict[str, Any]]:
    """As `generate_texts`, with the model of a folder. settings: the fields of `Generation`.

    int8: with weights in 8 bits, on a CPU: faster, and nearly the same.
    """
    model, tokenizer = _opened(folder, int8)
    return generate_texts(model, tokenizer, [prompts] if isinstance(prompts, str) else prompts, **settings)


def stream(prompt: str, folder: str | Path, *, int8: bool = False, **settings: Any) -> Iterator[str]:
    """The text of `generate`, piece by piece as it is written. settings: the fields of `Generation`, but for beams."""
    model, tokenizer = _opened(folder, int8)
    return (piece for _, piece in stream_texts(model, tokenizer, [prompt], **settings))


def _opened(folder: str | Path, int8: bool) -> tuple[Model, Tokenizer]:
    """A causal model, on the fastest device and precision."""
    model, tokenizer = load_model(folder)
    if "next" not in model.heads or not model.config.causal:
        do = "give one that was pretrained with objective.next = true, or a GPT-2"
        raise UsageError("this model does not predict the next token", where=str(folder), do=do)
    keep_freed_memory()
    if int8:
        return Int8Model(model), tokenizer
    device = pick_device()
    return model.to(device, pick_dtype("auto", device)).eval(), tokenizer


def generate_texts(model: Model, tokenizer: Tokenizer, prompts: Sequence[str], **settings: Any) -> list[dict[str, Any]]:
    """What follows each of some prompts.

    An empty prompt begins a new document. Before a text stands what the tokenizer itself puts there.
    settings: the fields of `Generation`.
    Returns for each prompt {"prompt", "text": what follows it, a stop string and all after it left out, "tokens": how
    many were written, "stopped": why the text ends, "end" (the model ended it), "stop" (a stop string), "length"
    (max_new_tokens) or "context" (the model reads no more)}.
    What follows a prompt does not depend on the others. Of equal prompts each is another draw.
    UsageError: a setting out of range, no prompt, a prompt that fills the model's context, or an empty one where the
    tokenizer has no token to begin with. CheckpointError: the model's logits are not finite.
    """
    chosen = Generation.parse(settings)
    texts = _texts(model, tokenizer, prompts, chosen)
    if chosen.beams == 1:
        for _ in _written(model, texts, chosen):
            pass
    else:
        for group in _groups(texts, chosen):
            steps = CausalSteps(model, [text.ids for text in group], max(text.limit for text in group))
            arguments = ([text.ids for text in group], [text.limit for text in group], [text.ended for text in group])
            found = beam_search(steps, *arguments, chosen)
            for text, (ids, stopped) in zip(group, found, strict=True):
                text.written, text.stopped = ids, stopped
    return [
        {"prompt": text.prompt, "text": text.shown(), "tokens": len(text.written), "stopped": text.stopped}
        for text in texts
    ]


def stream_texts(
    model: Model, tokenizer: Tokenizer, prompts: Sequence[str], **settings: Any
) -> Iterator[tuple[int, str]]:
    """(number of the prompt, the next piece of what follows it), as it is written; joined, the texts of the above.

    A piece comes when nothing that follows can change it: whole characters, and no beginning of a stop string.
    UsageError: also if `beams` are asked for, since no piece is sure before the last.
    """
    chosen = Generation.parse(settings)
    if chosen.beams > 1:
        raise UsageError("beams give no text before the last step", where="beams", do="stream with beams = 1")
    texts = _texts(model, tokenizer, prompts, chosen)
    return _pieces(model, texts, chosen)


def _pieces(model: Model, texts: list["_Text"], chosen: Generation) -> Iterator[tuple[int, str]]:
    told = [0] * len(texts)
    for text in _written(model, texts, chosen):
        shown = text.shown()
        sure = len(shown) if text.stopped else _sure(shown, chosen.stop)
        if sure > told[text.number]:
            yield text.number, shown[told[text.number] : sure]
            told[text.number] = sure


def _sure(shown: str, stop: Sequence[str]) -> int:
    """How many characters stay as they are whatever follows."""
    sure = len(shown.rstrip(_PARTIAL))
    for string in stop:
        open_ = (n for n in range(min(len(string) - 1, len(shown)), 0, -1) if shown.endswith(string[:n]))
        sure = min(sure, len(shown) - next(open_, 0))
    return sure


@dataclass(slots=True)
class _Text:
    """A prompt and what is written after it.

    ids: of the prompt, with what the tokenizer puts before. limit: of `written`.
    """

    number: int
    prompt: str
    ids: list[int]
    limit: int
    key: np.uint64
    tokenizer: Tokenizer
    stop: tuple[str, ...]
    written: list[int] = field(default_factory=list)
    stopped: Stopped | None = None

    def ended(self, written: list[int]) -> Stopped | None:
        if written[-1] == self.tokenizer.sep_id:
            return "end"
        return "stop" if self.stop and self._cut(self._decoded(written)) is not None else None

    def shown(self) -> str:
        text = self._decoded(self.written)
        return text[: self._cut(text)]

    def _decoded(self, written: list[int]) -> str:
        """What follows the prompt: a piece may be spelled in another way at the beginning of a text."""
        before, whole = self.tokenizer.decode(self.ids), self.tokenizer.decode([*self.ids, *written])
        return whole[len(before) :] if whole.startswith(before) else self.tokenizer.decode(written)

    def _cut(self, text: str) -> int | None:
        """Where the first stop string begins."""
        return min((at for string in self.stop if (at := text.find(string)) >= 0), default=None)


def _texts(model: Model, tokenizer: Tokenizer, prompts: Sequence[str], chosen: Generation) -> list[_Text]:
    if not prompts:
        raise UsageError("there is no prompt", where="prompt", do="give at least one; an empty one begins a document")
    first, seen, texts = before_text(tokenizer), Counter[tuple[int, ...]](), []
    for number, (prompt, encoding) in enumerate(zip(prompts, tokenizer.encode_batch(prompts), strict=True)):
        ids = [*first, *encoding.ids]
        if not ids and tokenizer.cls_id is not None:
            ids = [tokenizer.cls_id]
        where = "prompt" if len(prompts) == 1 else f"prompt {number + 1}"
        if not ids:
            do = "begin the text"
            raise UsageError("is empty, and the tokenizer has no token to begin with", where=where, do=do)
        room = model.config.max_length - len(ids)
        if room < 1:
            what = f"{len(ids)} tokens leave no room for another: the model reads {model.config.max_length}"
            raise UsageError(what, where=where, do="shorten it")
        key = _key(ids, seen[tuple(ids)], chosen.seed)
        seen[tuple(ids)] += 1
        limit = min(room, chosen.max_new_tokens)
        texts.append(_Text(number, prompt, ids, limit, key, tokenizer, chosen.stop))
    return texts


def _key(ids: list[int], nth: int, seed: int) -> np.uint64:
    """All chance of a prompt: a function of the seed, of its ids, and of how often it came before."""
    content = int.from_bytes(hashlib.sha256(np.array(ids, "<i8").tobytes()).digest()[:7])
    return sequence_keys(seed, nth, np.array([content]))[0]


def _groups(texts: list[_Text], chosen: Generation) -> Iterator[list[_Text]]:
    """Prompts of like length, as many at a time as there is room for."""
    left = sorted(texts, key=lambda text: -len(text.ids))
    while left:
        each = chosen.beams * (len(left[0].ids) + max(text.limit for text in left))
        count = max(1, _CACHED_TOKENS // each)
        yield left[:count]
        left = left[count:]


def _written(model: Model, texts: list[_Text], chosen: Generation) -> Iterator[_Text]:
    """Each text as often as it gets a token."""
    for group in _groups(texts, chosen):
        ids, limits = [text.ids for text in group], [text.limit for text in group]
        steps = CausalSteps(model, ids, max(limits))
        keys: Keys = np.array([text.key for text in group])
        for place, token, stopped in sample(steps, ids, limits, [text.ended for text in group], keys, chosen):
            group[place].written.append(token)
            group[place].stopped = stopped
            yield group[place]
