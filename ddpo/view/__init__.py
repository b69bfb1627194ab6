"""`ddpo view`: run folders in a browser, read while their trainings are under way."""
