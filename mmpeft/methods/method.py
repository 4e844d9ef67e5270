"""What a method is: what each says of itself, what it is built from, and what it is called with."""

import inspect
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from mmpeft.compiling import compiled

# What a place tells the constructor of an adapter that names it; every other argument of the constructor is an option.
SIZES = ('dim', 'in_features', 'out_features', 'channel_axis', 'depth', 'patch_size', 'site', 'unchanged')
# What a host can tell an adapter at each call, beside the tensor.
READS = ('hw_shape', 'attention', 'together', 'call')


@dataclass(frozen=True, eq=False)
class Place:
    """Where an adapter is to be built.

    Attributes:
        owner: The full name of the block or layer.
        site: The site there.
        sizes: What is known of ``SIZES``: channels ``dim`` of the tensor; ``in_features`` and ``out_features`` of a
            linear layer, or of one window of a convolution; ``channel_axis`` of a map; the ``depth`` of the backbone in
            blocks; the ``patch_size`` of a ViT in pixels, (height, width); the ``site`` itself; and ``unchanged``,
            whether nothing beside it, such as an activation, works in place.
        weight: Weight of the layer whose output the site is; None at a site that is not the output of one layer.
        bias: Its bias, if it has one.
    """

    owner: str
    site: str
    sizes: Mapping[str, Any] = field(repr=False)
    weight: Tensor | None = field(default=None, repr=False)
    bias: Tensor | None = field(default=None, repr=False)

    def __str__(self) -> str:
        return f'{self.owner}.{self.site}'.lstrip('.')


class Method(nn.Module):
    """A layer that is inserted into a backbone: the base class of all methods but those that tune the base itself.

    A method overrides what differs. Its constructor names the ``SIZES`` that it needs, and then its options, each with
    a default. It makes empty parameters and calls ``reset_parameters``, which draws them. What it computes stands in
    ``forward`` or, for a method that is a linear layer's alone, in ``after_linear``.

    Attributes:
        sites: Where its adapters sit by default. Those in this list that a backbone does not have are left out.
        reads: What its ``forward`` is called with after the tensor, and its ``after_linear`` after the bias, in this
            order: ``'hw_shape'``, the height and width of the grid of tokens; ``'attention'``, the weights of the
            block's self-attention as they are now (``mmpeft.methods.cvpt.Attention``); ``'together'``, what
            ``together`` made for this adapter, None where it was not asked; ``'call'``, all that is known of this
            forward (``mmpeft.hosts.call.Call``).
        beside: Whether the host adds what ``forward`` returns, computed from the input of the site. Otherwise
            ``forward`` turns the value at the site into a new one.
        takes_maps: Whether it can sit at a convolution, whose output is a map (B, C, H, W): it asks for
            ``channel_axis``, or works beside it and has a ``delta``, the change of the kernel.
        folds: Whether it has a ``fold``.
        shifts: Whether it may change what a layer makes of an input of zeros.
        no_decay: The names of its parameters, or of its layers, that train without weight decay.
        execution: Options that say how it computes and not what; adapter files leave them out.
        place_option: The option that says where it goes, in place of ``sites``.
        tokenwise: Whether ``forward`` computes each token by itself, so that a compiler is given the tokens of all
            images as one list; what it reads then are tensors, or None.
    """

    sites: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    beside: bool = False
    takes_maps: bool = False
    folds: bool = False
    shifts: bool = True
    no_decay: tuple[str, ...] = ()
    execution: tuple[str, ...] = ()
    place_option: str | None = None
    tokenwise: bool = False

    @classmethod
    def places(cls, options: Mapping[str, Any]) -> dict[str, dict]:
        """The sites that the options ask for, each with the options of the adapters there.

        Raises:
            ValueError: The options name a site that this method does not know.
        """
        return {site: dict(options) for site in cls.sites}

    @classmethod
    def places_in(cls, options: Mapping[str, Any], known: Collection[str]) -> dict[str, dict]:
        """The same in a backbone that has the sites ``known``."""
        return cls.places(options)

    @classmethod
    def once(cls, options: Mapping[str, Any]) -> bool:
        """Whether one adapter, in the first of the chosen blocks, serves all of them."""
        return False

    @classmethod
    def build(cls, place: Place, options: Mapping[str, Any], parts: dict[str, nn.Module]) -> 'Method':
        """The adapter for a place, without memory: parameters are drawn later.

        Args:
            place: Where it is to go, with the layer there.
            options: The options for this site.
            parts: Modules that the adapters of one injection share, empty for the first of them. The adapter that puts
                a part in holds it as a child; the others hold it in a tuple, which ``nn.Module`` does not look into, so
                that it is saved and trained once.
        """
        return cls(**{name: size for name, size in place.sizes.items() if name in sizes_of(cls)}, **options)

    @classmethod
    def together(cls, adapters: Sequence['Method']) -> list[Any]:
        """What the adapters of a backbone make of their parameters in each forward, for all of them at once.

        For many small computations that take few operations together. An adapter that is called by itself, or whose
        parameters are in shards then, makes its own.
        """
        raise NotImplementedError(f'{cls.__name__} computes nothing together.')

    def reset_parameters(self) -> None:
        """Draw the starting values from torch's global generator, which is seeded by the place."""
        raise NotImplementedError(f'{type(self).__name__} has no reset_parameters.')

    def start_from(self, weight: Tensor, bias: Tensor | None) -> None:
        """Set what starts from the layer at the site; called after ``reset_parameters``, and when a base is loaded.

        Shape: as in the layer, in fp32 on the CPU.
        """

    @classmethod
    def has_own(cls, name: str) -> bool:
        """Whether the class defines the method ``name`` of this protocol itself."""
        return getattr(cls, name) is not getattr(Method, name)

    def after_linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """What a linear layer with this adapter computes; overridden where that is cheaper in one.

        Shape: ``(..., I), (C, I), (C) -> (..., C)``
        """
        y = F.linear(x, weight, bias)
        return y + self(x) if self.beside else self(y)

    def compiled(self, x: Tensor, *reads: Any) -> Tensor | None:
        """What ``forward`` computes, by compiled code; None where there is none, as for methods that mix tokens."""
        return compiled(_call, self, x, *reads) if self.tokenwise else None

    def fold(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Weight and bias of a layer that computes what the given one with this adapter computes.

        Shape: ``(C, ...), (C) -> (C, ...), (C)``; output channels are the first axis.
        """
        raise NotImplementedError(f'{type(self).__name__} does not fold.')


class Tuning:
    """A method that inserts nothing and chooses which parameters of the base train.

    Its constructor takes options alone, each with a default.
    """

    def trained(self, backbone: nn.Module, blocks: list[str]) -> set[str]:
        """The names of the parameters of ``backbone`` that train; names of adapters among them do not count.

        Args:
            backbone: A stock or an adapted backbone.
            blocks: The names of its blocks, in order.
        """
        raise NotImplementedError


def _call(adapter: Method, x: Tensor, *reads: Any) -> Tensor:
    return adapter(x, *reads)


def sizes_of(cls: type[Method]) -> list[str]:
    """The sizes that the constructor of a method names."""
    return [name for name in inspect.signature(cls).parameters if name in SIZES]
