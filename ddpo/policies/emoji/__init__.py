"""The embedded model `emoji`: its weights and vocabulary; `pretraining/` of the checkout made them."""
