"""The command line: each command parses, calls the library, and prints. Nothing heavy is imported before a command runs."""
