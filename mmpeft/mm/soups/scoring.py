"""Score many state dicts with the validation of one config, in one model that is built once."""

import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS
from mmengine.runner import Runner
from torch import Tensor, nn

from mmpeft.adapter_file import checksum
from mmpeft.checkpoint import missing_base
from mmpeft.files import write_atomically
from mmpeft.fingerprint import fingerprint
from mmpeft.freeze import adapted_backbones
from mmpeft.methods import LoRA
from mmpeft.mm.checks import UserError
from mmpeft.mm.private import validate_by
from mmpeft.mm.reports.runs import METRICS
from mmpeft.mm.runners import bare_model
from mmpeft.mm.running.progress import ScoringHook
from mmpeft.mm.soups.data_state import data_state
from mmpeft.mm.soups.ensembling import averaged_predictions
from mmpeft.mm.soups.heldout import image_names
from mmpeft.mm.weights.checkpoints import checkpoints_as_data
from mmpeft.random_state import fixed_randomness

CACHE = 'scores.json'  # beside what is made from the scores
HOOKS_OFF = ('timer', 'logger', 'param_scheduler', 'checkpoint')


class Scorer:
    """Scores weights by the validation of a config; what was scored once is read from a file.

    Args:
        cfg: A config of which ``register_library`` and ``inject_at_build`` are through; its base is loaded from where
            it says.
        metric: The name of the score, higher is better; by default the first of the usual ones.
        cache: A json file of the metrics of all weights that were ever scored; other data or options are kept apart.

    Attributes:
        model: The model, whose weights are replaced for each score.
        metric: The name of the score, once there is one.
    """

    def __init__(self, cfg: Config, metric: str | None, cache: Path) -> None:
        self.metric = metric
        self._folder = tempfile.TemporaryDirectory(prefix='mmpeft-scores-', ignore_cleanup_errors=True)
        self._runner = _build_runner(cfg, self._folder.name)
        self._progress = ScoringHook()
        self._runner.register_hook(self._progress)
        self.model = bare_model(self._runner)
        self._cache = cache
        self._known = json.loads(cache.read_text(encoding='utf-8')) if cache.is_file() else {}
        self.score_on(cfg)

    def score_on(self, cfg: Config) -> None:
        """Score by the validation of another config of the same model from now on."""
        self._cfg = cfg
        validate_by(self._runner, deepcopy(cfg))

    def images(self) -> list[str]:
        """The names of the images that are scored."""
        with _quiet():
            return image_names(self._runner.val_dataloader.dataset)

    def __call__(self, state: Mapping[str, Tensor], what: str = '') -> float:
        """The score of a state dict of the model, or of what adapter files hold of it; ``what`` is shown meanwhile.

        Raises:
            UserError: The evaluator gives no score of this name.
        """
        return self._score([state], what, lambda: load(self.model, state))

    def ensemble(self, states: Sequence[Mapping[str, Tensor]], what: str = '') -> float:
        """The score of the mean of the predictions of several state dicts.

        Raises:
            UserError: The evaluator gives no score of this name, or predictions of this kind have no mean.
        """
        with averaged_predictions(self.model, [lambda state=state: load(self.model, state) for state in states]):
            return self._score(states, what, lambda: None)

    def _score(self, states: Sequence[Mapping[str, Tensor]], what: str, prepare: Callable[[], None]) -> float:
        key = checksum(_context(self._cfg, self.model), _numbered(states))
        if key not in self._known:
            prepare()
            self._progress.what = what
            with _quiet():
                metrics = self._runner.val_loop.run()
            self._known[key] = {name: float(value) for name, value in metrics.items()}
            text = json.dumps(self._known, indent=0)
            write_atomically(self._cache, lambda file: file.write(text.encode()))
        metrics = self._known[key]
        self.metric = self.metric or next((name for name in METRICS if name in metrics), None)
        if self.metric not in metrics:
            raise UserError(
                f'The evaluator gives no score {self.metric or "of the usual names"}; name one with --metric: '
                f'{", ".join(metrics) or "there is none"}.'
            )
        return metrics[self.metric]


class FixedBatches:
    """The same batches of a data set each time: which images, and how they are augmented, depends on nothing else.

    While a batch is in use the global random number generators are at a state of its own.

    Args:
        dataset: The config of a data set.
        batch_size: Images in a batch.
        images: How many images; all of a smaller data set.
        alike: Leave a last batch out that is smaller than the others.

    Attributes:
        images: How many images the data set has.
    """

    def __init__(self, dataset: Mapping[str, Any], batch_size: int, images: int, alike: bool = False) -> None:
        with _quiet():
            self._dataset = DATASETS.build(dataset)
        self.images = len(self._dataset)
        order = torch.randperm(self.images, generator=torch.Generator().manual_seed(0))
        chunks = order[:images].split(batch_size)
        self._chunks = [chunk for chunk in chunks if not alike or len(chunk) == len(chunks[0])]

    def __len__(self) -> int:
        return len(self._chunks)

    def __iter__(self) -> Iterator[Any]:
        for seed, chunk in enumerate(self._chunks):
            with fixed_randomness(seed):
                yield pseudo_collate([self._dataset[index] for index in chunk.tolist()])


def load(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load weights of which each must be one of the model's; LoRA takes the rank that its factors have.

    Raises:
        UserError: One is not.
    """
    for name, module in model.named_modules():
        if isinstance(module, LoRA) and f'{name}.lora_B' in state:
            module.set_rank(state[f'{name}.lora_B'].shape[1])
    extra = model.load_state_dict(state, strict=False).unexpected_keys
    if extra:
        raise UserError(f'The weights are of another model than the config: it has no {extra[0]}.')


def losses(model: nn.Module, batch: Any) -> Mapping[str, Any]:
    """The training losses of a model of mm for a batch as data sets give it."""
    return model(**model.data_preprocessor(batch, True), mode='loss')


@contextmanager
def _quiet() -> Iterator[None]:
    """Drop what data sets and evaluators print."""
    with open(os.devnull, 'w') as nowhere, redirect_stdout(nowhere):
        yield


def _build_runner(cfg: Config, work_dir: str) -> Runner:
    """A Runner that validates and does nothing else; its model has the base that training would start from."""
    cfg = deepcopy(cfg)
    load_from, cfg.load_from, cfg.resume = cfg.get('load_from'), None, False
    cfg.custom_hooks, cfg.default_hooks = [], dict.fromkeys(HOOKS_OFF)
    cfg.visualizer, cfg.log_level, cfg.work_dir = None, 'WARNING', work_dir
    # Runners of one name and second share what writes into their folders, and this folder will go.
    cfg.experiment_name = Path(work_dir).name
    with checkpoints_as_data(cfg):
        runner = Runner.from_cfg(cfg)
        bare_model(runner).init_weights()
        if load_from:
            runner.load_checkpoint(load_from)
    return runner


def _context(cfg: Config, model: nn.Module) -> str:
    """What a score depends on beside the weights that are scored: model, data and evaluator, and the frozen base."""
    parts = [cfg.model, cfg.val_dataloader, cfg.val_evaluator, data_state(cfg)]
    parts += [fingerprint(b) for b in adapted_backbones(model).values() if not missing_base(b)]
    return json.dumps(parts, default=str)


def _numbered(states: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The tensors of several state dicts in one."""
    return {f'{number}.{name}': tensor for number, state in enumerate(states) for name, tensor in state.items()}
