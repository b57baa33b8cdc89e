"""How many components, and how robust: chosen by what was not fitted."""
