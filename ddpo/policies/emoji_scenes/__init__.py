"""The weights and vocabulary of the embedded model `emoji-scenes`, made by `pretraining/`."""
