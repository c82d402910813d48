"""One run: its settings, what it starts from, its rounds, what is done about faulty clients, its results."""
