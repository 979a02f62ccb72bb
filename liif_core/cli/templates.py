"""What ``liif new-plugin`` writes around a module of ``liif_core.cli.template_modules``.

Texts of ``string.Template``: ``$name`` the component, ``$title`` its class, ``$module`` its module, ``$distribution``.
"""

PYPROJECT = """\
[build-system]
requires = ["setuptools>=64"]
build-backend = "setuptools.build_meta"

[project]
name = "$distribution"
version = "0.1.0"
description = "The $kind '$name' for liif-core"
readme = "README.md"
requires-python = ">=3.11"
dependencies = ["liif-core"]

[project.optional-dependencies]
test = ["liif-core[skimage]", "pytest>=8"]

[project.entry-points."liif_core.plugins.v$api"]  # v$api: the version of the plugin API it is made for
$name = "$module"

[tool.setuptools]
py-modules = ["$module"]

[tool.pytest.ini_options]
testpaths = ["tests"]
"""

TEST = """\
from liif_core.testing import $contract

from $module import $hook


class Test$title($contract):  # a test for everything that the framework relies on
    component = $hook()
"""

EXPERIMENT = """\
# Trains a small model with '$name' in seconds, on photographs that scikit-image ships.

name = "$name"

[model]
residual = "bilinear"  # what is learnt is what bilinear interpolation lacks

$tables

[data]
images = { source = "skimage", names = ["astronaut", "rocket"] }
patch = 16
queries = 256
repeat = 96

[train]
epochs = 10
batch_size = 8
optimizer = { lr = 2e-3 }
schedule = { use = "cosine", warmup_steps = 20 }

[validate]
images = { source = "skimage", names = ["microaneurysms"] }
scale = 2
every = 5

[[evaluate]]
name = "samples"
images = { source = "skimage", names = ["chelsea"] }
scales = [2, 3]
protocol = "rgb"
"""

README = """\
# $distribution

The $kind `$name` for [liif-core](https://pypi.org/project/liif-core/), which composes arbitrary-scale
super-resolution models of plugins.

```sh
pip install -e ".[test]"
pytest
liif-run $name.toml
```

- `$module.py`: the module, its options, and the hook that offers it. `liif plugins $name` shows what users see of it.
- `tests/`: the contract of every $kind, checked. Add what is special to yours: a reference output, a formula.
- `$name.toml`: an experiment of seconds. To compare with the paper's LIIF, put its table in a copy of liif-core's
  `experiments/edsr_liif.toml`.

Without installing it: `liif-run $name.toml --plugin $module.py`.
"""
