"""Where a run's numbers can be sent: one module for each, which alone imports its package."""
