"""What a client has and does: its data, its model, its training, its faults, its privacy."""
