"""What the verifiers know of mathematics: notation, expressions, values, structures, units."""
