"""The server passes the tests of the IIIF community's validator, https://pypi.org/project/iiif-validator-ng/.

Each test of the validator is run by itself: its own runner needs Python 3.12.
"""

from pathlib import Path

import pytest
from viewing import viewing

from liif_core.view.opening import entry_of

try:
    import iiif_validator
    from iiif_validator.tests import test as validator
except (ImportError, OSError, SyntaxError) as problem:  # OSError: without libvips
    pytest.skip(f"iiif-validator-ng is not installed ({problem})", allow_module_level=True)

IDENTIFIER = "67352ccc-d1b0-11e1-89ae-279075081939"  # under which the validator expects its image
VERSION = validator.IIIFVersion.V3
TESTS = {test.__name__: test for test in validator.get_tests(VERSION) if VERSION in test.versions}
OPTIONAL = {  # what a server need not have, and this one does not
    "FormatGif", "FormatJP2", "FormatPDF", "FormatTIF", "RotationFullNon90Test", "RotationRegionNon90Test"
}  # fmt: skip
OURS = {"SizeUpTest"}  # it takes "^max" for the full size, whatever maxArea says; tests/view/test_iiif.py has its cases


@pytest.fixture(scope="module")
def target():
    image = Path(iiif_validator.__file__).with_name("validation_image.png")
    with viewing({IDENTIFIER: entry_of(IDENTIFIER, image, (), 10**9)}, zoom=1) as viewer:
        yield validator.TargetServer(f"{viewer.url}iiif/bicubic", validation_id=IDENTIFIER, version=VERSION)


def test_what_is_claimed(target):
    found = target.feature_set()
    assert found.compliance_level == validator.ComplianceLevel.LEVEL_2 and found.supports_caching
    assert len(TESTS) > 25


@pytest.mark.parametrize("name", sorted(set(TESTS) - OPTIONAL - OURS))
def test_validator(target, name):
    results = TESTS[name].run(target)
    results = results if isinstance(results, list) else [results]
    assert results and not [result for result in results if not isinstance(result, validator.ValidationSuccess)]
