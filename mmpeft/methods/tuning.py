"""Methods that insert nothing and only choose which base parameters train."""


class Frozen:
    """Train no parameter of the backbone: the baseline that every adapter has to beat."""

    sites = ()
