"""Learned soups: mixing coefficients trained on held-out data, with the memory of one model."""

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmpeft.hosts import find_backbone
from mmpeft.report import listed
from mmpeft.soups.ingredients import Ingredient, SoupError, differs, open_ingredients
from mmpeft.soups.mixing import mix, mix_tensor, warn_of_statistics
from mmpeft.soups.recipes import State

GROUPS = ('block', 'tensor', 'global')


@dataclass(frozen=True)
class LearnedSoup:
    """A learned soup.

    Attributes:
        state_dict: The mix.
        ingredients: All files, as they were named.
        coefficients: For each group of tensors the share of each file; they sum to 1.
        inverse_temperature: What the logits are to be multiplied by; 1 where it was not learned.
        losses: The loss of each batch at its visit.
    """

    state_dict: State
    ingredients: list[str]
    coefficients: dict[str, list[float]]
    inverse_temperature: float
    losses: list[float]


def learned_soup(
    files: Iterable[str | Path],
    model: nn.Module,
    batches: Iterable[Any],
    loss: Callable[..., Tensor],
    *,
    by: str = 'block',
    temperature: bool = False,
    epochs: int = 5,
    lr: float = 0.05,
    seed: int = 0,
    finish: Callable[[State], State] | None = None,
    insist: bool = False,
) -> LearnedSoup:
    """The weighted mean of all files whose weights make the loss on held-out data small.

    The coefficients are a softmax, equal at the start, and AdamW trains them without decay. In each step the mix is
    written into ``model``, which runs forward and backward as always; the gradient of a coefficient is the inner
    product of the mix's gradient with the file's tensors. So it is exact, needs the memory of one model whatever the
    number of files, and is right under activation checkpointing.

    Tensors that are equal in all files take no part. Frozen parameters do, if they are not. Buffers such as the
    statistics of BatchNorm are mixed by the coefficients of their group and tell nothing about them; alone in a group
    they are averaged.

    Args:
        files: Adapter files, or ``.pth`` checkpoints of whole models, of runs from one start.
        model: A model that the files load into. It runs in eval mode, and is left as it was.
        batches: Held-out data, gone through once in each epoch.
        loss: ``loss(model, batch)`` computes a scalar; with ``temperature`` it is ``loss(model, batch, beta)``, and
            multiplies its logits by the number ``beta``.
        by: What has coefficients of its own: each 'block' of the backbone and each other part of the model, such as
            its neck; each 'tensor'; or all together, 'global'.
        temperature: Learn an inverse temperature, too.
        epochs: How often the batches are gone through.
        lr: The learning rate.
        seed: What random draws in the loss depend on, beside the number of the batch.
        finish: What is done to the mix in the end, such as giving its BatchNorm layers statistics of their own.
        insist: Mix files that differ in their start, their held-out images or their classes, or do not name them.

    Raises:
        SoupError: The files do not mix or are not of the model, there is no batch, or the loss is not a number.
        AdapterFileError: An adapter file is missing or damaged, or not of the model.

    Source: Wortsman et al. 2022, arXiv:2203.05482, and the settings of the authors' code.
    """
    from mmpeft.random_state import fixed_randomness

    if by not in GROUPS:
        raise ValueError(f'Coefficients are by {", ".join(GROUPS)}, got {by!r}.')
    if iter(batches) is batches:
        raise SoupError('The batches can be gone through only once; pass a list or a loader.')
    ingredients = open_ingredients(files, insist)
    ingredients[0].check_model(model)
    if finish is None:
        warn_of_statistics(ingredients)
    mixture = Mixture(ingredients, model, by)
    if not mixture.targets:
        raise SoupError('All files hold the same tensors: there is nothing to learn.')
    device = next(model.parameters()).device
    beta = torch.ones((), device=device, requires_grad=temperature)
    optimizer = torch.optim.AdamW([mixture.raw, *([beta] if temperature else [])], lr=lr, weight_decay=0)
    losses = []
    with _left_as_it_was(model, mixture.targets):
        for _ in range(epochs):
            for number, batch in enumerate(batches):
                optimizer.zero_grad()
                mixture.write()
                with fixed_randomness(seed + number):
                    value = loss(model, batch, beta) if temperature else loss(model, batch)
                    _check(value, number)
                    value.backward()
                mixture.backward()
                optimizer.step()
                losses.append(value.item())
    if not losses:
        raise SoupError('A learned soup needs at least one batch and one epoch, got none.')
    mixture.warn_of_unused()
    state = mix(ingredients, mixture.shares())
    coefficients = dict(zip(mixture.groups, mixture.raw.detach().softmax(1).tolist(), strict=True))
    paths = [ingredient.path for ingredient in ingredients]
    return LearnedSoup(finish(state) if finish else state, paths, coefficients, beta.item(), losses)


