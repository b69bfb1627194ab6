"""Empty: the entry point of earlier versions, which editable installs keep until reinstalled."""
