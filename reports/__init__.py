"""A finished run as HTML and pictures, read from its store: `python -m reports.render`."""

from reports.data import Report, latest_run, read_report

__all__ = ["Report", "latest_run", "read_report"]
