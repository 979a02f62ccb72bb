"""pyproject.toml, the two files of constraints and the version agree."""

import re
import tomllib
from pathlib import Path

import liif_core

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
OWN = "liif-core"
ANY_BUILD = {"torch", "torchvision", "setuptools"}  # constraints-lowest.txt says why it does not pin these


def floors(requirements):
    """Name -> lowest version, of requirements that all have the form ``name[extra]>=version``."""
    found = {}
    for requirement in requirements:
        name, floor = re.fullmatch(r"([A-Za-z0-9-]+)(?:\[[a-z,]+\])?(?:>=([\d.]+))?", requirement).groups()
        if name != OWN:
            assert floor, f"{requirement}: no lowest version"
            assert found.setdefault(name, floor) == floor, f"{name}: two lowest versions"
    return found


def pins(name):
    lines = [line.strip() for line in (ROOT / name).read_text(encoding="utf-8").splitlines()]
    found = [line.split("==") for line in lines if line and not line.startswith("#")]
    assert len({pin[0] for pin in found}) == len(found), "a package is pinned twice"
    return dict(found)


def version(text):
    return tuple(int(part) for part in re.sub(r"(\.0)+$", "", text).split("."))


def extras(*names):
    return [line for name in names for line in PROJECT["optional-dependencies"][name]]


NEEDED = floors(
    PROJECT["dependencies"] + extras("skimage", "ssim", "lpips", "curves", "tensorboard", "images", "view", "test")
)
ALL = floors([*PROJECT["dependencies"], *extras(*PROJECT["optional-dependencies"])])


def test_lowest_versions_are_the_floors():
    lowest = pins("constraints-lowest.txt")
    assert lowest.keys() == NEEDED.keys() - ANY_BUILD
    assert {name: version(pin) for name, pin in lowest.items()} == {name: version(NEEDED[name]) for name in lowest}


def test_what_is_pinned_satisfies_the_floors():
    pinned = pins("constraints.txt")
    not_run_by_ci = {"pre-commit"}
    assert ALL.keys() - pinned.keys() == not_run_by_ci
    for name, pin in pinned.items():
        if name in ALL:
            assert version(pin) >= version(ALL[name]), name
    assert pinned.keys() - ALL.keys() == {"mkdocstrings-python", "pyvips-binary"}  # extras of others


def test_the_all_extra_is_all_that_users_may_want():
    (line,) = PROJECT["optional-dependencies"]["all"]
    names = re.fullmatch(r"liif-core\[([a-z,]+)\]", line)[1].split(",")
    left_out = {"formats", "lpips"}  # pyproject.toml says why
    assert set(names) == PROJECT["optional-dependencies"].keys() - {"all", "test", "docs", "dev"} - left_out


def test_versions_agree():
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {PROJECT['version']}\n" in citation
    assert f"\n## {PROJECT['version']}\n" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert liif_core.__version__ == PROJECT["version"]


def test_every_extra_that_a_message_names_exists():
    code = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "liif_core").rglob("*.py"))
    named = {name for group in re.findall(r"liif-core\[([a-z,]+)\]", code) for name in group.split(",")}
    assert named
    assert named <= PROJECT["optional-dependencies"].keys()
