"""Readers of the files that users bring: texts, tables, column names, captions."""
