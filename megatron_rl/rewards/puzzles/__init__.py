"""The scorers of the logic tasks: what an answer earns, from its text and the stored entry; nothing is executed."""
