"""Where a run can go on: the newest whole checkpoint, and only with the adapters that it was trained with."""

import ast
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log
from torch import nn

from mmpeft.freeze import is_adapter
from mmpeft.methods import METHODS
from mmpeft.methods.configs import full_options
from mmpeft.methods.registration import options_of
from mmpeft.mm.backbone import NAMED
from mmpeft.mm.checks import UserError
from mmpeft.mm.weights.checkpoints import check_resumable


def find_resumable(work_dir: str) -> str | None:
    """The path of ``newest_resumable``."""
    return newest_resumable(work_dir)[0]


def newest_resumable(work_dir: str) -> tuple[str | None, dict | None]:
    """The checkpoint to go on from: the one that ``last_checkpoint`` names, or the newest that is whole.

    Args:
        work_dir: The work dir of the run.

    Returns:
        A path, an address of another place than the local disk, or None where the work dir has no checkpoint; and
        what the file holds, which was read to see whether it is whole.

    Raises:
        UserError: ``last_checkpoint`` names a checkpoint that cannot be used, and there is no other.
    """
    pointer = Path(work_dir, 'last_checkpoint')
    named = pointer.read_text().strip() if pointer.is_file() else ''
    if '://' in named:
        return named, None
    refusals = []
    for path in _candidates(Path(work_dir), named):
        try:
            checkpoint = check_resumable(path)
        except UserError as error:
            refusals.append(str(error))
            continue
        if str(path) != named:
            reason = refusals[0] if named else f'{pointer} does not name a checkpoint.'
            print_log(f'{reason} Training goes on from {path} instead.', 'current', level=logging.WARNING)
        return str(path), checkpoint
    if named:
        raise UserError(f'{refusals[0]} No other checkpoint is whole. To start anew, delete {pointer}.')
    return None, None


def _candidates(work_dir: Path, named: str) -> Iterator[Path]:
    """The checkpoint that is named, then the others beside it and in the work dir, the newest first."""
    if named:
        yield Path(named)
    folders = {Path(named).parent, work_dir} if named else {work_dir}
    others = {path.resolve(): path for folder in folders for path in folder.glob('*.pth')}
    # Best checkpoints hold no optimizer; to read them would only take time.
    others = [path for path in others.values() if str(path) != named and not path.name.startswith('best_')]
    yield from sorted(others, key=lambda path: path.stat().st_mtime_ns, reverse=True)


def check_same_methods(cfg: Config, checkpoint: Mapping) -> None:
    """Refuse to go on with other methods or options than those in the config that a checkpoint holds.

    Raises:
        UserError: They differ; it says in what.
    """
    then = _model_of(checkpoint.get('meta', {}).get('cfg'))
    if then is None or 'model' not in cfg:
        return
    then, now = dict(_methods_in(then)), dict(_methods_in(cfg.model))
    for key in sorted({*then, *now}):
        _check_same(key, then.get(key, []), now.get(key, []))


def _check_same(key: str, then: list[dict], now: list[dict]) -> None:
    names = [', '.join(method['type'] for method in methods) or 'no adapters' for methods in (then, now)]
    if names[0] != names[1]:
        raise _refusal(f'model{key} has {names[0]} in the checkpoint and {names[1]} in the config')
    for before, after in zip(then, now, strict=True):
        for option in {**before, **after}:
            if before.get(option) != after.get(option):
                raise _refusal(
                    f'{option} of {before["type"]} is {before.get(option)!r} in the checkpoint and '
                    f'{after.get(option)!r} in the config'
                )


def check_same_adapters(model: nn.Module, checkpoint: Mapping) -> None:
    """Refuse to go on with adapters in other places or of other sizes than those of a checkpoint.

    Raises:
        UserError: They differ; it says in what.
    """
    then = {name: tuple(value.shape) for name, value in checkpoint['state_dict'].items() if is_adapter(name)}
    now = {name: tuple(value.shape) for name, value in model.state_dict().items() if is_adapter(name)}
    for names, who in ((then.keys() - now.keys(), 'checkpoint'), (now.keys() - then.keys(), 'model')):
        if names:
            raise _refusal(f'{len(names)} adapter tensors are in the {who} alone, {sorted(names)[0]} first')
    for name in now:
        if then[name] != now[name]:
            raise _refusal(f'{name} is {then[name]} in the checkpoint and {now[name]} in the model')


def _refusal(difference: str) -> UserError:
    return UserError(
        f'Training cannot go on with other adapters: {difference}. '
        'Use the old config, or start anew from these weights with --cfg-options load_from=CHECKPOINT.'
    )


def _methods_in(node: Any, key: str = '') -> Iterator[tuple[str, list[dict]]]:
    """The methods of each adapted backbone in a model's config, with all their options, by the backbone's key."""
    if not isinstance(node, Mapping):
        return
    scope, _, name = str(node.get('type')).rpartition('.')
    if scope == 'mmpeft' and (name in NAMED or 'method' in node):
        if name in NAMED:
            methods = [
                {'type': NAMED[name][0], **{k: node[k] for k in options_of(METHODS[NAMED[name][0]]) if k in node}}
            ]
        else:
            methods = [node['method']] if isinstance(node['method'], Mapping) else node['method']
        yield key, [full_options(method) if method['type'] in METHODS else dict(method) for method in methods]
        return
    for child in node:
        yield from _methods_in(node[child], f'{key}.{child}')


def _model_of(text: str | None) -> dict | None:
    """The model in a config's text, read as data: no code is run from a checkpoint."""
    try:
        body = ast.parse(text or '').body
    except SyntaxError:
        return None
    for node in body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == 'model':
            return _value(node.value)
    return None


def _value(node: ast.expr) -> Any:
    """The value of literals and ``dict(...)`` calls; the source text of anything else."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == 'dict' and not node.args:
        return {keyword.arg: _value(keyword.value) for keyword in node.keywords}
    if isinstance(node, ast.Dict):
        return {_value(key): _value(value) for key, value in zip(node.keys, node.values, strict=True) if key}
    if isinstance(node, ast.List | ast.Tuple):
        return [_value(item) for item in node.elts]
    try:
        return ast.literal_eval(node)
    except ValueError:
        return ast.unparse(node)
