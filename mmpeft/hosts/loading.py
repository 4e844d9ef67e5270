"""Loading into an adapted backbone: checkpoints, bases and adapter files, each at the moment it comes."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from mmpeft.hosts.base import KnowsBase
from mmpeft.hosts.host import adapters_of, is_adapter, start


class Loading(KnowsBase):
    """The part of an adapted backbone that state dicts meet.

    An adapter file is checked before anything is loaded, a base that tasks of a bank share is not loaded anew, and what
    gets values is noted.

    Attributes:
        find_base: Looks for the base of an adapter file that comes to a backbone without one.
        shared: The names of the base tensors that other models hold, too, as the tasks of a bank do.
    """

    state = ('find_base', 'shared', '_expected_missing', '_filled', '_load_hook')
    find_base: Callable[['Loading', Any], None] | None = None
    shared: frozenset[str] = frozenset()
    _expected_missing: frozenset[str] = frozenset()
    _filled: frozenset[str] = frozenset()

    def watch_loading(self) -> None:
        """Have ``after_loading`` called whenever a state dict was loaded."""
        self._load_hook = self.register_load_state_dict_post_hook(after_loading)

    def restore(self) -> None:
        self._load_hook.remove()
        super().restore()

    def _load_from_state_dict(self, state_dict, prefix, local_metadata, *args, **kwargs):
        adapter_file = local_metadata.get('mmpeft')
        if adapter_file is not None:
            adapter_file.check_backbone(self, prefix)
            self._expected_missing = frozenset(prefix + name for name in self.state_dict()) - state_dict.keys()
        self._check_shared(state_dict, prefix)
        sizes = {name: parameter.shape for name, parameter in self.named_parameters()}
        # mmpretrain renames the keys of old files only where `self.__class__` is its own Swin.
        adapted_class, self.__class__ = self.__class__, self.stock
        try:
            self._load_from_state_dict(state_dict, prefix, local_metadata, *args, **kwargs)
        finally:
            self.__class__ = adapted_class
        filled = {name for name, size in sizes.items() if getattr(state_dict.get(prefix + name), 'shape', None) == size}
        self._filled = frozenset(filled)
        self.values_given(self._filled)

    def _check_shared(self, state_dict: Mapping[str, Tensor], prefix: str) -> None:
        given = [name for name in self.shared if prefix + name in state_dict]
        if given:
            raise ValueError(
                f'The base of this {type(self).__name__} is shared by all tasks of a bank and cannot be loaded anew, '
                f'and {len(given)} of its tensors are given. Load into a copy: copy.deepcopy(model).'
            )

    def __reduce__(self):
        # A copy has tensors of its own.
        blank, classes, content = super().__reduce__()
        return blank, classes, {name: value for name, value in content.items() if name != 'shared'}


def after_loading(backbone: Loading, incompatible: Any) -> None:
    """Report no key as missing that an adapter file leaves to the base, and start what starts from a new base."""
    incompatible.missing_keys[:] = [
        name for name in incompatible.missing_keys if name not in backbone._expected_missing
    ]
    filled, backbone._filled, backbone._expected_missing = backbone._filled, frozenset(), frozenset()
    if all(map(is_adapter, filled)):
        return
    for place, adapter in adapters_of(backbone):
        owner, _, site = place.rpartition('.')
        own = f'{owner}.adapters.{site}.'.lstrip('.')
        if adapter.has_own('start_from') and not any(name.startswith(own) for name in filled):
            start(backbone, place)
