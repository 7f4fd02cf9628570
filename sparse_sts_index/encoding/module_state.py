"""Notice, in microseconds, that a model is no longer what it was."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

_SAMPLED = 16  # numbers of a parameter, evenly spread


class Structure:
    """The submodules of a module, none of which has a hook or a forward method of its own.

    The module itself may have: its forward pass is where this is asked. accelerate replaces it for mixed precision.

    Parameters
    ----------
    module : torch.nn.Module
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._parts = [(part, part._modules, tuple(part._modules.values())) for part in module.modules()]  # noqa: SLF001

    def unchanged(self) -> bool:
        """Return whether the submodules are the same, still without hooks."""
        return all(
            tuple(children.values()) == before and (part is self._module or not is_watched(part))
            for part, children, before in self._parts
        )

    def training(self) -> bool:
        """Return whether any submodule is in training mode."""
        return any(part.training for part, _, _ in self._parts)


class Weights:
    """The parameters of modules, and their values.

    A change is noticed by the identity, address and version counter of each parameter. One made through ``.data`` or
    shared memory counts no version. It is noticed by a sample of 16 numbers of each parameter: always if it changes
    whole parameters, as an optimizer does, but not if it changes a few rows.

    Parameters
    ----------
    modules : iterable of torch.nn.Module
        Their parameters are contiguous, of float32, on the CPU, and no inference tensors.
    """

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        self._places = [
            (module._parameters, name, parameter)  # noqa: SLF001
            for module in modules
            for name, parameter in module._parameters.items()  # noqa: SLF001
        ]
        weights = {id(weight): weight for _, _, weight in self._places if weight is not None}.values()
        self._versions = [(weight, weight.data_ptr(), weight._version) for weight in weights]  # noqa: SLF001
        self._samples = [_sample(weight).numpy() for weight in weights]
        self._sampled = [sample.tobytes() for sample in self._samples]

    def unchanged(self) -> bool:
        """Return whether the parameters are the same, with the same values."""
        return (
            all(owner.get(name) is parameter for owner, name, parameter in self._places)
            and all(w.data_ptr() == address and w._version == version for w, address, version in self._versions)  # noqa: SLF001
            and [sample.tobytes() for sample in self._samples] == self._sampled
        )


def is_watched(module: nn.Module) -> bool:
    """Return whether something happens when a module is called, beyond what its class says."""
    return bool(module._forward_pre_hooks or module._forward_hooks or "forward" in module.__dict__)  # noqa: SLF001


def has_global_hooks() -> bool:
    """Return whether torch calls hooks for the modules of all models."""
    hooks: Any = torch.nn.modules.module
    return bool(hooks._global_forward_hooks or hooks._global_forward_pre_hooks)  # noqa: SLF001


def is_as_made(model: PreTrainedModel) -> bool:
    """Return whether a model's submodules have the types and settings that its class gives them for its configuration.

    Another type of a submodule, or another epsilon, number of heads or activation function, computes something else
    from the same parameters. Another probability of dropout does not, but in training.
    """
    with torch.device("meta"):
        made = type(model)(copy.deepcopy(model.config))
    found, expected = (dict(part.named_modules(remove_duplicate=False)) for part in (model, made))
    if {name: type(part) for name, part in found.items()} != {name: type(part) for name, part in expected.items()}:
        return False
    for name, part in found.items():
        if not isinstance(part, PreTrainedModel | nn.Dropout) and _settings(part) != _settings(expected[name]):
            return False
        for kind, buffer in part.named_buffers(recurse=False):
            if kind == "position_ids" and not torch.equal(buffer.flatten(), torch.arange(buffer.numel())):
                return False
            if kind != "position_ids" and bool(buffer.any()):  # token types
                return False
    return True


def _settings(module: nn.Module) -> dict[str, object]:
    """Return the numbers and functions among a module's attributes."""
    return {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("_") and name != "training" and (isinstance(value, int | float | str) or callable(value))
    }


def _sample(weight: Tensor) -> Tensor:
    """Return a view of some numbers of a parameter."""
    flat = weight.detach().view(-1)
    return flat[:: max(1, len(flat) // _SAMPLED)]
