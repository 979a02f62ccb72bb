"""Experiments: typed options, TOML files, validation, and building the model they describe."""
