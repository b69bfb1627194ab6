"""The records of a run, and everything that shows or checks them."""
