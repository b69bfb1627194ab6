"""A third-party reward for ddpo."""
