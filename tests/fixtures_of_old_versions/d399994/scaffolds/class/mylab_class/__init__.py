"""The reward mylab/class for ddpo."""
