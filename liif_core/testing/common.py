"""Checks of options, and those that are the same for every kind."""

import tomllib

import attrs
import torch

from liif_core.errors import UserError
from liif_core.experiment.toml_file import to_builtin, to_toml
from liif_core.experiment.validation import structure
from liif_core.registry.components import Registry
from liif_core.testing.case import Case, Check, SkipCheck, Tensors, expect_same, fail

# Options


def options_frozen(case: Case) -> None:
    """Options are a frozen attrs class: an experiment that is checked stays as it was checked."""
    cls = case.component.options
    if not (isinstance(cls, type) and attrs.has(cls)):
        fail(f"{cls!r} is not an attrs class; put @attrs.frozen above it")
    try:
        setattr(cls.__new__(cls), "probe", None)
    except attrs.exceptions.FrozenInstanceError:
        return
    except AttributeError:
        pass
    fail(f"{cls.__name__} can be changed; put @attrs.frozen above it")


def options_help(case: Case) -> None:
    """Every option has a sentence of help, which ``liif plugins`` shows."""
    silent = [f.name for f in attrs.fields(case.component.options) if not str(f.metadata.get("help", "")).strip()]
    if silent:
        fail(f"no help for {', '.join(silent)}; make fields with liif_core.option(help, default)")


def options_defaults(case: Case) -> None:
    """Every option has a default, and the component can be built with the defaults."""
    required = [f.name for f in attrs.fields(case.component.options) if f.default is attrs.NOTHING]
    if required:
        fail(f"no default for {', '.join(required)}")
    case.component.build(case.component.options(), **case.sizes)


def options_toml(case: Case) -> None:
    """Options written as TOML and read again are the same, as a checkpoint needs it."""
    tried = [case.options]
    try:
        tried.append(case.component.options())
    except TypeError:  # options_defaults is about these
        pass
    for options in tried:
        try:
            text = to_toml({"options": to_builtin(options)})
            read = structure(type(options), tomllib.loads(text)["options"], Registry(), "options")
        except (ValueError, UserError) as error:
            fail(f"{options!r} does not come back from TOML: {error}")
        if read != options:
            fail(f"{options!r} comes back from TOML as {read!r}")


OPTIONS: tuple[Check, ...] = (options_frozen, options_help, options_defaults, options_toml)


# Every kind


def contract(case: Case) -> None:
    """The module has the attributes that its contract declares."""
    module = case.build()
    for name, (lowest, optional) in case.promised.items():
        if not hasattr(module, name):
            fail(f"no attribute {name!r}; expected {_wanted(lowest, optional)}")
        value = getattr(module, name)
        whole = isinstance(value, int) and not isinstance(value, bool) and value >= lowest
        if not (whole or optional and value is None):
            fail(f"{name} is {value!r}; expected {_wanted(lowest, optional)}")


def _wanted(lowest: int, optional: bool) -> str:
    return f"a whole number from {lowest}" + (", or None" if optional else "")


def deterministic(case: Case) -> None:
    """In evaluation mode one input has one answer, whatever was asked before."""
    module = case.build()
    with torch.no_grad():
        first = case.outputs(module, case.inputs())
        expect_same("the same input again", case.outputs(module, case.inputs()), first)
        case.outputs(module, case.inputs(batch=1, seed=1))
        expect_same("the same input, after another", case.outputs(module, case.inputs()), first)


def leaves_input(case: Case) -> None:
    """What is given is not written to: others hold it too."""
    inputs = case.inputs()
    before = {name: value.clone() for name, value in inputs.items()}
    with torch.no_grad():
        case.outputs(case.build(), inputs)
    expect_same("the input, afterwards", inputs, before, tolerance=0)


def batch(case: Case) -> None:
    """A batch of N is N batches of one: nothing passes from one image to another."""
    module, inputs = case.build(), case.inputs(batch=3)
    with torch.no_grad():
        together = case.outputs(module, inputs)
        for i in range(3):
            alone = case.outputs(module, {name: value[i : i + 1] for name, value in inputs.items()})
            expect_same(f"image {i} of 3, alone", alone, {name: value[i : i + 1] for name, value in together.items()})


