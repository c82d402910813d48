"""The questions to ask about a round or a run; the answers are data, which the reports show."""
