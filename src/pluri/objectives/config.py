"""What is to be learned from sequences without labels."""

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from pluri.config import Config


class ObjectiveConfig(Config):
    """Masked tokens (BERT, RoBERTa, SpanBERT), sentence pairs (BERT's NSP, ALBERT's SOP), or both at once; or the next
    token (GPT), which goes alone.

    next: predict each token from those before it, in a causal model.
    masked: predict tokens that were covered.
    mlm_probability: the share of tokens to predict.
    unit: what is covered as a whole: a token, a word, or a span of words.
    mask, random: shares of the covered tokens that become [MASK] or a random token; the rest stay as they are.
    span_mean, span_max: a span has k words with probability proportional to (1 - 1/span_mean)**k, k up to span_max.
        5 and 10 are SpanBERT's (Joshi et al., 2020, section 3.1): 3.8 words on average.
    pair: tell whether the second part follows the first ("nsp"), or whether two parts are in order ("sop").
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

    @model_validator(mode="before")
    @classmethod
    def _alone(cls, values: Any) -> Any:
        return {"masked": False, **values} if isinstance(values, dict) and values.get("next") is True else values

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.next and (self.masked or self.pair):
            raise ValueError("next = true goes alone: leave out masked and pair")
        if not (self.next or self.masked or self.pair):
            raise ValueError("nothing to learn: set masked = true, pair = 'nsp' or 'sop', or next = true")
        if self.mask + self.random > 1 + 1e-9:
            raise ValueError(f"mask + random must be at most 1, got {self.mask} + {self.random}")
        return self
