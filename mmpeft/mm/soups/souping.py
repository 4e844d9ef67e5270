"""What tools/soup.py does: mix the weights of several runs, score the mix as the config does, and tell how it came."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mmengine.config import Config
from torch import Tensor, nn

from mmpeft.mm.checks import UserError, check_data
from mmpeft.mm.running.config import buildable_config
from mmpeft.mm.running.holdout import heldout_training_dataset, hold_out, score_on_test
from mmpeft.mm.soups.cooked import Cooked, Mixed, State
from mmpeft.mm.soups.heldout import heldout_hash
from mmpeft.mm.soups.scoring import CACHE, FixedBatches, Scorer, load, losses
from mmpeft.mm.soups.temperature import logits_head, losses_at
from mmpeft.mm.soups.work_dirs import last_checkpoints, last_weights
from mmpeft.soups import Step, greedy_soup, learned_soup, recompute_batchnorm, uniform_soup, write_soup
from mmpeft.soups.ingredients import open_ingredients
from mmpeft.soups.writing import check_ending

RECIPES = ('uniform', 'greedy', 'learned', 'last')


@dataclass(frozen=True)
class Options:
    """How a soup is made; the flags of tools/soup.py say more.

    Attributes:
        metric: The name of the score; by default the first of the usual ones.
        strict: Accept a candidate only if the score rises.
        insist: Mix files that differ in their start, their held-out images or their classes.
        on_test: Score on the config's test data, not on held-out images.
        by: What has a mixing coefficient of its own in a learned soup.
        epochs: How often a learned soup sees the held-out images.
        images: How many of them it sees; and of how many training images BatchNorm gets its statistics.
        count: How many checkpoints of a work dir are averaged.
        lora: Whether the 'factors' of LoRA are averaged or its 'delta'.
        temperature: Learn an inverse temperature beside the coefficients.
    """

    metric: str | None = None
    strict: bool = False
    insist: bool = False
    on_test: bool = False
    by: str = 'block'
    epochs: int = 5
    images: int = 256
    count: int = 5
    lora: str = 'factors'
    temperature: bool = False


def make_soup(
    recipe: str,
    config: str,
    files: Sequence[str],
    out: str,
    options: Options = Options(),
    *,
    cfg_options: dict[str, Any] | None = None,
    tell: Callable[[str], None] = print,
) -> Cooked:
    """Mix files, write the soup, and beside it how it came about: a table (.md) and a plot (.png).

    Scores are kept in ``scores.json`` in the folder of the soup: what was scored once is not scored again, be it for
    another recipe or after a kill.

    Args:
        recipe: ``uniform``, ``greedy``, ``learned``, or ``last`` for the mean of the last checkpoints of one run.
        config: The config of the runs; its ``heldout`` says on what is scored.
        files: Adapter files, whole checkpoints, or work dirs for the last weights in them; for ``last`` one work dir.
        out: The file to write, with the ending of the ingredients.
        options: The rest.
        cfg_options: Keys of the config to override.
        tell: Takes each line about what goes on.

    Raises:
        UserError: The config, the data or an option does not fit, or a file to write exists.
        SoupError: The files do not mix; with the first difference.
    """
    place = Path(out).expanduser()
    table, plot = place.with_suffix('.md'), place.with_suffix('.png')
    for path in (place, table, plot):
        if path.exists():
            raise UserError(f'{path} exists; name another --out, nothing is overwritten.')
    if min(options.images, options.epochs, options.count) < 1:
        raise UserError(
            f'At least one image, one epoch and one checkpoint are needed, got --images {options.images} '
            f'--epochs {options.epochs} --count {options.count}.'
        )
    if recipe == 'learned' and options.lora == 'delta':
        raise UserError('A learned soup mixes the factors of LoRA; leave out --lora delta.')
    files = last_checkpoints(files, options.count) if recipe == 'last' else [last_weights(file) for file in files]
    ingredients = open_ingredients(files, options.insist or recipe == 'last')
    check_ending(place, ingredients[0])
    kitchen = _Kitchen(_read(config, cfg_options, options, recipe), options, place.parent / CACHE, tell)
    ingredients[0].check_model(kitchen.model)
    kitchen.check_heldout(ingredients[0].path, ingredients[0].facts['heldout'])
    del ingredients
    soup = kitchen.cook(recipe, [str(file) for file in files])
    write_soup(place, soup.state_dict, soup.ingredients, scores={step.path: step.score for step in soup.steps})
    if options.lora == 'delta':
        tell(f'LoRA has {len(soup.ingredients)} times its rank in {place}: set that rank in the config that loads it.')
    if not kitchen.scores:
        return Cooked(recipe, soup, None, [place])
    # Here, so that a soup without scores needs no matplotlib.
    from mmpeft.mm.soups.soup_plots import draw_recipe
    from mmpeft.mm.soups.soup_tables import recipe_table

    cooked = Cooked(recipe, soup, kitchen.metric, [place, table, plot])
    table.write_text(recipe_table(cooked), encoding='utf-8')
    draw_recipe(cooked, plot)
    return cooked


def _read(config: str, cfg_options: dict[str, Any] | None, options: Options, recipe: str) -> Config:
    """The config with the validation on which soups are scored; without one where a recipe needs no scores."""
    cfg = buildable_config(config, cfg_options)
    if options.on_test:
        if recipe == 'learned':
            raise UserError('A learned soup trains on the images that it is scored on; give it held-out ones.')
        warnings.warn(
            'Scores are those of the test data. A soup that was chosen by them has seen these: report other images.',
            stacklevel=2,
        )
        score_on_test(cfg)
    elif cfg.get('heldout'):
        hold_out(cfg)
    elif recipe in ('greedy', 'learned'):
        raise UserError(
            f'A {recipe} soup is chosen on held-out images, and the config names none: set heldout.ann_file (with '
            '--cfg-options; mmpeft holdout writes one). To choose on the test data all the same, whose '
            'scores then mean little: --test-split-i-know.'
        )
    if options.on_test or cfg.get('heldout'):
        check_data(cfg, 'val')
    return cfg


class _Kitchen:
    """The model of a config, what scores it, and the data that recipes need."""

    def __init__(self, cfg: Config, options: Options, cache: Path, tell: Callable[[str], None]) -> None:
        self.cfg, self.options, self.tell = cfg, options, tell
        self.scores = bool(options.on_test or cfg.get('heldout'))
        self._scorer = Scorer(cfg, options.metric, cache)
        self.model = self._scorer.model

    @property
    def metric(self) -> str | None:
        return self._scorer.metric if self.scores else None

    def check_heldout(self, path: str, heldout: str | None) -> None:
        """Refuse to score on other images than those that the ingredients, of which ``path`` is one, never saw."""
        if not self.cfg.get('heldout') or self.options.on_test or self.options.insist:
            return
        own = heldout_hash(self._scorer.images())
        if heldout != own:
            raise UserError(
                f'{path} was trained with other held-out images (list {(heldout or "none")[:12]}) than those of the '
                f'config (list {own[:12]}): it may have seen these. Give the same heldout, or insist with --insist.'
            )

    def cook(self, recipe: str, files: list[str]) -> Mixed:
        if recipe == 'greedy':
            return self.greedy(files)
        if recipe == 'learned':
            return self.learned(files)
        return self.uniform(files, self.options.insist or recipe == 'last')

    def greedy(self, files: list[str]) -> Mixed:
        options = self.options
        alone = self._alone(files)
        soup = greedy_soup(
            files,
            self._score,
            scores=alone,
            strict=options.strict,
            finish=self._finish(files),
            insist=options.insist,
            lora=options.lora,
        )
        return Mixed(soup.state_dict, soup.score, soup.ingredients, soup.steps)

    def uniform(self, files: list[str], insist: bool) -> Mixed:
        mean = uniform_soup(files, insist=insist, lora=self.options.lora, finish=self._finish(files))
        return self._scored(files, mean)

    def learned(self, files: list[str]) -> Mixed:
        options = self.options
        if options.temperature:
            logits_head(self.model)

        def loss(model: nn.Module, batch: Any, *beta: Tensor) -> Tensor:
            return model.parse_losses(losses_at(model, batch, *beta) if beta else losses(model, batch))[0]

        soup = learned_soup(
            files,
            self.model,
            self._batches(heldout_training_dataset(self.cfg)),
            loss,
            by=options.by,
            temperature=options.temperature,
            epochs=options.epochs,
            finish=self._finish(files),
            insist=options.insist,
        )
        mixed = self._scored(files, soup.state_dict)
        return replace(mixed, shares=soup.coefficients, inverse_temperature=soup.inverse_temperature)

    def _scored(self, files: list[str], state: State) -> Mixed:
        if not self.scores:
            return Mixed(state, None, files, [])
        alone, score = self._alone(files), self._score(state)
        return Mixed(state, score, files, [Step(path, alone[path], score, True) for path in files])

    def _alone(self, files: list[str]) -> dict[str, float]:
        """The score of each file."""
        return {path: self._score(open_ingredients([path], insist=True)[0].tensors, path) for path in files}

    def _score(self, state: State, what: str = 'soup') -> float:
        score = self._scorer(state, what)
        self.tell(f'  {self.metric} {score:.4f}   {what}')
        return score

    def _finish(self, files: list[str]) -> Callable[[State], State] | None:
        """What gives BatchNorm layers the statistics of a mix, on training images; None where there are no such."""
        names = open_ingredients(files[:1], insist=True)[0].tensors
        if not any(name.endswith('running_mean') for name in names):
            return None
        check_data(self.cfg, 'train')
        # Each batch has the same weight in the mean, and a batch of one may have no variance.
        batches = self._batches(self.cfg.train_dataloader.dataset, alike=True)

        def finish(state: State) -> State:
            load(self.model, state)
            recompute_batchnorm(self.model, batches, losses)
            own = self.model.state_dict()
            return {name: own[name].detach().to('cpu', copy=True) for name in state}

        return finish

    def _batches(self, dataset: Mapping[str, Any], alike: bool = False) -> FixedBatches:
        return FixedBatches(dataset, self.cfg.train_dataloader.batch_size, self.options.images, alike)
