"""The inputs of an evaluation: checkpoints, runs, image folders, prompt splits and rewards."""
