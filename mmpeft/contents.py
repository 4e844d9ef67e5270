"""Which tensors of a model an adapter file holds, and which of its base it asks for."""

from collections.abc import Mapping

from torch import Tensor, nn

from mmpeft.fingerprint import base_names
from mmpeft.freeze import adapted_backbones, is_adapter
from mmpeft.hosts import Backbone
from mmpeft.methods.tuning import NORMS
from mmpeft.report import listed


def differences_of(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> list[str]:
    """What a file with the tensors ``found`` lacks of those ``expected``, has besides, or has in other shapes."""
    lacking, extra = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
    differences = [f'lacks {listed(lacking)}'] if lacking else []
    differences += [f'has {listed(extra)} besides'] if extra else []
    differences += [
        f'has {name} of shape {tuple(found[name].shape)}, and the model one of {tuple(tensor.shape)}'
        for name, tensor in expected.items()
        if name in found and found[name].shape != tensor.shape
    ][:3]
    return differences


def as_known(model: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of ``model`` by the names by which files know them again in other forms of its backbone."""
    known = dict(tensors)
    for name, backbone in adapted_backbones(model).items():
        prefix = f'{name}.' if name else ''
        for leaf in [key.removeprefix(prefix) for key in known if key.startswith(prefix)]:
            known[prefix + backbone.known_as(leaf)] = known.pop(prefix + leaf)
    return known


def missing_base(backbone: Backbone) -> list[str]:
    """The names of the frozen tensors of the base that were never given a value."""
    return sorted(backbone.missing & base_names(backbone))


def adapted_backbone(model: nn.Module) -> tuple[str, Backbone]:
    """The one adapted backbone of ``model`` and its name.

    Raises:
        ValueError: There is none, or more than one.
    """
    found = adapted_backbones(model)
    if len(found) != 1:
        names = f': {", ".join(found)}' if found else '; call mmpeft.inject on its backbone first'
        raise ValueError(f'{type(model).__name__} has {len(found)} adapted backbones{names}. A file is of one.')
    return next(iter(found.items()))


def tensors_to_save(model: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those of the tensors of ``model`` that an adapter file holds: all but the frozen base and its constants."""
    left_out = set()
    for name, backbone in adapted_backbones(model).items():
        left_out |= {f'{name}.{leaf}'.lstrip('.') for leaf in base_names(backbone) | _constants(backbone)}
    return {name: tensor for name, tensor in state.items() if name not in left_out}


def _constants(backbone: Backbone) -> set[str]:
    """The buffers of a backbone that nothing changes: indices and the like, not the statistics of norms."""
    owners = {name: module for name, module in backbone.named_modules() if not isinstance(module, NORMS)}
    found = ((owner, leaf) for owner, module in owners.items() for leaf, _ in module.named_buffers(recurse=False))
    names = {f'{owner}.{leaf}'.lstrip('.') for owner, leaf in found}
    return {name for name in names if not is_adapter(name)}
