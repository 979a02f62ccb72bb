"""Checks of options, and the checks that are the same for every kind of module."""

import contextlib
import tomllib

import attrs
import torch

from liif_core.errors import UserError
from liif_core.experiment.toml_file import to_builtin, to_toml
from liif_core.experiment.validation import structure
from liif_core.registry.components import Registry
from liif_core.testing.case import Case, Check, SkipCheck, Tensors, dtype_name, expect_same, fail

# Options


def options_frozen(case: Case) -> None:
    """Options are a frozen attrs class, so that an experiment cannot change after it was validated."""
    cls = case.component.options
    if not (isinstance(cls, type) and attrs.has(cls)):
        fail(f"{cls!r} is not an attrs class: decorate it with @attrs.frozen")
    try:
        setattr(cls.__new__(cls), "probe", None)  # noqa: B010 - the class has no such attribute
    except attrs.exceptions.FrozenInstanceError:
        return
    except AttributeError:
        pass
    fail(f"{cls.__name__} is mutable: decorate it with @attrs.frozen")


def options_help(case: Case) -> None:
    """Every option has a sentence of help, which ``liif plugins`` shows."""
    silent = [f.name for f in attrs.fields(case.component.options) if not str(f.metadata.get("help", "")).strip()]
    if silent:
        fail(f"no help for {', '.join(silent)}: declare fields with liif_core.option(help, default)")


def options_defaults(case: Case) -> None:
    """Every option has a default, and the component can be built with the defaults."""
    required = [f.name for f in attrs.fields(case.component.options) if f.default is attrs.NOTHING]
    if required:
        fail(f"no default for {', '.join(required)}")
    case.component.build(case.component.options(), **case.sizes)


def options_toml(case: Case) -> None:
    """Options that are written to TOML and read again stay the same, so that checkpoints can store them."""
    examples = [case.options]
    with contextlib.suppress(TypeError):  # options without defaults fail options_defaults
        examples.append(case.component.options())
    for options in examples:
        try:
            text = to_toml({"options": to_builtin(options)})
            read = structure(type(options), tomllib.loads(text)["options"], Registry(), "options")
        except (ValueError, UserError) as error:
            fail(f"{options!r} cannot be written to TOML and read again: {error}")
        if read != options:
            fail(f"{options!r} is {read!r} after writing it to TOML and reading it again")


OPTIONS: tuple[Check, ...] = (options_frozen, options_help, options_defaults, options_toml)


# Every kind


def contract(case: Case) -> None:
    """The module has the attributes of its contract."""
    module = case.build()
    for name, (lowest, optional) in case.attributes.items():
        if not hasattr(module, name):
            fail(f"no attribute {name!r}; expected {_wanted(lowest, optional)}")
        value = getattr(module, name)
        integer = isinstance(value, int) and not isinstance(value, bool) and value >= lowest
        if not (integer or (optional and value is None)):
            fail(f"{name} is {value!r}; expected {_wanted(lowest, optional)}")


def _wanted(lowest: int, optional: bool) -> str:
    return f"an integer from {lowest}" + (", or None" if optional else "")


def parameters(case: Case) -> None:
    """The module has parameters, unless ``has_parameters = False`` declares that it has none.

    Layers in a plain list, for instance, are not registered: use torch.nn.ModuleList.
    """
    count = sum(parameter.numel() for parameter in case.build().parameters())
    expected = getattr(case, "has_parameters", None)
    if expected and not count:
        fail("the module has no parameters: register its layers, or declare has_parameters = False")
    if expected is False and count:
        fail(f"has_parameters = False is declared, and the module has {count} parameters")


def deterministic(case: Case) -> None:
    """In evaluation mode the output depends on the input alone, not on earlier calls."""
    module = case.build()
    with torch.no_grad():
        first = case.outputs(module, case.inputs())
        expect_same("the same input again", case.outputs(module, case.inputs()), first)
        case.outputs(module, case.inputs(batch=1, seed=1))
        expect_same("the same input after another one", case.outputs(module, case.inputs()), first)


