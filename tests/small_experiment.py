"""A small experiment file, and a TOML writer that is not the one under test."""

import datetime

SMALL = """
name = "small"
fallback = "quick"

[model]
encoder = { use = "edsr", blocks = 2, channels = 8 }
features = { use = "unfold" }
sampling = { use = "local-ensemble" }
conditioning = [{ use = "coordinate" }, { use = "cell" }]
decoder = { use = "mlp", hidden = [16] }

[data]
images = { source = "div2k", path = "div2k", split = "train" }
patch = 12
queries = 100

[train]
epochs = 10
optimizer = { use = "adam", lr = 1e-4 }
schedule = { use = "multi-step", milestones = [5, 8] }

[validate]
images = { source = "skimage", names = ["coffee"] }

[[evaluate]]
name = "one"
images = { source = "folder", path = "one" }
scales = [2, [2, 3.5]]

[[evaluate]]
name = "two"
images = { source = "benchmark", path = "../two" }
scales = [4]

[profiles.quick]
description = "Quicker."
note = "Only a try."

[profiles.quick.model]
decoder = { hidden = [4] }

[profiles.quick.data]
images = { source = "skimage", names = ["astronaut"] }

[profiles.quick.train]
epochs = 1
schedule = { use = "cosine" }

[[profiles.quick.evaluate]]
name = "quick"
images = { source = "skimage", names = ["chelsea"] }
scales = [2]

[profiles.slower]
train = { optimizer = { lr = 1e-5 }, epochs = 20 }
"""


HUGE = "0x" + "f" * 5000


def quoted(text):
    """A TOML basic string."""
    return '"' + "".join(c if c.isprintable() and c not in '"\\' else f"\\U{ord(c):08x}" for c in text) + '"'


def inline(value):
    """A TOML value, on one line."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "{" + ", ".join(f"{quoted(key)} = {inline(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(inline, value)) + "]"
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        return value.isoformat()
    return str(value)


def written(data):
    """A TOML file by an independent writer: one line for each key at the top."""
    return "".join(f"{quoted(key)} = {inline(value)}\n" for key, value in data.items())
