"""A simulated GPU: tensors that report ``cuda:0`` while a CPU holds and computes their values.

Inside ``with SimulatedGPU() as gpu``, ``tensor.to("cuda")``, ``torch.zeros(..., device="cuda")`` and so on work on a
machine without a GPU, and the results are the CPU's. What a GPU would refuse raises RuntimeError or TypeError: an
operation on tensors of both devices (except 0-dim tensors of the CPU, which kernels take as numbers), and ``numpy()``.
What makes a program wait for a GPU is recorded in ``gpu.waits`` as "KIND at FILE:LINE": ``item``, ``tolist``,
``nonzero``, indexing with booleans, and copies between the devices that are not between pinned memory and the GPU with
``non_blocking=True``. These are the operations that ``torch.cuda.set_sync_debug_mode`` reports.

A non-blocking copy to the host is delayed until an event recorded after it is waited for; until then, the host sees
NaN. A copy in a stream that did not wait for the values it copies, or whose source could be freed too early, raises.
"""

import sys
from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from unittest import mock

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

CUDA, CPU = torch.device("cuda", 0), torch.device("cpu")
WAITING = {  # operations whose result, or its size, the host reads
    "_local_scalar_dense": "item",
    "nonzero": "nonzero",
    "masked_select": "masked_select",
    "equal": "equal",
    "allclose": "allclose",
    "_unique2": "unique",
    "unique_dim": "unique",
    "bincount": "bincount",
}
FROM_PYTHON = {"tensor", "as_tensor", "asarray", "new_tensor"}  # factories that copy numbers from the host


class Marked:
    """A set of storages. Views share the storage of what they view, so they are in it too."""

    def __init__(self):
        self._held: dict[int, StorageWeakRef] = {}  # weak references keep the keys from being used again

    def add(self, tensor: Tensor) -> None:
        self._held[tensor.untyped_storage()._cdata] = StorageWeakRef(tensor.untyped_storage())

    def __contains__(self, tensor: Tensor) -> bool:
        return tensor.untyped_storage()._cdata in self._held


class SimulatedGPU:
    """A context manager; see the module."""

    def __init__(self):
        self.waits: list[str] = []  # what made the host wait, in order
        self.event_waits = 0  # how often the host waited for an event
        self.kernels = 0  # operations started on the main stream
        self.resident, self.pinned, self.recorded = Marked(), Marked(), Marked()
        self.copies: list[tuple[Tensor, Tensor, Tensor | None]] = []  # delayed: to, values, source in another stream
        self.stream: _Stream | None = None  # the current one; None is the main stream
        self.place: bool | None = None  # where the running call puts its results; None: where its arguments are
        self.inherited = False  # whether the running call has an argument on the GPU
        self._stack = ExitStack()

    def __enter__(self) -> "SimulatedGPU":
        stand_ins = {
            "is_available": lambda: True,
            "device_count": lambda: 1,
            "mem_get_info": lambda device=None: (1 << 30, 2 << 30),
            "Event": lambda *_, **__: _Event(self),
            "Stream": lambda *_, **__: _Stream(self),
            "current_stream": lambda device=None: _Main(self),
            "stream": self._in_stream,
            "synchronize": lambda device=None: self.wait("synchronize"),
            "empty_cache": lambda: None,
            "manual_seed_all": lambda seed: None,
        }
        for name, value in stand_ins.items():
            self._stack.enter_context(mock.patch.object(torch.cuda, name, value))
        recorded = mock.patch.object(torch.Tensor, "record_stream", lambda tensor, stream: self.recorded.add(tensor))
        self._stack.enter_context(recorded)
        grouped = torch._C._group_tensors_by_device_and_dtype  # it reads devices in C++

        def group(lists, with_indices):
            found = grouped(lists, with_indices)
            return {(CUDA if value[0][0][0] in self.resident else CPU, key[1]): value for key, value in found.items()}

        self._stack.enter_context(mock.patch.object(torch._C, "_group_tensors_by_device_and_dtype", group))
        self._stack.enter_context(_Kernels(self))
        self._stack.enter_context(_Python(self))
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()
        if error[0] is None:
            self.finish(len(self.copies))

    def wait(self, kind: str) -> None:
        """Record that the host waits."""
        self.waits.append(f"{kind} at {_caller()}")

    def finish(self, count: int) -> None:
        """Carry out the first ``count`` delayed copies."""
        done, self.copies = self.copies[:count], self.copies[count:]
        for target, values, source in done:
            if source is not None and source not in self.recorded:
                raise RuntimeError("a tensor is copied in a stream that it was not recorded in (record_stream)")
            with torch.utils._python_dispatch._disable_current_modes():
                target.copy_(values)

    @contextmanager
    def _in_stream(self, stream: "_Stream"):
        before, self.stream = self.stream, stream
        try:
            yield
        finally:
            self.stream = before