class Mixture:
    """Coefficients, and the tensors of a model that they mix.

    Attributes:
        raw: The coefficients before their softmax, fp64. Shape: (groups, ingredients).
        groups: The names of the groups.
        targets: The parameters and buffers of the model, by name, in which the ingredients differ.
    """

    def __init__(self, ingredients: list[Ingredient], model: nn.Module, by: str) -> None:
        self.ingredients = ingredients
        state = model.state_dict(keep_vars=True)
        names = [name for name, tensor in ingredients[0].tensors.items() if tensor.is_floating_point()]
        self.targets = {name: state[name] for name in names if differs(name, ingredients)}
        # A tensor that has two names, as heads that share a layer have, is one, and so are its coefficients.
        first = {}
        self.owners = {name: first.setdefault(id(tensor), name) for name, tensor in self.targets.items()}
        blocks = _blocks(model)
        group_of = {name: _group(owner, by, blocks) for name, owner in self.owners.items()}
        self.groups = list(dict.fromkeys(group_of.values()))
        self.rows = {name: self.groups.index(group) for name, group in group_of.items()}
        self.raw = torch.zeros(len(self.groups), len(ingredients), dtype=torch.float64, requires_grad=True)
        self.used = set()

    def shares(self) -> dict[str, list[float]]:
        """How much of each ingredient goes into each target."""
        shares = self.raw.detach().softmax(1).tolist()
        return {name: shares[row] for name, row in self.rows.items()}

    @torch.no_grad()
    def write(self) -> None:
        """Write the mix into the model, which forgets its gradients."""
        shares = self.shares()
        for name, target in self.targets.items():
            target.copy_(mix_tensor(name, self.ingredients, shares[name]))
            target.grad = None

    def backward(self) -> None:
        """Take the gradients of the model's parameters on to the coefficients."""
        products = torch.zeros_like(self.raw)
        for name, target in self.targets.items():
            if target.grad is not None and self.owners[name] == name:
                self.used.add(name)
                products[self.rows[name]] += _inner_products(target.grad, name, self.ingredients)
        self.raw.softmax(1).backward(products)

    def warn_of_unused(self) -> None:
        """Warn of parameters that no batch gave a gradient."""
        parameters = [n for n, target in self.targets.items() if isinstance(target, nn.Parameter)]
        unused = [name for name in parameters if self.owners[name] not in self.used]
        if unused:
            warnings.warn(f'The loss does not depend on {listed(unused)}: no batch gave a gradient.', stacklevel=3)


def _inner_products(grad: Tensor, name: str, ingredients: list[Ingredient]) -> Tensor:
    """The inner product of a gradient with the tensor of each ingredient, one in memory at a time."""
    grad = grad.double()
    return torch.stack([(grad * i.tensors[name].to(grad.device).double()).sum().cpu() for i in ingredients])


def _blocks(model: nn.Module) -> list[str]:
    """The names of the blocks of the backbones in a model."""
    found = {name: module for name, module in model.named_modules() if find_backbone(type(module))}
    return [
        f'{name}.{block}'.lstrip('.')
        for name, module in found.items()
        for block in find_backbone(type(module)).blocks_of(module)
    ]


def _group(name: str, by: str, blocks: list[str]) -> str:
    if by != 'block':
        return name if by == 'tensor' else 'all'
    return next((block for block in blocks if name.startswith(f'{block}.')), name.partition('.')[0])


def _check(loss: Any, number: int) -> None:
    if not torch.is_tensor(loss) or loss.numel() != 1:
        raise SoupError(f'The loss of batch {number} is no scalar tensor, but {loss!r:.80}.')
    if not loss.isfinite():
        raise SoupError(f'The loss of batch {number} is {loss.item()}; other files may help.')


@contextmanager
def _left_as_it_was(model: nn.Module, targets: Mapping[str, Tensor]) -> Iterator[None]:
    """Prepare a model for learning: eval mode, gradients for all targets; put everything back in the end."""
    from mmpeft.random_state import random_state, set_random_state

    modes = {module: module.training for module in model.modules()}
    grads = {parameter: (parameter.requires_grad, parameter.grad) for parameter in model.parameters()}
    buffers = {module: dict(module.named_buffers(recurse=False)) for module in model.modules()}
    values = {tensor: tensor.detach().clone() for tensor in {*targets.values(), *model.buffers()}}
    drawn = random_state()
    try:
        model.eval()
        for parameter in grads:
            parameter.grad = None
        for tensor in targets.values():
            tensor.requires_grad_(isinstance(tensor, nn.Parameter))
        yield
    finally:
        with torch.no_grad():
            for tensor, value in values.items():
                tensor.copy_(value)
        for parameter, (requires_grad, grad) in grads.items():
            parameter.requires_grad_(requires_grad)
            parameter.grad = grad
        for module, mode in modes.items():
            module.training = mode
            for name, buffer in buffers[module].items():
                setattr(module, name, buffer)
        set_random_state(drawn)
