"""The built-in rewards, one file each. Their cards are in `ddpo.rewards.cards`."""
