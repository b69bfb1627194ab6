"""The weights and vocabulary of the embedded model `emoji-flow`, made by `pretraining/`."""
