"""What a person sees of a run: the terminal and the figures."""

REPORT = "report.html"
"""The report in a run's folder."""
