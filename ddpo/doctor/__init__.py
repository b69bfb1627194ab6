"""Facts about a machine, and a self-test of training and scoring on its accelerator."""
