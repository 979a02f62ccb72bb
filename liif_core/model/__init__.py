"""Continuous image models: contracts, composition, geometry and tiled rendering."""
