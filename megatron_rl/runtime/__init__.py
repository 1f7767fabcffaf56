"""One process among others: its world, its directory, its log, its end."""
