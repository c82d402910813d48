"""One run: its settings, starting point, rounds, mitigation of faulty clients, and results."""
