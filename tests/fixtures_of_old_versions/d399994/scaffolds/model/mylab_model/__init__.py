"""The reward mylab/model for ddpo."""
