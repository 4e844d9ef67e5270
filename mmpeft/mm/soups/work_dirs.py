"""The weights that a run left in its work dir."""

import re
from collections.abc import Sequence
from pathlib import Path

from mmpeft.mm.checks import UserError
from mmpeft.mm.saving.resume import find_resumable


def last_weights(place: str) -> str:
    """The file itself, or of a work dir its ``adapters_last.safetensors`` or else its last checkpoint.

    Raises:
        UserError: The work dir holds neither.
    """
    folder = Path(place)
    if not folder.is_dir():
        return place
    adapters = folder / 'adapters_last.safetensors'
    path = str(adapters) if adapters.is_file() else find_resumable(place)
    if path is None:
        raise UserError(f'{place} holds no weights; was anything trained there?')
    return path


def last_checkpoints(folders: Sequence[str], count: int) -> list[str]:
    """The newest checkpoints of a work dir, by the epoch or iteration in their names.

    Raises:
        UserError: There is not one folder, or fewer checkpoints are in it.
    """
    if len(folders) != 1 or not Path(folders[0]).is_dir():
        raise UserError(f'last takes one work dir, got {", ".join(folders)}.')
    found = {path: re.fullmatch(r'(?:epoch|iter)_(\d+)', path.stem) for path in Path(folders[0]).glob('*.pth')}
    paths = sorted((path for path in found if found[path]), key=lambda path: int(found[path][1]))[-count:]
    if len(paths) < count:
        raise UserError(
            f'{folders[0]} holds {len(paths)} checkpoints, and {count} are to be averaged. Keep more in training, by '
            'default_hooks.checkpoint.max_keep_ckpts, or average fewer with --count.'
        )
    return [str(path) for path in paths]
