"""Names of mmengine that are not public and have no public counterpart, in one place.

tests/test_private.py says which of them is gone.
"""

from mmengine.config import Config
from mmengine.optim import OptimWrapper
from mmengine.runner import BaseLoop, Runner


def resumes(runner: Runner) -> bool:
    """Whether a runner goes on from a checkpoint; otherwise it starts from the weights in one, or from none."""
    return runner._resume


def loaded_from(runner: Runner) -> str | None:
    """The checkpoint that a runner was told to load."""
    return runner._load_from


def accumulates(wrapper: OptimWrapper) -> bool:
    """Whether an optimizer wrapper adds up the gradients of several iterations before it applies them."""
    return wrapper._accumulative_counts > 1


def update_val_interval(loop: BaseLoop) -> bool:
    """Give a training loop the interval of validations that holds where it stands; False if it knows none."""
    if not hasattr(loop, '_decide_current_val_interval'):
        return False
    loop._decide_current_val_interval()
    return True


def validate_by(runner: Runner, cfg: Config) -> None:
    """Let a runner build its next validation from another config."""
    runner._val_dataloader = cfg.get('val_dataloader')
    runner._val_evaluator = cfg.get('val_evaluator')
    runner._val_loop = cfg.get('val_cfg')