def float32(case: Case) -> None:
    """float32 in, float32 out."""
    with torch.no_grad():
        outputs = case.outputs(case.build(), case.inputs())
    for name, value in outputs.items():
        if value.is_floating_point() and value.dtype != torch.float32:
            fail(f"{name} is {str(value.dtype).removeprefix('torch.')}")


def finite(case: Case) -> None:
    """Finite in, finite out, at the ends of what is allowed too."""
    module = case.build()
    for words, inputs in [("random numbers", case.inputs()), *case.extremes()]:
        with torch.no_grad():
            outputs = case.outputs(module, inputs)
        for name, value in outputs.items():
            if not value.isfinite().all():
                fail(f"{name} is not finite for {words}")


def gradients(case: Case) -> None:
    """A gradient that is not zero reaches every parameter, and what the parts before have to learn from."""
    module = case.build().train()
    inputs = case.inputs()
    for name in case.differentiable:
        inputs[name].requires_grad_()
    for seed in range(3):  # one alone may meet a ReLU that lets nothing through
        values = {name: value.detach() for name, value in case.inputs(seed=seed).items()}
        values |= {name: inputs[name] + 0.1 * seed * values[name] for name in case.differentiable}
        _backward(case.outputs(module, values))
    learned = [(f"parameter {name}", value) for name, value in module.named_parameters() if value.requires_grad]
    learned += [(f"the {name} given", inputs[name]) for name in case.differentiable]
    deaf = [name for name, value in learned if value.grad is None or not value.grad.any()]
    if deaf:
        fail(f"no gradient reaches {', '.join(deaf)}")
    broken = [name for name, value in learned if not value.grad.isfinite().all()]
    if broken:
        fail(f"the gradient is not finite for {', '.join(broken)}")


def _backward(outputs: Tensors) -> None:
    values = [value for value in outputs.values() if value.requires_grad]
    if values:
        sum((value * torch.linspace(0.5, 1.5, value.numel()).view(value.shape)).sum() for value in values).backward()


def inference_mode(case: Case) -> None:
    """The same result under torch.inference_mode, and training can go on after it."""
    module, inputs = case.build(), case.inputs()
    with torch.inference_mode():
        quick = case.outputs(module, inputs)
    with torch.no_grad():
        expect_same("under inference_mode", quick, case.outputs(module, inputs))
    try:
        _backward(case.outputs(module.train(), inputs))
    except RuntimeError as error:
        fail(f"training after inference_mode: {error}")


def state_dict(case: Case) -> None:
    """The state dict is the whole state: a module built anew and given it answers the same."""
    module, other = case.build(seed=0), case.build(seed=1)
    try:
        other.load_state_dict(module.state_dict())
    except RuntimeError as error:
        fail(str(error))
    with torch.no_grad():
        expected = case.outputs(module, case.inputs())
        expect_same("with the state of another", case.outputs(other, case.inputs()), expected)


def cuda(case: Case) -> None:
    """On a CUDA device the same result as on the CPU, to what its convolutions are exact to."""
    device, inputs = _gpu(), case.inputs()
    module = case.build()
    with torch.no_grad():
        expected = case.outputs(module, inputs)
        found = case.outputs(module.to(device), _moved(inputs, device))
    expect_same("on the GPU", found, expected, tolerance=1e-2)


def bf16(case: Case) -> None:
    """Under autocast to bfloat16 on a CUDA device, the same result to a few digits."""
    device, inputs = _gpu(), case.inputs()
    module = case.build()
    with torch.no_grad():
        expected = case.outputs(module, inputs)
        with torch.autocast(device.type, torch.bfloat16):
            found = case.outputs(module.to(device), _moved(inputs, device))
    expect_same("in bfloat16", found, expected, tolerance=0.1)


def _gpu() -> torch.device:
    if not torch.cuda.is_available():
        raise SkipCheck("no CUDA device on this machine")
    return torch.device("cuda")


def _moved(inputs: Tensors, device: torch.device) -> Tensors:
    return {name: value.to(device) for name, value in inputs.items()}


COMMON: tuple[Check, ...] = (
    deterministic, leaves_input, batch, float32, finite, gradients, inference_mode, state_dict, cuda, bf16,
)  # fmt: skip
