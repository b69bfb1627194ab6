"""Pretraining of the embedded model and its judges; not part of the installed package."""
