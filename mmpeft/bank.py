"""Many tasks on one base: each is a model of its own whose frozen base is the one tensor that all of them hold."""

import copy
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mmpeft.adapter_file import WrongModelError
from mmpeft.contents import adapted_backbone
from mmpeft.fingerprint import base_names
from mmpeft.freeze import freeze
from mmpeft.hosts import Backbone, find_backbone
from mmpeft.inject import inject
from mmpeft.methods.configs import chosen_options, normal, parse
from mmpeft.opened_file import AdapterFile, read_adapters
from mmpeft.report import listed

# In a pattern of a file: each of them can make a search longer by a factor of the length of a name or of the pattern.
MOST_BRANCHES = 3


@dataclass(frozen=True)
class Task:
    """A model, and the lock of whoever is running it."""

    model: nn.Module
    lock: Any = field(default_factory=threading.RLock)


class AdapterBank:
    """One base in memory and many tasks on it; switching chooses a model and copies nothing.

    A task is a backbone, or a whole model with neck and heads, of any library. Its frozen base tensors are those of the
    bank, the same objects; adapters, trained base tensors, output norms, tables of positions, neck and heads are its
    own. It computes what it computes without a bank, bit for bit.

    Threads: different tasks may run at the same time. ``activate`` chooses the task of the next call for all threads
    and does not touch a call that runs. Threads with tasks of their own take them by ``use``, which lets one thread at
    a time have a task.

    The base is never written: loading another base into a task, or merging one in place, is refused. Of writes all the
    same, those in place that torch counts are found out before the next use; others, as through ``.data``, at the next
    ``add``, which compares the base anew with that of its file. ``copy.deepcopy`` of a task has a base of its own.

    Args:
        backbone: A stock backbone with its pretrained weights. The bank freezes it and holds its tensors.

    Raises:
        ValueError: It carries adapters already, or is no backbone that mmpeft knows.
    """

    def __init__(self, backbone: nn.Module) -> None:
        _check_stock(backbone)
        self._stock = backbone.requires_grad_(False)
        self._tasks: dict[str, Task] = {}
        self._versions = [(parameter, parameter._version) for parameter in backbone.parameters()]
        self.active: str | None = None

    def add(self, name: str, file: str | Path | AdapterFile, model: nn.Module | None = None) -> nn.Module:
        """Add a task from its adapter file.

        Args:
            name: What to call it.
            file: A file of ``save_adapters``, or what was read from one.
            model: The model of the task, built from its config, which the bank takes over: weights are not needed. By
                default a copy of the bank's backbone gets the methods of the file and, of a file of a whole model,
                the part of the backbone.

        Returns:
            The model of the task, in eval mode, on the device of the bank.

        Raises:
            AdapterFileError: The file is damaged, of another model, or of another base than the bank's.
            ValueError: There is a task of this name.
        """
        if name in self._tasks:
            raise ValueError(f'The bank has a task {name!r} already; remove it first, or choose another name.')
        self._check_unwritten()
        file = file if isinstance(file, AdapterFile) else read_adapters(file)
        if model is None:
            file = _of_backbone(file)
            model = self._copy_of_stock(file)
        backbone = adapted_backbone(model)[1]
        base = self._base_of(backbone)
        file.check_model(model, base)
        _share(base, backbone)
        model.load_state_dict(file.tensors, strict=False)
        model.to(self.device)
        model.eval()
        self._tasks[name] = Task(model)
        return model

    def remove(self, name: str) -> None:
        """Forget a task; if it is the active one, none is."""
        self._find(name)
        del self._tasks[name]
        if self.active == name:
            self.active = None

    def list(self) -> list[str]:
        """The names of the tasks, in the order in which they were added."""
        return [*self._tasks]

    def task(self, name: str) -> nn.Module:
        """The model of a task."""
        self._check_unwritten()
        return self._find(name).model

    def activate(self, name: str) -> nn.Module:
        """Let calls of the bank run the task ``name``, and give its model."""
        model = self.task(name)
        self.active = name
        return model

    @contextmanager
    def use(self, name: str) -> Iterator[nn.Module]:
        """The model of a task, which no other thread can ``use`` meanwhile; the active task stays what it is."""
        self._check_unwritten()
        task = self._find(name)
        with task.lock:
            yield task.model

    def __call__(self, *args, **kwargs) -> Any:
        """What the active task makes of an input."""
        if self.active is None:
            raise RuntimeError(f'No task of the bank is active; call activate with one of {", ".join(self._tasks)}.')
        with self.use(self.active) as model:
            return model(*args, **kwargs)

    def to(self, *args, **kwargs) -> 'AdapterBank':
        """Move the base and all tasks, as ``nn.Module.to``; a task alone would take the base with it."""
        for module in (self._stock, *(task.model for task in self._tasks.values())):
            module.to(*args, **kwargs)
        return self

    @property
    def device(self) -> torch.device:
        """Where the base is."""
        return next(self._stock.parameters()).device

    def _find(self, name: str) -> Task:
        if name not in self._tasks:
            raise ValueError(f'The bank has no task {name!r}; it has {", ".join(self._tasks) or "none"}.')
        return self._tasks[name]

    def _copy_of_stock(self, file: AdapterFile) -> nn.Module:
        """The backbone of the bank with the methods of a file, which a copy without memory has been found to fit."""
        methods = _methods_of(file)
        blank = _without_memory(self._stock)
        try:
            inject(blank, methods)
        except (ValueError, TypeError, RuntimeError, OverflowError, re.error) as error:
            raise WrongModelError(f'{file.path} names methods that this backbone cannot carry: {error}') from error
        file.check_shapes(blank)
        model = copy.deepcopy(self._stock)
        inject(model, methods)
        freeze(model)
        return model

    def _base_of(self, backbone: Backbone) -> dict[str, nn.Parameter]:
        """The tensors of the bank that are to stand in the places of the frozen base of ``backbone``."""
        base, own = dict(self._stock.named_parameters()), dict(backbone.named_parameters())
        names = sorted(base_names(backbone))
        other = [name for name in names if _kind(base.get(name)) != _kind(own[name])]
        if other:
            raise WrongModelError(
                f'The backbone of the task has another base than the bank: {listed(other)} differ in shape or dtype, '
                f'for example {_kind(own[other[0]])} where the bank has {_kind(base.get(other[0]))}.'
            )
        return {name: base[name] for name in names}

    def _check_unwritten(self) -> None:
        if any(parameter._version != version for parameter, version in self._versions):
            raise RuntimeError('The base of this bank was written to, and every task depends on it: build it anew.')


