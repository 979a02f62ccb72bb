"""What tests of the core share."""

from types import SimpleNamespace

import pytest

from liif_core import hookimpl
from liif_core.plugins import add_plugin
from liif_core.registry import Origin


@pytest.fixture
def plugin_of():
    """Makes a plugin of hooks and what each returns: ``plugin_of(liif_encoders=[Component(...)])``."""

    def make(**hooks):
        def implementation(offered):
            return hookimpl(lambda: offered)

        return SimpleNamespace(**{name: implementation(offered) for name, offered in hooks.items()})

    return make


@pytest.fixture
def extended(registry, plugin_of):
    """The installed plugins and one more: ``extended(liif_encoders=[Component(...)])``."""
    return lambda **hooks: add_plugin(registry, plugin_of(**hooks), Origin("test = test", "test-plugin", "1.2.3"))
