"""The names of the places in a backbone that can take an adapter.

A stream site sees the residual stream itself: tokens (B, N, C). A branch site sees what attention or the feed-forward
adds to it, or stands beside them; a leaf site sees the output of one layer. At ``input`` an adapter gives a block
tokens beside its own.
"""

STREAM_SITES = ('before_attn', 'after_attn', 'after_ffn')
BRANCH_SITES = ('attn_branch', 'beside_attn', 'ffn_input', 'ffn_branch', 'beside_ffn')
BLOCK_LEAF_SITES = ('norm1', 'qkv', 'proj', 'depthwise', 'norm2', 'fc1', 'fc2')
LEAF_SITES = ('patch_embed', 'patch_norm', *BLOCK_LEAF_SITES, 'merge_norm', 'reduction', 'output_norm')
SITES = (*STREAM_SITES, *BRANCH_SITES, *LEAF_SITES, 'input')
