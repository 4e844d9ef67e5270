"""The error of a method that meets shards of weights, which FSDP puts together inside a module's own forward alone."""


def in_shards(reader: str, read: str) -> RuntimeError:
    """``reader`` is the method and ``read`` what it found in shards."""
    return RuntimeError(
        f'{reader} reads {read} outside of the module that holds them, where they are shards: FSDP wraps a part of a '
        'block by itself, as size_based_auto_wrap_policy does. Wrap whole blocks, with transformer_auto_wrap_policy '
        'and their class as transformer_layer_cls, or the model as one unit.'
    )
