"""What is to be learned from sequences without labels."""

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from pluri.config import Config

Corruption = Literal["mask", "delete", "infill", "permute", "rotate", "mass", "sentinel"]


class Denoise(Config):
    """How sequences are broken, for an encoder and a decoder to rebuild.

    kinds: one of these, or several of the first five together; BART is ["infill", "permute"].
        mask, delete: tokens, each by its own chance. infill: spans of Poisson length, empty ones too, each become one
        [MASK]. permute: sentences in random order. rotate: begin with a random token. mass: one span, which alone is
        to be written (MASS). sentinel: spans become sentinels, each of which is to be explained (T5).
    rate: the share of tokens that are covered or deleted; by default as published: mask, delete and sentinel 0.15,
        infill 0.3, mass 0.5. 1 with delete leaves nothing of the source: the decoder learns texts from left to right.
    span: the mean length of the spans of infill and sentinel (BART, section 2.2; T5, section 3.3.4: 3 tokens).
    """

    kinds: tuple[Corruption, ...] = Field(min_length=1)
    rate: float | None = Field(default=None, gt=0, le=1)
    span: float = Field(default=3.0, ge=1)

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if len(set(self.kinds)) < len(self.kinds):
            raise ValueError("a kind of denoising is named twice")
        for alone in ("mass", "sentinel"):
            if alone in self.kinds and len(self.kinds) > 1:
                raise ValueError(f"{alone} has a target of its own and goes with no other kind of denoising")
        return self


class ObjectiveConfig(Config):
    """Masked tokens (BERT, RoBERTa, SpanBERT), sentence pairs (BERT's NSP, ALBERT's SOP), or both at once; or the next
    token (GPT), or denoising (BART, MASS, T5), each of which goes alone.

    next: predict each token from those before it, in a causal model.
    masked: predict tokens that were covered.
    mlm_probability: the share of tokens to predict.
    unit: what is covered as a whole: a token, a word, or a span of words.
    mask, random: shares of the covered tokens that become [MASK] or a random token; the rest stay as they are.
    span_mean, span_max: a span has k words with probability proportional to (1 - 1/span_mean)**k, k up to span_max.
        5 and 10 are SpanBERT's (Joshi et al., 2020, section 3.1): 3.8 words on average.
    pair: tell whether the second part follows the first ("nsp"), or whether two parts are in order ("sop").
    denoise: rebuild what was broken, in an encoder with a decoder.
    reverse_complement: of DNA, read each sequence from either strand, with probability 1/2, by its key in each epoch.
    """

    next: bool = False
    masked: bool = True
    mlm_probability: float = Field(default=0.15, gt=0, lt=1)
    unit: Literal["token", "word", "span"] = "token"
    mask: float = Field(default=0.8, ge=0, le=1)
    random: float = Field(default=0.1, ge=0, le=1)
    span_mean: float = Field(default=5.0, ge=1)
    span_max: int = Field(default=10, ge=1)
    pair: Literal["nsp", "sop"] | None = None
    denoise: Denoise | None = None
    reverse_complement: bool = False

    @model_validator(mode="before")
    @classmethod
    def _alone(cls, values: Any) -> Any:
        alone = isinstance(values, dict) and (values.get("next") is True or values.get("denoise") is not None)
        return {"masked": False, **values} if alone else values

    @model_validator(mode="after")
    def _possible(self) -> Self:
        alone = ["next = true"] * self.next + ["denoise"] * (self.denoise is not None)
        if alone and (self.masked or self.pair or len(alone) > 1):
            raise ValueError(f"{alone[0]} goes alone: leave out masked, pair and whatever else is to be learned")
        if self.reverse_complement and (alone or self.pair):
            raise ValueError("reverse_complement is for masked tokens alone: leave it or the other objective out")
        if not (alone or self.masked or self.pair):
            raise ValueError("nothing to learn: set masked = true, pair = 'nsp' or 'sop', next = true, or denoise")
        if self.mask + self.random > 1 + 1e-9:
            raise ValueError(f"mask + random must be at most 1, got {self.mask} + {self.random}")
        return self
