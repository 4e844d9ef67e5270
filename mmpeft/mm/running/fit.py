"""Hooks of the tools that look at loaded weights: are they of this model and its data, and are they numbers?"""

import logging
from collections.abc import Sequence

import torch
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner

from mmpeft.mm.checks import UserError
from mmpeft.mm.private import loaded_from
from mmpeft.mm.runners import bare_model
from mmpeft.mm.weights.loading import adapter_file_in
from mmpeft.report import listed


class FitHook(Hook):
    """Refuses to test a checkpoint of another model or other labels, which mmengine would only log.

    Raises:
        UserError: It has no tensor of the model, heads of other sizes, or the classes in another order.
    """

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        model, file = bare_model(runner), adapter_file_in(checkpoint)
        if file is not None:
            file.check_model(model)
        else:
            self._check_tensors(runner, model.state_dict(), checkpoint.get('state_dict', checkpoint))
        meta = (checkpoint.get('meta') or {}).get('dataset_meta') or {}
        data = runner.test_dataloader.dataset.metainfo
        if meta.get('classes') and data.get('classes'):
            _compare_classes(loaded_from(runner), [*meta['classes']], [*data['classes']])

    def _check_tensors(self, runner: Runner, own: dict, state: dict) -> None:
        if own.keys().isdisjoint(state):
            raise UserError(
                f'{loaded_from(runner)} is of another model: none of its tensors has a name that this one has.'
            )
        # Backbones fit the tables of their positions to the input as they load.
        other = [
            f'{name} of shape {tuple(state[name].shape)} and not {tuple(tensor.shape)}'
            for name, tensor in own.items()
            if not name.startswith('backbone.')
            and tuple(getattr(state.get(name), 'shape', tensor.shape)) != tensor.shape
        ]
        if other:
            raise UserError(
                f'{loaded_from(runner)} is of another model than the config: it has {"; ".join(other[:3])}.'
            )


class FiniteHook(Hook):
    """Says at once that the weights to begin with are not numbers, of which training makes nothing but nan.

    Raises:
        UserError: Parameters hold nan or inf.
    """

    priority = 'HIGHEST'

    def before_train(self, runner: Runner) -> None:
        named = bare_model(runner).named_parameters()
        other = [name for name, parameter in named if not torch.isfinite(parameter).all()]
        if other:
            raise UserError(
                f'{len(other)} parameters of the model hold nan or inf before anything is trained: {listed(other)}. '
                'Look at the file that they were loaded from.'
            )

    before_test = before_train


def _compare_classes(path: str, trained: Sequence[str], tested: Sequence[str]) -> None:
    if trained == tested:
        return
    both = f'{path} was trained on {tuple(trained)!r:.300}, and the test data have {tuple(tested)!r:.300}'
    if sorted(trained) == sorted(tested):
        raise UserError(f'{both}: the same classes in another order, so that labels would get the wrong names.')
    print_log(f'The classes differ: {both}.', 'current', level=logging.WARNING)
