"""From examples to batches: packing, and an endless stream that is a pure function of the step."""

from pluri.batches.batch import Batch
from pluri.batches.example import IGNORE, Examples
from pluri.batches.loader import Batches, Source
from pluri.batches.packing import deal, pack, take

__all__ = ["IGNORE", "Batch", "Batches", "Examples", "Source", "deal", "pack", "take"]
