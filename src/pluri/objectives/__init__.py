"""What is to be learned from sequences without labels: pure functions of (sequence, key)."""

from pluri.objectives.causal import NextTokens
from pluri.objectives.config import ObjectiveConfig
from pluri.objectives.masked import MaskedTokens
from pluri.objectives.store_examples import StoreExamples

__all__ = ["MaskedTokens", "NextTokens", "ObjectiveConfig", "StoreExamples"]
