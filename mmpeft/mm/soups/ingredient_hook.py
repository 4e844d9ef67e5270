"""A registered hook that writes into checkpoints what makes them ingredients of a soup."""

from pathlib import Path
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmpeft.adapter_file import KEY
from mmpeft.files import hash_of
from mmpeft.mm.checks import UserError
from mmpeft.mm.private import loaded_from, resumes
from mmpeft.mm.runners import bare_model, is_sharded
from mmpeft.mm.running.holdout import heldout_dataset
from mmpeft.mm.soups.heldout import check_no_leak, heldout_hash, image_names
from mmpeft.mm.weights.loading import adapter_file_in
from mmpeft.registry import HOOKS


@HOOKS.register_module()
class IngredientHook(Hook):
    """Say in each checkpoint which start file it comes from and which held-out images it has never seen.

    ``meta['mmpeft']`` gets ``start``, the SHA-256 of a ``load_from`` file that gives every trained tensor its value,
    and ``heldout``, that of the list of images that the config's ``heldout`` names; AdapterCheckpointHook copies them.
    Without either nothing is written.

    Raises:
        UserError: Held-out images are in the training data, or the run that is resumed held out others.
        RuntimeError: Validation does not run on the held-out split, as it does with mmpeft's tools/train.py.
    """

    def __init__(self) -> None:
        self._facts: dict[str, str | None] = dict(start=None, heldout=None)
        self._resumed: dict[str, str | None] | None = None

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        if resumes(runner):
            self._resumed = checkpoint.get('meta', {}).get(KEY, dict(self._facts))
        elif '://' not in loaded_from(runner) and not is_sharded(runner) and _is_start(runner, checkpoint):
            self._facts['start'] = hash_of(Path(loaded_from(runner)).expanduser())

    def before_train(self, runner: Runner) -> None:
        if runner.cfg.get('heldout'):
            self._facts['heldout'] = _check_heldout(runner)
        if self._resumed is None:
            return
        if self._resumed['heldout'] != self._facts['heldout']:
            then, now = ((facts['heldout'] or 'none')[:12] for facts in (self._resumed, self._facts))
            raise UserError(
                f'The run held out other images before (list {then}) than the config does now (list {now}), and may '
                'have trained on these. Go on with the same heldout, or start anew in another work dir.'
            )
        self._facts = dict(self._resumed)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        if any(self._facts.values()):
            checkpoint['meta'][KEY] = dict(self._facts)


def _is_start(runner: Runner, checkpoint: dict[str, Any]) -> bool:
    """Whether a loaded file fixes all starting values: an adapter file, or one with every tensor of the model."""
    if adapter_file_in(checkpoint) is not None:
        return True
    found = checkpoint.get('state_dict', checkpoint)
    return all(
        name in found and found[name].shape == tensor.shape for name, tensor in bare_model(runner).state_dict().items()
    )


def _check_heldout(runner: Runner) -> str:
    """The hash of the held-out images, of which none is trained on."""
    if runner.val_loop is None or runner.cfg.val_dataloader.dataset != heldout_dataset(runner.cfg):
        raise RuntimeError(
            'The config names a held-out split, and validation does not run on it: a best checkpoint would be chosen '
            'on other images. Train with mmpeft train, or call mmpeft.mm.running.holdout.hold_out(cfg) '
            'first.'
        )
    held = image_names(runner.val_dataloader.dataset)
    check_no_leak(image_names(runner.train_dataloader.dataset), held)
    return heldout_hash(held)
