"""The stages of an evaluation: sample or copy images, score them, and analyse the scores."""
