"""Which tensors of an adapted backbone were given values, and the refusal to train on a base that was not."""

import re
from collections.abc import Iterable

from mmpeft.hosts.host import Host, is_adapter


class KnowsBase(Host):
    """The part of an adapted backbone that refuses to train on a base which was never given weights.

    Attributes:
        fresh: Pattern of the names of base parameters that no pretrained file holds.
        tables: Pattern of those of positions, which stock code resizes to the input of the task.
        missing: The names of the base parameters, fresh ones aside, that were never given a value. A backbone that was
            adapted from Python is taken as it is and misses none.
        allow_random_base: Train on whatever values there are.
        adapters_loaded: Whether adapters were loaded, which then do not start anew.
    """

    state = ('missing', 'allow_random_base', 'adapters_loaded')
    fresh = r'(?!)'
    tables = r'(.*\.)?(relative_position_bias_table|absolute_pos_embed|pos_embed)'
    missing: frozenset[str] = frozenset()
    allow_random_base = False
    adapters_loaded = False

    def expect_base(self) -> None:
        """Ask for every base parameter: training is refused until loaded files have filled them."""
        base = (name for name, _ in self.named_parameters() if not is_adapter(name))
        self.missing = frozenset(name for name in base if not re.fullmatch(self.fresh, name))

    def values_given(self, names: Iterable[str]) -> None:
        """Take note that the parameters of these names have values."""
        self.missing = self.missing.difference(names)
        self.adapters_loaded |= any(map(is_adapter, names))

    def check_base(self) -> None:
        """Refuse a base that was never given weights.

        Raises:
            RuntimeError: It says how to give them.
        """
        if not self.missing or self.allow_random_base:
            return
        names = sorted(self.missing)
        listed = ', '.join(names[:3]) + (', ...' if len(names) > 3 else '')
        raise RuntimeError(
            f'{len(names)} tensors of the frozen base ({type(self).__name__}) were never given pretrained weights: '
            f"{listed}. Give them by backbone.init_cfg=dict(type='Pretrained', checkpoint=...), by load_from or by "
            '--resume. To train on a random base all the same, set allow_random_base=True beside method.'
        )
