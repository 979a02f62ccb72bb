"""Plugins: the hooks, the components they offer, and where they are found."""
