"""The report for eyes: `html` (one self-contained page), `markdown`, `terminal`. They share `wording` and say the same."""
