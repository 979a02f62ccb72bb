"""Components by kind and name."""

from pathlib import Path

import attrs
import pytest
from attrs import evolve

from liif_core import Component, Importer, NoOptions, Registry, UserError, option
from liif_core.errors import did_you_mean
from liif_core.registry.components import KINDS, Choice, Origin
from liif_core.registry.named_models import NamedModel

ONE = Origin("a = a", "one", "1.0")
TWO = Origin("b = b", "two", "2.0")


def component(name):
    return Component(name, lambda options, **sizes: (options, sizes))


@pytest.fixture
def filled():
    registry = Registry().with_plugin(ONE, {"encoder": [component("edsr"), component("shared")]})
    return registry.with_plugin(TWO, {"encoder": [component("shared")], "decoder": [component("mlp")]})


def test_find(filled):
    found, origin = filled.find("encoder", "edsr")
    assert (found.name, origin) == ("edsr", ONE)
    assert filled.find("encoder", "one:edsr") == (found, ONE)
    assert filled.find("decoder", "mlp")[1] == TWO


def test_names(filled):
    assert filled.names("encoder") == ["edsr", "one:shared", "two:shared"]
    assert filled.names("decoder") == ["mlp"] and filled.names("sampling") == []


def test_every_listed_name_is_found(filled):
    for kind in KINDS:
        for name in filled.names(kind):
            filled.find(kind, name)


def test_one_name_of_two_distributions(filled):
    with pytest.raises(ValueError) as refused:
        filled.find("encoder", "shared")
    for part in ("one 1.0", "two 2.0", "'one:shared'", "'two:shared'"):
        assert part in str(refused.value)
    assert filled.find("encoder", "one:shared")[1] == ONE
    assert filled.find("encoder", "two:shared")[1] == TWO


def test_one_component_of_two_distributions(filled):
    """Passed on as it is: neither distribution changes what the name means."""
    passed_on = filled.find("encoder", "edsr")[0]
    registry = Registry()
    for origin in (TWO, ONE):
        registry = registry.with_plugin(origin, {"encoder": [passed_on]})
    assert registry.find("encoder", "edsr") == (passed_on, ONE)
    assert registry.find("encoder", "two:edsr") == (passed_on, TWO)
    described = evolve(passed_on, describe=lambda options: "EDSR")  # in other words, it is the same component
    assert Registry().with_plugin(ONE, {"encoder": [described]}).with_plugin(TWO, {"encoder": [passed_on]}).find(
        "encoder", "edsr"
    ) == (described, ONE)


@pytest.mark.parametrize(
    "use, part",
    [
        ("edrs", "no encoder is named 'edrs' (did you mean 'edsr'?); installed: edsr, one:shared, two:shared"),
        ("EDSR!", "no encoder is named 'EDSR!'"),
        ("three:shared", "did you mean"),
        ("", "no encoder is named ''"),
        (":", "no encoder is named ':'"),
        ("mlp", "no encoder is named 'mlp'"),
    ],
)
def test_an_unknown_name(filled, use, part):
    with pytest.raises(ValueError) as refused:
        filled.find("encoder", use)
    assert part in str(refused.value)


def test_a_name_that_tells_its_distribution_tells_what_to_install(filled):
    with pytest.raises(ValueError) as refused:
        filled.find("encoder", "liif-new:new")
    message = str(refused.value)
    assert message.startswith(
        "no encoder is named 'liif-new:new'; no plugin of the distribution 'liif-new' is installed: "
    )
    assert "install it from its authors (in a clone of liif-core that has it, pip install plugins/liif-new)" in message
    assert message.endswith("; installed: edsr, one:shared, two:shared")


def test_a_distribution_that_is_there_need_not_be_installed(filled):
    """Whether it offers another name, an importer only, or is broken."""
    registry = filled.with_plugin(Origin("c = c", "three", "3"), {}, [Importer("encoder", "x", dict)])
    registry = registry.with_broken(Origin("d = d", "four", "4"), "ImportError")
    for use in ("one:new", "three:new", "four:new"):
        with pytest.raises(ValueError) as refused:
            registry.find("encoder", use)
        assert "pip install" not in str(refused.value)


def test_nothing_installed():
    with pytest.raises(ValueError, match="no encoder is named 'edsr'; installed: none"):
        Registry().find("encoder", "edsr")


def test_an_unknown_name_may_be_a_broken_plugin_s(filled):
    registry = filled.with_broken(Origin("rdn = rdn", "liif-rdn", "0.3"), "ImportError: no module named 'x'")
    with pytest.raises(ValueError) as refused:
        registry.find("encoder", "rdn")
    assert "rdn = rdn of liif-rdn 0.3 could not be loaded: ImportError: no module named 'x'" in str(refused.value)


@pytest.mark.parametrize("kind", KINDS)
def test_one_plugin_offers_a_name_once_a_kind(kind):
    with pytest.raises(ValueError, match=f"two {kind} components named 'x'"):
        Registry().with_plugin(ONE, {kind: [component("x"), component("y"), component("x")]})


def test_kinds_have_names_of_their_own():
    registry = Registry().with_plugin(ONE, {"encoder": [component("x")], "decoder": [component("x")]})
    assert registry.names("encoder") == registry.names("decoder") == ["x"]


def test_a_registry_never_changes(filled):
    before = {kind: filled.names(kind) for kind in KINDS}
    filled.with_plugin(Origin("c = c", "three", "3"), {"encoder": [component("new")]})
    filled.with_broken(ONE, "why")
    assert {kind: filled.names(kind) for kind in KINDS} == before and not filled.broken
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        filled.broken = ()
    assert Registry().names("encoder") == []


