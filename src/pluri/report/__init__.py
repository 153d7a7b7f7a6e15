"""The report: one HTML file that says what a run did and whether pretraining helped, readable with no network."""

from pluri.report.report import write_report

__all__ = ["write_report"]
