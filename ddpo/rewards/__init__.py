"""The reward zoo: cards with the facts, models with the computation, and the scorer."""
