"""Trained models: by path, or by the name that a model pack gives them."""
