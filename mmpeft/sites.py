"""The names of the places in a transformer block that can take an adapter.

A stream site sees the residual stream itself: tokens (B, N, C) and their grid (H, W).
"""

STREAM_SITES = ('before_attn', 'after_attn', 'after_ffn')

SITES = STREAM_SITES