class _Stream:
    def __init__(self, gpu: SimulatedGPU):
        self.gpu, self.waited_for = gpu, -1

    def wait_stream(self, other: object) -> None:
        self.waited_for = self.gpu.kernels


class _Main:
    def __init__(self, gpu: SimulatedGPU):
        self.gpu = gpu

    def wait_stream(self, other: object) -> None:
        pass

    def synchronize(self) -> None:
        self.gpu.wait("synchronize")


class _Event:
    def __init__(self, gpu: SimulatedGPU):
        self.gpu, self.after = gpu, None

    def record(self, stream: object = None) -> None:
        self.after = list(self.gpu.copies)

    def synchronize(self) -> None:
        assert self.after is not None, "an event that was not recorded"
        self.gpu.event_waits += 1
        mine = {id(entry) for entry in self.after}
        self.gpu.finish(sum(id(entry) in mine for entry in self.gpu.copies))


def _tensors(value: object) -> list[Tensor]:
    """The tensors in nested tuples, lists and dictionaries, in order."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, (tuple, list)):
        return []
    return [tensor for part in value for tensor in _tensors(part)]


class _Kernels(TorchDispatchMode):
    """Operations: their arguments must be on one device, and their results are there too."""

    def __init__(self, gpu: SimulatedGPU):
        super().__init__()
        self.gpu = gpu

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        gpu, kwargs = self.gpu, kwargs or {}
        if torch.is_inference_mode_enabled():  # operations that consist of others arrive here undivided
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        name = func.overloadpacket.__name__
        tensors = _tensors((args, kwargs))
        here = [t in gpu.resident for t in tensors]
        if name == "copy_" and here[0] != here[1]:
            return self._across(args[0], args[1], (len(args) > 2 and args[2]) or kwargs.get("non_blocking", False))
        if any(here):
            if gpu.place is None and any(not is_here and t.ndim for t, is_here in zip(tensors, here)):
                raise RuntimeError(f"{func}: expected all tensors on the same device, at {_caller()}")
            gpu.kernels += gpu.stream is None
            if name in WAITING:
                gpu.wait(WAITING[name])
            if name in ("index", "index_put", "index_put_", "_index_put_impl_") and any(
                index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1]
            ):
                gpu.wait("boolean index")
        result = func(*args, **kwargs)
        known = {t.untyped_storage()._cdata for t in tensors}
        on_gpu = gpu.place if gpu.place is not None else any(here) or (not tensors and gpu.inherited)
        if on_gpu:
            for tensor in _tensors(result):
                if tensor.untyped_storage()._cdata not in known:
                    gpu.resident.add(tensor)
        return result

    def _across(self, target: Tensor, source: Tensor, non_blocking: bool) -> Tensor:
        gpu = self.gpu
        outwards = source in gpu.resident
        if not (non_blocking and (target if outwards else source) in gpu.pinned):
            gpu.wait("copy to the host" if outwards else "copy to the GPU")
            return target.copy_(source)
        if not outwards:
            return target.copy_(source)
        if gpu.stream is not None and gpu.stream.waited_for < gpu.kernels:
            raise RuntimeError(f"a copy in a stream that did not wait for the values, at {_caller()}")
        gpu.copies.append((target, source.clone(), source if gpu.stream is not None else None))
        return target.fill_(torch.nan) if target.is_floating_point() else target.zero_()


class _Python(TorchFunctionMode):
    """Calls from Python: those that read or name a device."""

    def __init__(self, gpu: SimulatedGPU):
        super().__init__()
        self.gpu = gpu

    def __torch_function__(self, func, types, args=(), kwargs=None):
        gpu, kwargs = self.gpu, dict(kwargs or {})
        name = getattr(func, "__name__", "")
        tensor = args[0] if args and isinstance(args[0], Tensor) else None
        if name == "__get__":
            getter = getattr(getattr(func, "__self__", None), "__name__", "")
            if getter in ("device", "is_cuda", "is_cpu") and tensor is not None:
                here = tensor in gpu.resident
                return {"device": CUDA if here else tensor.device, "is_cuda": here, "is_cpu": not here}[getter]
        if tensor is not None:
            here = tensor in gpu.resident
            if name == "pin_memory":
                return self._pinned(tensor.clone())
            if name == "is_pinned":
                return tensor in gpu.pinned
            if name in ("numpy", "__array__") and here:
                raise TypeError(f"can't convert cuda:0 device type tensor to numpy, at {_caller()}")
            if name == "tolist" and here:
                gpu.wait("tolist")
            if name in ("to", "cpu", "cuda"):
                return self._moved(name, tensor, list(args[1:]), kwargs)
        pin = kwargs.pop("pin_memory", False)
        device = kwargs.pop("device", None)
        place = None if device is None else torch.device(device).type == "cuda"
        inherited = any(value in gpu.resident for value in _tensors((args, kwargs)))
        if name in FROM_PYTHON and (inherited if place is None else place):
            gpu.wait("copy to the GPU")
            made = self._called(lambda: func(*args, **kwargs), False, False)
            return self._called(made.clone, True, False)
        result = self._called(lambda: func(*args, **kwargs), place, inherited)
        return self._pinned(result) if pin else result

    def _pinned(self, tensor: Tensor) -> Tensor:
        self.gpu.pinned.add(tensor)
        return tensor

    def _called(self, call: Callable[[], object], place: bool | None, inherited: bool):
        gpu = self.gpu
        before = gpu.place, gpu.inherited
        gpu.place, gpu.inherited = place, inherited or gpu.inherited
        try:
            return call()
        finally:
            gpu.place, gpu.inherited = before

    def _moved(self, name: str, tensor: Tensor, args: list, kwargs: dict):
        gpu, here = self.gpu, tensor in self.gpu.resident
        if name != "to":
            args = [{"cpu": CPU, "cuda": CUDA}[name]]
        target, dtype = here, kwargs.pop("dtype", None)
        if isinstance(kwargs.get("device"), (str, torch.device)):
            args = [kwargs.pop("device"), *args]
        if args and isinstance(args[0], Tensor):  # to(other): its device and type
            other = args.pop(0)
            target, dtype = other in gpu.resident, other.dtype
        elif args and isinstance(args[0], (str, torch.device)):
            target = torch.device(args.pop(0)).type == "cuda"
        if args and (args[0] is None or isinstance(args[0], torch.dtype)):
            dtype = args.pop(0) or dtype
        names = ("non_blocking", "copy")
        options = {"memory_format": None, **dict(zip(names, (False, False))), **dict(zip(names, args)), **kwargs}
        non_blocking, crosses = options.pop("non_blocking"), target != here
        options["copy"] = options["copy"] or crosses
        if crosses and not (non_blocking and target and tensor in gpu.pinned):
            if non_blocking and not target:
                raise RuntimeError(f"to('cpu', non_blocking=True) returns before the values are there, at {_caller()}")
            gpu.wait("copy to the GPU" if target else "copy to the host")
        if options["memory_format"] is None:
            options.pop("memory_format")
        return self._called(lambda: tensor.to(dtype or tensor.dtype, **options), target if crosses else None, here)


def _caller() -> str:
    """FILE:LINE of the innermost frame that is neither PyTorch's nor this file's."""
    frame = sys._getframe(1)
    while frame.f_back is not None and ("/torch/" in frame.f_code.co_filename or frame.f_code.co_filename == __file__):
        frame = frame.f_back
    return f"{frame.f_code.co_filename.rpartition('/')[2]}:{frame.f_lineno}"
