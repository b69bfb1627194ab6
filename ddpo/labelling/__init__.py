"""People as judges: pairs of images shown blind on a local page, and a file of their choices."""
