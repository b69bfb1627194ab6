"""Statistics of paired and clustered scores: pure functions on arrays."""
