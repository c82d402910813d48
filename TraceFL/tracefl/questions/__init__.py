"""What is asked of a round or a run; the answers are data, shown by the reports."""
