"""Attention to prompts as a softmax bottleneck: one operation that keeps little and computes the rest again."""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mmpeft.operators import softmax_backward


class Weights(NamedTuple):
    """Keys and values of S sets of prompts, (S, P, C), and the projections that are folded into them."""

    keys: Tensor
    values: Tensor
    q_weight: Tensor
    q_bias: Tensor | None
    out_weight: Tensor
    out_bias: Tensor | None


class FoldedAttention(torch.autograd.Function):
    """``attend(x, Weights(...), num_heads)``, and x added to it with ``residual``.

    The backward pass is given the scores and x; with ``residual`` instead of x the result, which the next layer keeps
    anyway, and of what that makes too much the scores tell. It folds the projections again.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, num_heads: int, residual: bool, *weights: Tensor | None):
        device = x.device.type
        ctx.autocast = device, torch.get_autocast_dtype(device), torch.is_autocast_enabled(device)
        ctx.num_heads, ctx.residual = num_heads, residual
        y, scores = attend(x, Weights(*weights), num_heads)
        if residual:
            y = y.add_(x) if y.dtype == x.dtype else x + y
        ctx.save_for_backward(y if residual else x, scores, *weights)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor):
        x, scores, *weights = ctx.saved_tensors
        needs_x, needed = ctx.needs_input_grad[0], ctx.needs_input_grad[3:]
        with torch.autocast(*ctx.autocast):
            with torch.enable_grad():
                weights = [
                    w if w is None else w.detach().requires_grad_(n) for w, n in zip(weights, needed, strict=True)
                ]
                parts = bottleneck(Weights(*weights), ctx.num_heads)
            down, up = parts[0].detach(), parts[2].detach()
            x, g = (tokens.reshape(len(scores), -1, grad.shape[2]) for tokens in (x, grad))
            g_scores = (g @ up.transpose(1, 2)).unflatten(2, (ctx.num_heads, -1))
            by_head = scores.view_as(g_scores)
            g_logits = softmax_backward(g_scores, by_head).flatten(2)
            g_down = g_logits.transpose(1, 2) @ x
            if ctx.residual:  # x is the result here, from which scores @ up is missing
                g_down.baddbmm_(g_logits.transpose(1, 2) @ scores, up, alpha=-1)
            g_parts = g_down, g_logits.sum(1), scores.transpose(1, 2) @ g
            wanted = [w for w, n in zip(weights, needed, strict=True) if n]
            # Where prompts are frozen, some parts are made of frozen weights alone.
            reached = [index for index, part in enumerate(parts) if part.requires_grad]
            made = [parts[index] for index in reached], wanted, [g_parts[index] for index in reached]
            found = iter(torch.autograd.grad(*made) if wanted else ())
            g_x = (g_logits @ down).view_as(grad) if needs_x else None
        if needs_x and ctx.residual:
            g_x = g_x.add_(grad) if g_x.dtype == grad.dtype else g_x + grad
        return g_x, None, None, *(next(found) if n else None for n in needed)


def attend(x: Tensor, weights: Weights, num_heads: int) -> tuple[Tensor, Tensor]:
    """The attention of tokens to the prompts, and its scores.

    Shape: ``(B, N, C), S sets of P prompts -> (B, N, C), (S, B N / S, H P)`` where S is B or 1.
    """
    down, down_bias, up = bottleneck(weights, num_heads)
    logits = torch.baddbmm(down_bias.unsqueeze(1), x.reshape(len(down), -1, x.shape[2]), down.transpose(1, 2))
    scores = logits.unflatten(2, (num_heads, -1)).softmax(-1).flatten(2).to(logits.dtype)
    return (scores @ up).view_as(x), scores


def bottleneck(weights: Weights, num_heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """A, a and B with which ``softmax_per_head(x A^T + a) B`` is the attention of x to the prompts.

    Shape: ``(S, H P, C), (S, H P), (S, H P, C)`` for H heads.
    """
    keys, values, q_weight, q_bias, out_weight, out_bias = weights
    sets = keys.shape[:2]
    # Heads lead, so that each weight is read once for all sets.
    keys, values = (part.unflatten(2, (num_heads, -1)).permute(2, 0, 1, 3).flatten(1, 2) for part in (keys, values))
    keys = keys * keys.shape[2] ** -0.5
    q_bias = keys.new_zeros(len(q_weight)) if q_bias is None else q_bias
    down = keys @ q_weight.unflatten(0, (num_heads, -1))
    down_bias = keys @ q_bias.view(num_heads, -1, 1)
    up = values @ out_weight.unflatten(1, (num_heads, -1)).permute(1, 2, 0)
    if out_bias is not None:
        up = up + (out_bias / num_heads).to(up.dtype)  # the scores of a head add up to one
    down, down_bias, up = (part.unflatten(1, sets).transpose(0, 1).flatten(1, 2) for part in (down, down_bias, up))
    return down, down_bias.squeeze(2), up
