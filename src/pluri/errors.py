"""What went wrong, where, and what to do about it: every error a user can meet is one line."""


class PluriError(Exception):
    """A failure that the user can understand and mend.

    what: what is wrong, with the offending value.
    where: its origin, `file:line` where there is one.
    do: what the user can do about it.
    """

    exit_code = 1

    def __init__(self, what: str, *, where: str | None = None, do: str | None = None) -> None:
        self.what, self.where, self.do = what, where, do
        line = f"{where}: {what}" if where else what
        super().__init__(f"{line}; {do}" if do else line)


class UsageError(PluriError):
    """Wrong arguments or configuration: nothing was started."""

    exit_code = 2


class DataError(PluriError):
    """A file that the user brought cannot be used."""


class StoreError(PluriError):
    """A token store is missing, damaged, or belongs to another tokenizer."""


class CheckpointError(PluriError):
    """A model folder or training checkpoint is missing, damaged, or does not fit."""


class TrainingError(PluriError):
    """Training cannot go on: a non-finite loss, a full disk."""
