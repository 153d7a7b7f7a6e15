"""Pluri's causal models in lm-evaluation-harness, under the name `pluri`.

    python -m pluri.interop.lm_eval run --model pluri --model_args pretrained=DIR --tasks TASK

is the harness's own command line with this model added. Texts are cut into tokens, and windows into contexts, as the
harness does it for its own model `hf`, so that the same weights give the same figures.
"""

import json
from typing import Any

import numpy as np
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from lm_eval.models.utils import normalize_gen_kwargs
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from pluri.checkpoints.huggingface import load_model
from pluri.errors import UsageError
from pluri.inference.generate import generate_texts
from pluri.inference.prompting import Prompter, continuation

_NEW_TOKENS = 256  # the harness's own default

Request = tuple[tuple[str, str] | None, list[int], list[int]]
"""What is remembered of a request, the tokens of its context, and those of what is judged."""


@register_model("pluri")
class PluriLM(TemplateLM):
    """A model folder as the harness asks it. pretrained: the folder. Other arguments of its models are of no effect.

    UsageError: the model does not predict the next token.
    """

    backend = "causal"

    def __init__(self, pretrained: str, **_: Any) -> None:
        super().__init__()
        self.prompter = Prompter(*load_model(pretrained))
        if self.prompter.head != "next":
            do = "the harness asks what follows a text; for masked models use `pluri prompt`"
            raise UsageError("this model does not predict the next token", where=pretrained, do=do)
        self.tokenizer, self.max_length = self.prompter.tokenizer, self.prompter.model.config.max_length

    @property
    def eot_token_id(self) -> int | None:
        return self.tokenizer.sep_id

    @property
    def prefix_token_id(self) -> int | None:
        return self.tokenizer.sep_id if self.tokenizer.cls_id is None else self.tokenizer.cls_id

    @property
    def tokenizer_name(self) -> str:
        return self.tokenizer.hash

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """With the special tokens that the tokenizer itself puts around a text, unless it says otherwise."""
        return self.tokenizer.raw.encode(string, add_special_tokens=add_special_tokens is not False).ids

    def _loglikelihood_tokens(self, requests: list[Request], **_: Any) -> list[tuple[float, bool]]:
        """Of each request, the log-probability of what is judged, and whether it is the likeliest throughout."""
        passes = []
        for _key, context, judged in requests:
            ids = np.array([*context, *judged][-self.max_length - 1 :], np.int64)
            passes.append(continuation(ids, len(ids) - len(judged)))
        sums, greedy = self.prompter.read(passes)
        answers = list(zip(sums.tolist(), greedy.tolist(), strict=True))
        for (key, _context, _judged), answer in zip(requests, answers, strict=True):
            if key is not None:
                self.cache_hook.add_partial("loglikelihood", key, answer)
        return answers

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
        """The log-probability of whole texts: in windows that share no token, each after one token of context."""
        windows: list[Request] = []
        counts = []
        for request in requests:
            tokens = self.tok_encode(request.args[0])
            prefix = self.prefix_token_id
            assert prefix is not None
            rolling = get_rolling_token_windows(tokens, prefix, self.max_length, context_len=1)
            found: list[Request] = [(None, *make_disjoint_window(window)) for window in rolling]
            windows += found
            counts.append(len(found))
        values = iter(self._loglikelihood_tokens(windows))
        answers = [sum(next(values)[0] for _ in range(count)) for count in counts]
        for request, answer in zip(requests, answers, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, answer)
        return answers

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """What follows each text, up to a stop string or the end; of longer texts the beginning is cut off."""
        settled: dict[str, list[int]] = {}
        for place, request in enumerate(requests):
            settled.setdefault(json.dumps(request.args[1], sort_keys=True), []).append(place)
        answers = [""] * len(requests)
        for text, places in settled.items():
            settings: dict[str, Any] = {**normalize_gen_kwargs(json.loads(text), _NEW_TOKENS)}
            prompts = [self._cut(requests[place].args[0], settings["max_gen_toks"]) for place in places]
            found = generate_texts(self.prompter.model, self.tokenizer, prompts, **_generation(settings))
            for place, answer in zip(places, found, strict=True):
                answers[place] = answer["text"]
                self.cache_hook.add_partial("generate_until", requests[place].args, answer["text"])
        return answers

    def _cut(self, text: str, new_tokens: int) -> str:
        """The end of a text, as much as leaves room for so many tokens."""
        room = self.max_length - new_tokens - (len(self.tok_encode(text)) - len(self.tok_encode(text, False)))
        if room < 1:
            what = f"{new_tokens} new tokens leave no room for a text: the model reads {self.max_length}"
            raise UsageError(what, where="max_gen_toks", do="ask for fewer")
        offsets = self.tokenizer.raw.encode(text, add_special_tokens=False).offsets
        return text if len(offsets) <= room else text[offsets[-room][0] :]


def _generation(settings: dict[str, Any]) -> dict[str, Any]:
    """The harness's settings by the names of `Generation`. UsageError: one that has none here."""
    sampled = settings.pop("do_sample")
    chosen = {
        "stop": tuple(text for text in settings.pop("until") if text),
        "temperature": settings.pop("temperature", 1.0),
    }
    chosen |= {"max_new_tokens": settings.pop("max_gen_toks"), "beams": settings.pop("num_beams", 1)}
    chosen |= {name: settings.pop(name) for name in ("top_k", "top_p", "repetition_penalty") if name in settings}
    if settings:
        raise UsageError(f"{', '.join(settings)}: not known here", where="generation_kwargs", do="leave it out")
    return chosen if sampled else chosen | {"temperature": 0.0}


if __name__ == "__main__":
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()