def test_a_choice_builds_with_its_options_and_the_sizes():
    options = NoOptions()
    assert Choice("encoder", "x", component("x"), options, ONE).build(in_channels=3) == (options, {"in_channels": 3})


def test_importers_are_found_by_part_and_name():
    first, second = Importer("encoder", "edsr", dict), Importer("model", "liif", dict)
    registry = Registry().with_plugin(ONE, {}, [first]).with_plugin(TWO, {}, [second])
    assert registry.importer("encoder", "edsr") is first and registry.importer("model", "liif") is second
    with pytest.raises(UserError) as refused:
        registry.importer("encoder", "edsr-baselin")
    (problem,) = refused.value.problems
    assert (
        "imports the encoder 'edsr-baselin'" in problem and "known: edsr" in problem and "install a plugin" in problem
    )
    with pytest.raises(UserError, match="the model 'edsr'"):
        registry.importer("model", "edsr")


@pytest.mark.parametrize("part", ["model", "encoder"])
def test_two_importers_of_one_name_are_not_chosen_between_silently(part):
    """As with components: which plugin wins must not hang on the order of installation."""
    registry = Registry().with_plugin(ONE, {}, [Importer(part, "x", dict)])
    try:
        registry = registry.with_plugin(TWO, {}, [Importer(part, "x", list)])
    except ValueError:
        return
    with pytest.raises((UserError, ValueError), match="one 1.0.*two 2.0"):
        registry.importer(part, "x")


def test_an_option_has_help_a_default_and_a_check():
    @attrs.frozen
    class Options:
        size: int = option("Side.", 3, check=attrs.validators.ge(1), unit="codes")

    size = attrs.fields(Options).size
    assert size.metadata == {"help": "Side.", "unit": "codes"} and Options().size == 3
    with pytest.raises(ValueError):
        Options(size=0)


def test_an_option_without_default_is_required():
    @attrs.frozen
    class Options:
        size: int = option("Side.")

    with pytest.raises(TypeError):
        Options()


@pytest.mark.parametrize(
    "name, known, expected",
    [("chanels", ["channels", "blocks"], " (did you mean 'channels'?)"), ("zzz", ["channels"], ""), ("a", [], "")],
)
def test_did_you_mean(name, known, expected):
    assert did_you_mean(name, known) == expected


def test_a_user_error_is_its_lines():
    error = UserError("one", "two")
    assert error.problems == ("one", "two") and str(error) == "one\ntwo"


# Trained models

RIGHT = {
    "name": "tiny", "sha256": "0" * 64, "size": 10, "license": "MIT", "training_data": "nothing",
    "url": "https://example.org/tiny.safetensors",
}  # fmt: skip


@pytest.mark.parametrize(
    "change, part",
    [
        ({"name": "Tiny"}, "lower-case"),
        ({"name": "a:b"}, "lower-case"),
        ({"sha256": "0" * 63}, "sha256"),
        ({"sha256": "G" * 64}, "sha256"),
        ({"size": 0}, "size"),
        ({"size": True}, "size"),
        ({"license": " "}, "license"),
        ({"training_data": ""}, "training_data"),
        ({"url": ""}, "file, url, wheel: expected one"),
        ({"file": Path("/x")}, "file, url, wheel: expected one"),
        ({"url": "", "file": Path("x")}, "absolute"),
        ({"url": "ftp://example.org/x"}, "http"),
        ({"wheel": "a==1", "member": "a.pth"}, "file, url, wheel: expected one"),
        ({"url": "", "wheel": "a==1"}, "member: expected the path"),
        ({"member": "a.pth"}, "member: expected the path"),
        *(
            ({"url": "", "wheel": release, "member": "a.pth"}, "wheel: expected one release, such as 'name==1.2.0'")
            for release in ("a", "a>=1", "a==1 b==2", "--index-url==1", "a==", "a == 1", "https://example.org/a.whl")
        ),
    ],
)
def test_a_model_with_a_wrong_field(change, part):
    NamedModel(**RIGHT)
    with pytest.raises(ValueError, match=part) as refused:
        NamedModel(**RIGHT | change)
    assert str(refused.value).startswith(f"model {(RIGHT | change)['name']!r}: ")


def test_models_are_found_by_name():
    one, two = NamedModel(**RIGHT), NamedModel(**RIGHT | {"name": "other"})
    registry = Registry().with_plugin(ONE, {}, models=[one, two]).with_plugin(TWO, {}, models=[evolve(one, size=11)])
    assert registry.model_names() == ["one:tiny", "other", "two:tiny"]
    assert registry.find_model("other") == (two, ONE) and registry.find_model("one:tiny") == (one, ONE)
    with pytest.raises(ValueError, match="offered by one 1.0 and two 2.0; choose one: 'one:tiny' or 'two:tiny'"):
        registry.find_model("tiny")
    with pytest.raises(ValueError, match=r"no model is named 'othr' \(did you mean 'other'\?\); installed: one:tiny"):
        registry.find_model("othr")
    with pytest.raises(ValueError, match="installed: none; models come from model packs"):
        Registry().find_model("tiny")


def test_one_distribution_offers_a_model_once():
    one = NamedModel(**RIGHT)
    with pytest.raises(ValueError, match="two models named 'tiny'"):
        Registry().with_plugin(ONE, {}, models=[one, one])
    with pytest.raises(ValueError, match="two models named 'tiny'"):
        Registry().with_plugin(ONE, {}, models=[one]).with_plugin(ONE, {}, models=[one])
