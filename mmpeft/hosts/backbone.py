"""What every adapted backbone keeps true while mm builds, initialises, loads, freezes and trains it."""

import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mmpeft.hosts.host import Host, adapters_of, hidden_adapters
from mmpeft.hosts.modes import eval_frozen_parts
from mmpeft.start import draw

MM_INITIALISERS = 'mmengine.model.weight_init'
MM_CHECKPOINTING = 'mmengine.runner.activation_checkpointing'


LOAD_HOOK = 'mmpeft'


def _forget_base(backbone: 'Backbone', incompatible: Any) -> None:
    """Take what an adapter file leaves to the base out of the missing keys that the loader is about to report."""
    incompatible.missing_keys[:] = [n for n in incompatible.missing_keys if n not in backbone._names_not_in_file]
    backbone._names_not_in_file = frozenset()


class Backbone(Host):
    """Mixin placed before a stock backbone class.

    ``places`` gives for each site of this kind of backbone a pattern that the full names of its owners match, and
    ``block`` the pattern of its blocks.
    ``bias_options`` gives for names of biases that may be absent the option of the stock class that makes them.
    ``fresh`` matches the names of base parameters that no pretrained file holds, and ``tables`` those of positions,
    which stock code resizes to the input of the task. ``missing`` names the base parameters, fresh ones aside, that
    were never given a value; a backbone adapted from Python is taken as it is and misses none. ``find_base`` then
    looks for the base of an adapter file. ``adapter_methods`` holds the configs of the injected methods, and
    ``digests`` those digests of base tensors that were computed.
    ``shared`` names the base tensors that other models hold, too, as the tasks of a bank do: nothing may change them.
    ``eval_frozen`` keeps the parts in which no base parameter trains in eval mode, from the next ``train()`` on.
    """

    state = (
        'adapter_methods',
        'missing',
        'allow_random_base',
        'eval_frozen',
        'find_base',
        'digests',
        'shared',
        '_names_not_in_file',
        '_adapters_loaded',
        '_ready',
    )
    places: dict[str, str] = {}
    block = r'(?!)'
    bias_options: dict[str, str] = {}
    fresh = r'(?!)'
    tables = r'(.*\.)?(relative_position_bias_table|absolute_pos_embed|pos_embed)'
    adapter_methods: tuple[dict, ...] = ()
    missing: frozenset[str] = frozenset()
    allow_random_base = False
    eval_frozen = False
    find_base: Callable[['Backbone', Any], None] | None = None
    digests: dict[str, tuple[int, str]] | None = None
    shared: frozenset[str] = frozenset()
    _names_not_in_file: frozenset[str] = frozenset()
    _adapters_loaded = False
    _ready = False

    @classmethod
    def blocks_of(cls, module: nn.Module) -> list[str]:
        """The full names of the blocks of a stock backbone, in order."""
        return [name for name, _ in module.named_modules() if re.fullmatch(cls.block, name)]

    @classmethod
    def shared_sizes(cls, module: nn.Module) -> dict:
        """The sizes of a stock backbone that any adapter in it may be built from."""
        return dict(depth=len(cls.blocks_of(module)))

    def wire(self) -> None:
        """Connect what the adapted modules of this backbone share; called once, after the classes are swapped."""

    def norm_before(self, name: str) -> nn.LayerNorm | None:
        """The norm whose output alone the linear layer ``name`` reads, if the layer has full row rank and no bias."""
        return None

    def expect_base(self) -> None:
        """Ask for every base parameter: training is refused until loaded files have filled them."""
        with hidden_adapters(self):
            self.missing = frozenset(n for n, _ in self.named_parameters() if not re.fullmatch(self.fresh, n))

    def train(self, mode: bool = True) -> 'Backbone':
        """As the stock class, some of which return None; ``eval_frozen`` then has its way."""
        super().train(mode)
        if mode and self.eval_frozen:
            eval_frozen_parts(self, self.block)
        return self

    def forward(self, x: Tensor, *args, **kwargs):
        if self.training and not self._ready and torch.is_grad_enabled():
            self._check_base()
            self._check_checkpointing()
            self._ready = True
        return super().forward(x, *args, **kwargs)

    def _check_base(self) -> None:
        if not self.missing or self.allow_random_base:
            return
        names = sorted(self.missing)
        listed = ', '.join(names[:3]) + (', ...' if len(names) > 3 else '')
        raise RuntimeError(
            f'{len(names)} tensors of the frozen base ({type(self).__name__}) were never given pretrained weights: '
            f"{listed}. Give them by backbone.init_cfg=dict(type='Pretrained', checkpoint=...), by load_from or by "
            '--resume. To train on a random base all the same, set allow_random_base=True beside method.'
        )

    def _check_checkpointing(self) -> None:
        for name, module in self.named_modules():
            forward = vars(module).get('forward')
            if getattr(forward, '__globals__', {}).get('__name__') == MM_CHECKPOINTING:
                raise RuntimeError(
                    f'activation_checkpointing wraps {name or "the backbone"} in a re-entrant checkpoint, in which '
                    'adapters behind a frozen input get no gradient. Remove it from the config and set with_cp=True '
                    'in the backbone instead.'
                )

    @property
    def is_init(self) -> bool:
        """Always False: ``init_weights`` runs after whatever an outer module redraws, each time."""
        return False

    @is_init.setter
    def is_init(self, value: bool) -> None:
        pass

    def _drawable(self) -> bool:
        """Whether stock code may fill the base: not if it would draw over the only copy of it."""
        return bool(self.missing) or self.pretrained_cfg is not None

    @property
    def pretrained_cfg(self) -> Mapping | None:
        """The part of ``init_cfg`` that names a file with weights for the base, if there is one."""
        config = getattr(self, 'init_cfg', None)
        configs = config if isinstance(config, list | tuple) else [config or {}]
        return next((config for config in configs if str(config.get('type')).startswith('Pretrained')), None)

    def init_weights(self) -> None:
        """Fill the base as the stock class does and put the adapters back to their starting values.

        A base that has its values already keeps them unless ``init_cfg`` names a file to load them from, and so do
        adapters that were loaded.
        """
        if self._drawable():
            self._is_init = False
            with hidden_adapters(self):
                try:
                    super().init_weights()
                except IndexError as error:
                    # mmdet's Swin looks at the first of the keys that begin with `backbone.`, and there is none.
                    raise ValueError(
                        f'The file of init_cfg={dict(self.init_cfg)} holds no key that begins with "backbone.", and '
                        f'{type(self).__name__} takes no other. A file of the Swin authors needs convert_weights=True.'
                    ) from error
                except KeyError as error:
                    # Converted anyway, names in mm's layout get the prefix of the model twice.
                    if not getattr(self, 'convert_weights', False) or not str(error).startswith("'backbone."):
                        raise
                    raise ValueError(
                        f"The file of init_cfg={dict(self.init_cfg)} is in mm's own layout, and convert_weights=True is"
                        ' for files of the Swin authors. Set convert_weights=False.'
                    ) from error
        if not self._adapters_loaded:
            for place, adapter in adapters_of(self):
                draw(adapter, place)

    def apply(self, fn: Callable[[nn.Module], None]) -> nn.Module:
        """As ``nn.Module.apply``; the initialisers of an ``init_cfg`` do not reach the adapters."""
        if getattr(fn, '__module__', None) != MM_INITIALISERS:
            return super().apply(fn)
        if self._drawable():
            with hidden_adapters(self):
                super().apply(fn)
        return self

    def _load_from_state_dict(self, state_dict, prefix, local_metadata, *args, **kwargs):
        adapter_file = local_metadata.get('mmpeft')
        if adapter_file is not None:
            adapter_file.check_backbone(self, prefix)
            self._names_not_in_file = frozenset(prefix + name for name in self.state_dict()) - state_dict.keys()
            self._load_state_dict_post_hooks[LOAD_HOOK] = _forget_base
        self._check_shared(state_dict, prefix)
        sizes = {name: parameter.shape for name, parameter in self.named_parameters()}
        # mmpretrain renames the keys of old files only where `self.__class__` is its own Swin.
        adapted_class, self.__class__ = self.__class__, self.stock
        try:
            self._load_from_state_dict(state_dict, prefix, local_metadata, *args, **kwargs)
        finally:
            self.__class__ = adapted_class
        filled = {name for name, size in sizes.items() if getattr(state_dict.get(prefix + name), 'shape', None) == size}
        self.missing = self.missing - filled
        self._adapters_loaded |= any('adapters' in name.split('.') for name in filled)

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
        return blank, classes, {name: value for name, value in content.items() if name not in ('digests', 'shared')}

    def _freeze_stages(self) -> None:
        """Freeze the stages that ``frozen_stages`` names, adapters excepted."""
        adapters = [adapter for _, adapter in adapters_of(self)]
        trainable = [p for adapter in adapters for p in adapter.parameters() if p.requires_grad]
        super()._freeze_stages()
        for parameter in trainable:
            parameter.requires_grad = True
        for adapter in adapters:
            adapter.train(self.training)
