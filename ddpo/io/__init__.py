"""Atomic files, tensors on disk, journals and background threads."""
