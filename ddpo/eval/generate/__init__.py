"""The images of an evaluation, their probes and their scores."""
