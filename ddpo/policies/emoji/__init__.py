"""The embedded model `emoji`: its weights, and how they were made."""