def _share(base: dict[str, nn.Parameter], backbone: Backbone) -> None:
    """Put the tensors of ``base`` in their places in ``backbone``; the file has the rest."""
    for name, parameter in base.items():
        owner, _, leaf = name.rpartition('.')
        setattr(backbone.get_submodule(owner), leaf, parameter)
    backbone.missing, backbone.shared = frozenset(), frozenset(base)


def _check_stock(backbone: nn.Module) -> None:
    if isinstance(backbone, Backbone):
        raise ValueError('A bank takes the stock backbone, and this one carries adapters: give it before inject.')
    if find_backbone(type(backbone)) is None:
        raise ValueError(f'A bank takes a stock backbone that mmpeft knows, not a {type(backbone).__name__}.')


def _methods_of(file: AdapterFile) -> list[dict]:
    """The methods of a file, for a backbone that it is to choose the adapters of.

    Raises:
        WrongModelError: A pattern of blocks could keep the search for blocks busy for ever.
    """
    for pattern in (str(method.get('blocks', '')) for method in file.info.methods):
        if not _ends_soon(pattern):
            raise WrongModelError(
                f'{file.path} chooses blocks by {pattern!r:.80}, which may search for ever: there may be '
                f'{MOST_BRANCHES} groups and repeats, and no group may repeat. Give the model of the task, built from '
                'its config, as third argument.'
            )
    try:
        return [chosen_options(config) for config in parse([normal(config) for config in file.info.methods])]
    except (ValueError, TypeError) as error:
        raise WrongModelError(f'{file.path} names methods that this version does not know: {error}') from error


def _ends_soon(pattern: str) -> bool:
    """Whether a search for ``pattern`` in the name of a block ends soon, whatever stranger wrote it."""
    branches = re.findall(r'\(|(?<!\()[*+?{]', pattern)
    return len(pattern) <= 200 and len(branches) <= MOST_BRANCHES and not re.search(r'\)[*+?{]', pattern)


def _without_memory(module: nn.Module) -> nn.Module:
    """A copy of ``module`` whose tensors have names, shapes and dtypes alone."""
    tensors = [*module.parameters(), *module.buffers()]
    return copy.deepcopy(module, {id(tensor): _blank(tensor) for tensor in tensors})


def _blank(tensor: torch.Tensor) -> torch.Tensor:
    blank = torch.empty_like(tensor, device='meta')
    return nn.Parameter(blank, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else blank


def _of_backbone(file: AdapterFile) -> AdapterFile:
    """The part of a file that is of the backbone alone."""
    prefix = f'{file.info.backbone}.' if file.info.backbone else ''
    tensors = {name.removeprefix(prefix): t for name, t in file.tensors.items() if name.startswith(prefix)}
    return replace(file, info=replace(file.info, backbone=''), tensors=tensors)


def _kind(tensor: torch.Tensor | None) -> tuple | None:
    return None if tensor is None else (tuple(tensor.shape), tensor.dtype)
