"""Before torch: what a run is, at its scale, and which came before it."""
