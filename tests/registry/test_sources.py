"""Which plugins are found, and which of them may be loaded."""

import os
import sys

import pytest
import strangers

import liif_core
from liif_core import UserError, discover
from liif_core.registry.changes import CHANGES
from liif_core.registry.hookspecs import ENTRY_POINT_GROUP
from liif_core.registry.sources import GROUP, OWN, extra_plugins


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder on the path, to install into."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delenv("LIIF_PLUGINS", raising=False)
    monkeypatch.delenv("LIIF_PLUGIN_PATH", raising=False)
    path = list(sys.path)
    yield folder
    sys.path[:] = path
    strangers.forget()


def offered(registry):
    """Names of encoders that are not our own."""
    return {c.name for c, origin in registry.components["encoder"] if origin.distribution != OWN}


def reasons(registry):
    return {plugin.origin.distribution: plugin.reason for plugin in registry.broken}


# The version of the API


def test_the_version_is_a_whole_number():
    assert type(liif_core.API_VERSION) is int and liif_core.API_VERSION >= 1


def test_a_plugin_made_for_this_version(site):
    strangers.install(site, "mine", strangers.encoder("mine"), group=f"{GROUP}.v{liif_core.API_VERSION}")
    assert offered(discover()) == {"mine"} and not discover().broken


def test_a_plugin_that_declares_no_version(site):
    strangers.install(site, "mine", strangers.encoder("mine"), group=GROUP)
    assert offered(discover()) == {"mine"} and not discover().broken


@pytest.mark.parametrize(
    "version, better",
    [(liif_core.API_VERSION + 1, "liif-core"), (0, "version of the plugin")],
    ids=["later", "earlier"],
)
def test_a_plugin_made_for_another_is_not_imported(site, version, better):
    module = strangers.install(site, "other", "raise SystemExit('imported')", "2.0", group=f"{GROUP}.v{version}")
    registry = discover()
    assert reasons(registry) == {
        "other": f"made for version {version} of the plugin API, and this liif-core has version "
        f"{liif_core.API_VERSION}: install a newer {better}"
    }
    assert (registry.broken[0].origin.plugin, registry.broken[0].origin.version) == (f"main = {module}", "2.0")
    assert module not in sys.modules


def test_a_plugin_made_for_version_2_is_refused_with_what_changed(site):
    module = strangers.install(site, "old", "raise SystemExit('imported')", group=f"{GROUP}.v2")
    (broken,) = discover().broken
    assert broken.reason.startswith("made for version 2 of the plugin API, and this liif-core has version 3: ")
    assert broken.details == CHANGES[3] and module not in sys.modules
    text = "\n".join(broken.details)
    for changed in ("scope", "num_statistics", "image_conditions", "GlobalDecoder", "liif_core.nn", ENTRY_POINT_GROUP):
        assert changed in text


def test_a_plugin_made_for_a_later_version_has_no_list_of_changes(site):
    strangers.install(site, "new", "raise SystemExit('imported')", group=f"{GROUP}.v{liif_core.API_VERSION + 1}")
    assert discover().broken[0].details == ()


def test_a_plugin_with_a_module_for_each_version(site):
    strangers.install(site, "both", "raise SystemExit('imported')", group=f"{GROUP}.v{liif_core.API_VERSION + 1}")
    strangers.install(site, "both", strangers.encoder("this"), group=f"{GROUP}.v{liif_core.API_VERSION}")
    strangers.install(site, "both", strangers.encoder("undeclared"), group=GROUP)
    registry = discover()
    assert offered(registry) == {"this"} and not registry.broken


@pytest.mark.parametrize("suffix", ["1", "vl", "v", "v1.0", "version1"])
def test_a_group_that_is_misspelt_is_not_passed_over(site, suffix):
    strangers.install(site, "typo", strangers.encoder("typo"), group=f"{GROUP}.{suffix}")
    registry = discover()
    assert offered(registry) == set()
    assert reasons(registry)["typo"] == f"entry-point group '{GROUP}.{suffix}': expected '{ENTRY_POINT_GROUP}'"


# LIIF_PLUGINS


@pytest.fixture
def three(site):
    for name in ("one", "Two_Plugins", "three"):
        strangers.install(site, name, strangers.encoder(f"of-{name.lower().partition('_')[0]}"))
    return site


