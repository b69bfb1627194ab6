"""The weights and vocabulary of the embedded model `emoji`, made by `pretraining/`."""
