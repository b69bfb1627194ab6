"""The report for eyes: `html` (one self-contained page), `markdown`, `terminal`. They share `words` and say the same."""