@pytest.mark.parametrize(
    "text, expected",
    [
        ("none", set()),
        ("one", {"of-one"}),
        (" one , two.plugins ", {"of-one", "of-two"}),
        ("liif-core", set()),
        ("", {"of-one", "of-two", "of-three"}),
    ],
)
def test_safe_mode(three, monkeypatch, text, expected):
    monkeypatch.setenv("LIIF_PLUGINS", text)
    registry = discover()
    assert offered(registry) == expected and not registry.remarks
    assert "edsr" in registry.names("encoder")  # our own are always there
    left_out = {"of-one": "one", "of-two": "Two_Plugins", "of-three": "three"}.items()
    assert set(reasons(registry)) == {distribution for name, distribution in left_out if name not in expected}
    assert all(reason == f"left out, because LIIF_PLUGINS is {text!r}" for reason in reasons(registry).values())


def test_what_is_left_out_is_not_imported_and_is_named_where_it_is_needed(site, monkeypatch):
    strangers.install(site, "wild", "raise SystemExit('imported')", "0.3")
    monkeypatch.setenv("LIIF_PLUGINS", "none")
    with pytest.raises(ValueError, match="wild 0.3.*left out, because LIIF_PLUGINS is 'none'"):
        discover().find("encoder", "tame")


def test_a_name_that_is_not_installed_is_remarked(three, monkeypatch):
    monkeypatch.setenv("LIIF_PLUGINS", "one,tree")
    assert discover().remarks == (
        "LIIF_PLUGINS names 'tree', and no distribution of that name has plugins (did you mean 'three'?)",
    )


# Plugins that are not installed


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "work" / "my_idea.py"
    path.parent.mkdir()
    (path.parent / "stranger_beside.py").write_text("NAME = 'beside'\n")
    path.write_text("from stranger_beside import NAME\n" + strangers.encoder("idea"))
    return path


def test_a_file(site, file):
    with extra_plugins(str(file)):
        registry = discover()
        component, origin = registry.find("encoder", "idea")
        assert registry.find("encoder", "my_idea.py:idea")[0] is component
    assert origin.distribution == "my_idea.py" and origin.version.startswith("sha256-")
    assert component.options().width == 4 and component.build(component.options(), in_channels=3).multiple_of == 1
    assert offered(discover()) == set()  # no longer tried

    file.write_text(file.read_text() + "# changed\n")
    with extra_plugins(str(file)):
        assert discover().find("encoder", "idea")[1].version not in ("?", origin.version)


def test_a_module_and_an_object_from_here(site, file, monkeypatch):
    monkeypatch.chdir(file.parent)
    (file.parent / "stranger_here.py").write_text(strangers.encoder("here"))
    (file.parent / "stranger_class.py").write_text(
        strangers.HEADER
        + "class Plugin:\n    @staticmethod\n    @hookimpl\n    def liif_encoders(): return Component('held', dict)\n"
    )
    with extra_plugins("stranger_here", "stranger_class:Plugin"):
        assert offered(discover()) == {"here", "held"}
    with extra_plugins("stranger_here", "stranger_here"):  # said twice
        assert offered(discover()) == {"here"}


def test_by_the_environment(site, file, monkeypatch):
    monkeypatch.setenv("LIIF_PLUGIN_PATH", os.pathsep.join([str(file), "", "json", "nowhere.py"]))
    registry = discover()
    assert offered(registry) == {"idea"}
    assert set(reasons(registry)) == {"nowhere.py", "json"}  # json is a module without hooks
    assert "no such file" in reasons(registry)["nowhere.py"]
    monkeypatch.setenv("LIIF_PLUGINS", "none")
    registry = discover()
    assert offered(registry) == set()
    assert registry.remarks == ("LIIF_PLUGIN_PATH is left out, because LIIF_PLUGINS is set",)
    with extra_plugins(str(file)):  # asked for by hand
        assert offered(discover()) == {"idea"}


def test_broken_ones_that_are_asked_for_are_an_error_and_all_are_told(site, file):
    file.write_text("x = 1\nimport stranger_missing\n")
    with extra_plugins(str(file), "nowhere.py", "no module", "json:nothing"), pytest.raises(UserError) as refused:
        discover()
    problems = refused.value.problems
    assert len(problems) == 4
    assert problems[0].startswith(f"--plugin {file}: ModuleNotFoundError: No module named 'stranger_missing'")
    assert problems[0].endswith(f"({file}, line 2)")
    assert problems[1].startswith("--plugin nowhere.py: FileNotFoundError: ")
    assert problems[2] == "--plugin no module: expected the path of a .py file, a module, or module:object"
    assert problems[3].startswith("--plugin json:nothing: AttributeError: ")


def test_one_name_from_a_file_and_an_installation(site, file):
    strangers.install(site, "idea-installed", strangers.encoder("idea"))
    with extra_plugins(str(file)), pytest.raises(ValueError, match="idea-installed 1.0 and my_idea.py sha256-"):
        discover().find("encoder", "idea")
