"""Initialising an adapted backbone: whatever stock code draws or loads, base and adapters keep what is theirs."""

from collections.abc import Callable, Mapping

from torch import nn

from mmpeft.hosts.base import KnowsBase
from mmpeft.hosts.host import adapters_of, hidden_adapters, start
from mmpeft.hosts.names import INITIALISERS


class Initialised(KnowsBase):
    """The part of an adapted backbone that ``init_weights`` and the initialisers of an ``init_cfg`` meet."""

    @property
    def is_init(self) -> bool:
        """Always False: ``init_weights`` runs after whatever an outer module redraws, each time."""
        return False

    @is_init.setter
    def is_init(self, value: bool) -> None:
        pass

    @property
    def pretrained_cfg(self) -> Mapping | None:
        """The part of ``init_cfg`` that names a file with weights for the base, if there is one.

        PVT's configs name the file alone, without a type.
        """
        config = getattr(self, 'init_cfg', None)
        configs = config if isinstance(config, list | tuple) else [config or {}]
        kinds = ((str(config.get('type', 'Pretrained')), config) for config in configs if 'checkpoint' in config)
        return next((config for kind, config in kinds if kind.startswith('Pretrained')), None)

    def _drawable(self) -> bool:
        """Whether stock code may fill the base: not if it would draw over the only copy of it."""
        return bool(self.missing) or self.pretrained_cfg is not None

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
                        f"The file of init_cfg={dict(self.init_cfg)} is in mm's own layout, and convert_weights=True "
                        'is for files of the Swin authors. Set convert_weights=False.'
                    ) from error
        if not self.adapters_loaded:
            for place, _ in adapters_of(self):
                start(self, place)

    def apply(self, fn: Callable[[nn.Module], None]) -> nn.Module:
        """As ``nn.Module.apply``; the initialisers of an ``init_cfg`` do not reach the adapters."""
        if getattr(fn, '__module__', None) != INITIALISERS:
            return super().apply(fn)
        if self._drawable():
            with hidden_adapters(self):
                super().apply(fn)
        return self
