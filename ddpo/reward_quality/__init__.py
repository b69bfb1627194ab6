"""The quality of rewards: agreement, sensitivity, and accuracy on human preferences."""
