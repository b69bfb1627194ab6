"""Files that are whole or absent, tensors on disk, journals, and work beside the main thread."""
