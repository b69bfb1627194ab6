"""The findings of an evaluation: pure functions of images, scores and run facts."""
