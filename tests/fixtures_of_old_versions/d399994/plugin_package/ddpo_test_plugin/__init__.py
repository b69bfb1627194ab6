"""A third-party reward, algorithm and model for ddpo."""
