"""Readers of user files: texts, tables, images in folders and archives, captions."""
