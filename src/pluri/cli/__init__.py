"""The command line: each verb is a short call of the Python API, with the same names and defaults.

A verb returns its Answer; `pluri.__main__` prints it and explains what went wrong.
"""

from pluri.cli import languages, models, pretraining, reports, stores, tasks, understanding
from pluri.cli.base import Answer, app

__all__ = ["Answer", "app", "languages", "models", "pretraining", "reports", "stores", "tasks", "understanding"]
