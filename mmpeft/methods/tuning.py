"""Methods that insert nothing and choose which parameters of the base train."""

from torch import nn

from mmpeft.methods.method import Tuning

NORMS = (nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._BatchNorm)
# What stock layers call their biases.
BIASES = ('bias', 'in_proj_bias', 'q_bias', 'v_bias')


class Frozen(Tuning):
    """Train no parameter of the backbone: the baseline that every adapter has to beat."""

    def trained(self, backbone: nn.Module, blocks: list[str]) -> set[str]:
        return set()


class Full(Tuning):
    """Train every parameter of the backbone."""

    def trained(self, backbone: nn.Module, blocks: list[str]) -> set[str]:
        return {name for name, _ in backbone.named_parameters()}


class BitFit(Tuning):
    """Train the biases of all layers.

    Args:
        tables: Train the tables of relative position biases as well. The count that the Mona paper prints has them,
            because its code takes every parameter with "bias" in its name.

    Source: Ben Zaken et al. 2022, arXiv:2106.10199.
    """

    def __init__(self, tables: bool = False) -> None:
        self.leaves = (*BIASES, *(['relative_position_bias_table'] if tables else []))

    def trained(self, backbone: nn.Module, blocks: list[str]) -> set[str]:
        return {name for name, _ in backbone.named_parameters() if name.rsplit('.', 1)[-1] in self.leaves}


class NormTuning(Tuning):
    """Train the weights and biases of all norm layers, those of the outputs included."""

    def trained(self, backbone: nn.Module, blocks: list[str]) -> set[str]:
        norms = [(name, module) for name, module in backbone.named_modules() if isinstance(module, NORMS)]
        return {f'{name}.{leaf}' for name, norm in norms for leaf, _ in norm.named_parameters(recurse=False)}


class Partial(Tuning):
    """Train the last ``k`` blocks.

    Raises:
        ValueError: ``k`` is below 1, or there are fewer blocks.
    """

    def __init__(self, k: int = 1) -> None:
        if k < 1:
            raise ValueError(f'Partial needs k of at least 1, got {k}.')
        self.k = k

    def trained(self, backbone: nn.Module, blocks: list[str]) -> set[str]:
        if self.k > len(blocks):
            raise ValueError(f'Partial cannot train the last {self.k} of {len(blocks)} blocks.')
        last = tuple(f'{name}.' for name in blocks[-self.k :])
        return {name for name, _ in backbone.named_parameters() if name.startswith(last)}
