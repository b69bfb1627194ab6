"""The way from the name of a reward to the scores of a batch of images."""
