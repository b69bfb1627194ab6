"""The report of an evaluation: `data` holds it; `html`, `markdown` and `terminal` render it."""
