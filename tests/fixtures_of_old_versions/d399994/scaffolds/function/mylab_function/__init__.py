"""The reward mylab/function for ddpo."""
