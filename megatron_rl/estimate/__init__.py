"""Before torch: what a run will need."""
