"""The reward zoo: cards (what there is), models (how it is computed), the scorer (how it is called)."""
