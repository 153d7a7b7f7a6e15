"""Raw sequences: records, the readers of every format that users bring, and sentences."""

from pluri.sequences.files import expand
from pluri.sequences.readers import read_records, read_rows
from pluri.sequences.record import Record
from pluri.sequences.sentences import split_sentences

__all__ = ["Record", "expand", "read_records", "read_rows", "split_sentences"]
