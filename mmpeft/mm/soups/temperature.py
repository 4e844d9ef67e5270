"""The loss of a segmentor at an inverse temperature, which a learned soup may learn."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from mmpeft.mm.checks import UserError
from mmpeft.mm.soups.scoring import losses


def losses_at(model: nn.Module, batch: Any, beta: Tensor) -> Mapping[str, Any]:
    """The training losses for a batch, with the logits that the model predicts from multiplied by ``beta``.

    Those of auxiliary heads stay as they are.

    Raises:
        UserError: The model is no segmentor whose decode head's loss is of one map of logits.
    """
    head = logits_head(model)
    loss_by_feat = head.loss_by_feat
    head.loss_by_feat = lambda logits, *more: loss_by_feat(logits * beta, *more)
    try:
        return losses(model, batch)
    finally:
        del head.loss_by_feat


def logits_head(model: nn.Module) -> nn.Module:
    """The head from whose logits a segmentor predicts; of a cascade the last one.

    Raises:
        UserError: As above.
    """
    head = getattr(model, 'decode_head', None)
    head = head[-1] if isinstance(head, nn.ModuleList) else head
    if not _has_logits(head):
        raise UserError(
            'A temperature needs a segmentor whose decode head learns from one map of logits, and '
            f'{type(model if head is None else head).__name__} is none. Leave out --temperature.'
        )
    return head


def _has_logits(head: Any) -> bool:
    if head is None:
        return False
    from mmseg.models.decode_heads.decode_head import BaseDecodeHead

    return isinstance(head, BaseDecodeHead) and type(head).loss_by_feat is BaseDecodeHead.loss_by_feat
