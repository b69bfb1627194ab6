"""The promises of a model, one module each: a function whose docstring is the demand."""