def leaves_input(case: Case) -> None:
    """Inputs are not modified: the caller still uses them."""
    inputs = case.inputs()
    before = {name: value.clone() for name, value in inputs.items()}
    with torch.no_grad():
        case.outputs(case.build(), inputs)
    expect_same("the input after the call", inputs, before, tolerance=0)


def batch(case: Case) -> None:
    """The images of a batch do not influence each other."""
    module, inputs = case.build(), case.inputs(batch=3)
    with torch.no_grad():
        together = case.outputs(module, inputs)
        for i in range(3):
            alone = case.outputs(module, {name: value[i : i + 1] for name, value in inputs.items()})
            expect_same(f"image {i} of 3 alone", alone, {name: value[i : i + 1] for name, value in together.items()})


def float32(case: Case) -> None:
    """float32 inputs give float32 outputs."""
    with torch.no_grad():
        outputs = case.outputs(case.build(), case.inputs())
    for name, value in outputs.items():
        if value.is_floating_point() and value.dtype != torch.float32:
            fail(f"{name}: expected float32, got {dtype_name(value)}")


def finite(case: Case) -> None:
    """Finite inputs give finite outputs, also at the limits of what is allowed."""
    module = case.build()
    for words, inputs in [("random numbers", case.inputs()), *case.extremes()]:
        with torch.no_grad():
            outputs = case.outputs(module, inputs)
        for name, value in outputs.items():
            if not value.isfinite().all():
                fail(f"{name} is not finite for {words}")


def gradients(case: Case) -> None:
    """Nonzero, finite gradients reach every parameter, and the inputs through which earlier parts learn."""
    module = case.build().train()
    inputs = case.inputs()
    for name in case.differentiable:
        inputs[name].requires_grad_()
    for seed in range(3):  # a single input may meet a ReLU that blocks everything
        values = {name: value.detach() for name, value in case.inputs(seed=seed).items()}
        values |= {name: inputs[name] + 0.1 * seed * values[name] for name in case.differentiable}
        _backward(case.outputs(module, values))
    learned = [(f"parameter {name}", value) for name, value in module.named_parameters() if value.requires_grad]
    learned += [(f"the input {name!r}", inputs[name]) for name in case.differentiable]
    missing = [name for name, value in learned if value.grad is None or not value.grad.any()]
    if missing:
        fail(f"no gradient reaches {', '.join(missing)}")
    infinite = [name for name, value in learned if not value.grad.isfinite().all()]
    if infinite:
        fail(f"the gradient is not finite for {', '.join(infinite)}")


def _backward(outputs: Tensors) -> None:
    values = [value for value in outputs.values() if value.requires_grad]
    if values:
        weighted = [(value * torch.linspace(0.5, 1.5, value.numel()).view(value.shape)).sum() for value in values]
        torch.stack(weighted).sum().backward()


def inference_mode(case: Case) -> None:
    """The output is the same under torch.inference_mode, and training works after it."""
    module, inputs = case.build(), case.inputs()
    with torch.inference_mode():
        found = case.outputs(module, inputs)
    with torch.no_grad():
        expect_same("under inference_mode", found, case.outputs(module, inputs))
    try:
        _backward(case.outputs(module.train(), inputs))
    except RuntimeError as error:
        fail(f"training after inference_mode: {error}")


def state_dict(case: Case) -> None:
    """The state dict holds the whole state: another module with the same state dict gives the same outputs."""
    module, other = case.build(seed=0), case.build(seed=1)
    try:
        other.load_state_dict(module.state_dict())
    except RuntimeError as error:
        fail(str(error))
    with torch.no_grad():
        expected = case.outputs(module, case.inputs())
        expect_same("another module with the same state dict", case.outputs(other, case.inputs()), expected)


def cuda(case: Case) -> None:
    """Outputs on a CUDA device equal those on the CPU, within the precision of its convolutions."""
    device, inputs = _gpu(), case.inputs()
    module = case.build()
    with torch.no_grad():
        expected = case.outputs(module, inputs)
        found = case.outputs(module.to(device), _moved(inputs, device))
    expect_same("on the CUDA device", found, expected, tolerance=1e-2)


def bf16(case: Case) -> None:
    """Outputs under autocast to bfloat16 on a CUDA device agree to about one digit."""
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
