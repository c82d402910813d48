"""What a run leaves: written while it runs, read back for every later question."""
