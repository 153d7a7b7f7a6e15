"""Writing with GPT-2 small beside transformers, the same weights and prompts: tokens a second, time to the first one.

    python benchmarks/generate_vs_transformers.py [--quick] [--json FILE]

The weights are random, which costs as much as any others; the likeliest token each time, and no token ends a text. One
prompt, and 16 of unequal length at once, which transformers pads on the left. Both sides keep keys and values, in
whatever precision is faster on this machine; where that is fp32, Pluri with its weights in int8 too. `agreement` is the
share of tokens that are the same on both sides: after the first other token a text is another. So what int8 changes is
measured place by place, on the texts that fp32 wrote: `kl_nats`, the mean divergence of what int8 says of the next
token from what fp32 says (of tokens that fp32 draws, the perplexity rises by the factor exp(kl_nats)), and
`same_likeliest`, the share of places with the same likeliest next token. That is of random weights: in trained ones
it stands out more. Alternating A B A B; medians, and medians of the ratios round by round.
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from measuring import Row, alternate, arguments, finish, median_ratio
from pluri.batches.example import Examples
from pluri.batches.packing import pack
from pluri.checkpoints.keymaps import to_published
from pluri.inference.int8 import Int8Model
from pluri.inference.search import Generation, sample
from pluri.inference.steps import CausalSteps
from pluri.models.config import preset
from pluri.models.heads import Model
from pluri.runtime import fast_bf16, keep_freed_memory

VOCABULARY, CONTEXT, PAD = 50257, 1024, 50256

Write = Callable[[list[list[int]], int], list[list[int]]]
"""(prompts, new tokens) -> what follows each."""


def random_model() -> Model:
    model = Model(preset("gpt2", "base", vocab_size=VOCABULARY, max_length=CONTEXT), {"next": VOCABULARY})
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:  # also those that pretraining starts from 0
                parameter.normal_(0.0, 0.05, generator=generator)
    return model.eval()


def pluri(model: Model) -> Write:
    settings = {"temperature": 0.0}

    def write(prompts: list[list[int]], new: int) -> list[list[int]]:
        written: list[list[int]] = [[] for _ in prompts]
        steps, limits = CausalSteps(model, prompts, new), [new] * len(prompts)
        keys = np.zeros(len(prompts), np.uint64)
        chosen = Generation.parse(settings | {"max_new_tokens": new})
        for prompt, token, _ in sample(steps, prompts, limits, [lambda _: None] * len(prompts), keys, chosen):
            written[prompt].append(token)
        return written

    return write


def transformers(model: Model) -> Write:
    from transformers import GPT2Config, GPT2LMHeadModel

    theirs: Any = GPT2LMHeadModel(GPT2Config(n_positions=CONTEXT, bos_token_id=None, eos_token_id=None)).eval()
    theirs.load_state_dict(to_published(model.config, model.state_dict()), strict=False)
    theirs.tie_weights()
    theirs = theirs.to(next(model.parameters()).dtype)

    def write(prompts: list[list[int]], new: int) -> list[list[int]]:
        width = max(len(prompt) for prompt in prompts)
        ids = torch.tensor([[PAD] * (width - len(prompt)) + prompt for prompt in prompts])
        mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        options = {"max_new_tokens": new, "do_sample": False, "pad_token_id": PAD, "use_cache": True}
        return theirs.generate(ids, attention_mask=mask, **options)[:, width:].tolist()

    return write


def change(model: Model, rounded: Model, texts: list[list[int]]) -> Row:
    """What rounding changes of the next token, mean over all tokens of some texts."""
    divergences, same = [], []
    for text in texts:
        batch = pack(Examples(np.array(text, np.int32), np.array([0, len(text)])), len(text))
        said = [m.outputs("next", m.hidden(batch), batch, batch.places).log_softmax(-1) for m in (model, rounded)]
        divergences.append((said[0].exp() * (said[0] - said[1])).sum(-1))
        same.append((said[0].argmax(-1) == said[1].argmax(-1)).double())
    return {"kl_nats": float(torch.cat(divergences).mean()), "same_likeliest": float(torch.cat(same).mean())}


def measure(
    sides: dict[str, Write], models: tuple[Model, Model] | None, count: int, longest: int, new: int, rounds: int
) -> list[Row]:
    """models: as it is, and with its weights in int8."""
    chance = np.random.default_rng(count)
    lengths = [longest // 2] if count == 1 else chance.integers(longest // 8, longest, count).tolist()
    prompts = [chance.integers(0, PAD, length).tolist() for length in lengths]
    found: dict[str, list[list[int]]] = {}

    def rate(name: str, tokens: int) -> Callable[[int], float]:
        def side(_: int) -> float:
            start = time.perf_counter()
            found[name] = sides[name](prompts, tokens)
            return count * tokens / (time.perf_counter() - start)

        return side

    first = alternate({name: rate(name, 1) for name in sides}, rounds)
    rates = alternate({name: rate(name, new) for name in sides}, rounds)
    milliseconds = {name: 1000 * count / float(np.median(each)) for name, each in first.items()}
    texts = [prompt + written for prompt, written in zip(prompts, found["pluri"], strict=True)]
    return [
        {
            "case": f"{name}, {count} of {min(lengths)} to {max(lengths)} tokens, {new} new",
            "peer": f"transformers, {'bf16' if fast_bf16() else 'fp32'}",
            "tokens_per_second": float(np.median(rates[name])),
            "peer_tokens_per_second": float(np.median(rates["transformers"])),
            "ratio": median_ratio(rates[name], rates["transformers"]),
            "first_token_ms": milliseconds[name],
            "peer_first_token_ms": milliseconds["transformers"],
            "agreement": float(np.mean(np.array(found[name]) == np.array(found["transformers"]))),
            **(change(*models, texts) if models and name == "pluri int8" else {}),
        }
        for name in sides
        if name != "transformers"
    ]


def main() -> None:
    options = arguments(__doc__ or "").parse_args()
    keep_freed_memory()
    model = random_model().to(torch.bfloat16 if fast_bf16() else torch.float32)
    sides, models = {"pluri": pluri(model), "transformers": transformers(model)}, None
    if not fast_bf16():
        models = model, Int8Model(random_model())
        sides["pluri int8"] = pluri(models[1])
    longest, new, rounds = (16, 8, 1) if options.quick else (64, 64, 5)
    with torch.inference_mode():
        rows = [row for count in (1, 16) for row in measure(sides, models, count, longest, new, rounds)]
    finish(rows, options.json, f"Generation, GPT-2 small, {torch.get_num_threads()} threads, torch {torch.__version__}")


if __name__ == "__main__":
    main()
