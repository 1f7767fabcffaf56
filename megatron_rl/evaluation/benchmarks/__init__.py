"""The benchmarks' rows in their published layouts, as problems of the project's own format."""
