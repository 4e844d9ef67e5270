"""What a backbone host is: where the sites lie, and what its blocks are told in every forward."""

import re
from collections import defaultdict
from typing import Any

import torch
from torch import Tensor, nn

from mmpeft.hosts.call import Call, opened
from mmpeft.hosts.host import Host, adapt_as, is_shard, qualified_name
from mmpeft.hosts.initialising import Initialised
from mmpeft.hosts.leaf import Linear
from mmpeft.hosts.loading import Loading
from mmpeft.hosts.modes import Modes
from mmpeft.hosts.names import CHECKPOINTING, LINEAR
from mmpeft.operators import copies_in


class Backbone(Modes, Initialised, Loading):
    """Mixin placed before a stock backbone class; a subclass describes one kind of backbone.

    Attributes:
        places: For each site of this kind of backbone a pattern that the full names of its owners match.
        block: Pattern of the full names of its blocks.
        skipped: Classes, by their qualified names, of modules that match a pattern and are neither block nor site.
        beyond: Pattern of the names of base parameters that come after what other forms of the same backbone return,
            and which these do not have: they are of no base that files know again.
        saves_memory: The option, and where it is set, that computes parts of a block again and works with adapters.
        bias_options: For patterns of the names of biases that may be absent the option of the stock class that makes
            them.
        adapter_methods: The configs of the injected methods.
        adapters_together: The adapters that compute something together.
        linears: The linear layers of the base, those in compiled code left out, which casts by itself.
    """

    state = ('adapter_methods', 'adapters_together', 'linears', '_checked')
    places: dict[str, str] = {}
    skipped: tuple[str, ...] = ()
    beyond = r'(?!)'
    saves_memory = 'with_cp=True in the backbone'
    bias_options: dict[str, str] = {}
    adapter_methods: tuple[dict, ...] = ()
    adapters_together: tuple[nn.Module, ...] = ()
    linears: tuple[nn.Module, ...] = ()
    _checked = False

    @classmethod
    def blocks_of(cls, module: nn.Module) -> list[str]:
        """The full names of the blocks of a stock backbone, in order."""
        return cls.matching(module, cls.block)

    @classmethod
    def matching(cls, module: nn.Module, pattern: str) -> list[str]:
        """The full names of the modules of a stock backbone that a pattern means, in order.

        Not among them is what has no parameters, such as an identity in the place of a norm.
        """
        found = [(name, part) for name, part in module.named_modules() if re.fullmatch(pattern, name)]
        found = [(name, part) for name, part in found if next(part.parameters(), None) is not None]
        return [name for name, part in found if qualified_name(type(part)) not in cls.skipped]

    @classmethod
    def known_as(cls, name: str) -> str:
        """The name by which files know a tensor again in whatever form of the stock backbone it lies."""
        return name

    @classmethod
    def shared_sizes(cls, module: nn.Module) -> dict[str, Any]:
        """The sizes of a stock backbone that any adapter in it may be built from."""
        return dict(depth=len(cls.blocks_of(module)))

    def extra_tokens(self) -> int:
        """How many tokens stand before those of the grid."""
        return 0

    def wire(self) -> None:
        """Adapt what else has to be, such as attention; called once, after the classes are swapped."""

    def option_inside(self, bias: str) -> str | None:
        """The options, ``name`` or ``name=value``, by which the stock class has what is inside it make a bias."""
        return None

    def adapt_all(self, stock: tuple[str, ...], host: type[Host]) -> None:
        """Let the modules of the stock classes of these qualified names be adapted, as far as they are not."""
        for module in [*self.modules()]:
            if qualified_name(type(module)) in stock and not isinstance(module, Host):
                adapt_as(module, host)

    def computed_together(self) -> dict[nn.Module, Any]:
        """What adapters make of their parameters together, by the adapter."""
        kinds = defaultdict(list)
        for adapter in self.adapters_together:
            if 'together' in adapter.reads and not any(map(is_shard, adapter.parameters())):
                kinds[type(adapter)].append(adapter)
        return {a: made for kind, group in kinds.items() for a, made in zip(group, kind.together(group), strict=True)}

    def adapt_linears(self) -> None:
        """Let linear layers take their frozen weights from the call; called once, before adapters are put in."""
        self.adapt_all(LINEAR, Linear)
        blocks = [block for block in self.modules() if isinstance(block, Host) and block.compiles and block.tokenwise]
        by_themselves = {layer for block in blocks for layer in {*block.modules()} - {*block.attn.modules()}}
        layers = (m for m in self.modules() if isinstance(m, Linear | nn.MultiheadAttention))
        self.linears = tuple(layer for layer in layers if layer not in by_themselves)

    def casts(self, device: str) -> dict[int, Tensor]:
        """The frozen weights of linear layers in the dtype of autocast, which then need not be copied one by one.

        Autograd keeps them all the same. Where it does not, in inference, they would take memory.
        """
        if not (torch.is_autocast_enabled(device) and torch.is_grad_enabled()):
            return {}
        weights = (p for layer in self.linears for p in layer.parameters() if not p.requires_grad)
        frozen = [p for p in weights if p.dtype == torch.float32 and not is_shard(p)]
        return dict(zip(map(id, frozen), copies_in(torch.get_autocast_dtype(device), frozen), strict=True))

    def norm_before(self, name: str) -> nn.LayerNorm | None:
        """The norm whose output alone the linear layer ``name`` reads, if the layer has full row rank and no bias."""
        return None

    def forward(self, x: Tensor, *args, **kwargs):
        if self.training and not self._checked and torch.is_grad_enabled():
            self.check_base()
            self._check_checkpointing()
            self._checked = True
        traced = torch.compiler.is_compiling() or torch.jit.is_tracing()
        made = {} if traced else dict(together=self.computed_together(), casts=self.casts(x.device.type))
        with opened(Call(extra_tokens=self.extra_tokens(), **made)):
            return super().forward(x, *args, **kwargs)

    def _check_checkpointing(self) -> None:
        for name, module in self.named_modules():
            forward = vars(module).get('forward')
            if getattr(forward, '__globals__', {}).get('__name__') == CHECKPOINTING:
                raise RuntimeError(
                    f'activation_checkpointing wraps {name or "the backbone"} in a re-entrant checkpoint, in which '
                    'adapters behind a frozen input get no gradient. Remove it from the config and set '
                    f'{self.saves_memory} instead.'
                )
