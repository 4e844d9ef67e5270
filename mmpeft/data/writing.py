"""Write chosen images as annotations in the format they came in, for ``ann_file`` of a config; copy no image."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from mmpeft.data.coco import read_json
from mmpeft.data.quads import is_header
from mmpeft.data.records import Record
from mmpeft.data.trees import Part
from mmpeft.files import write_atomically

ENDINGS = {'coco': '.json', 'voc': '.txt', 'ade20k': '.txt', 'dota': '', 'star': ''}


def write_choice(format: str, root: Path, part: Part, chosen: Sequence[Record], out: Path) -> Path:
    """Write a COCO json, a list file (VOC, ADE20K), or a folder of label files (DOTA, STAR).

    Images keep the order of the part.

    Args:
        format: A key of ``ENDINGS``.
        root: The folder of the data set.
        part: The part that the images are from.
        chosen: The images.
        out: What to write, without an ending.

    Returns:
        What was written.

    Raises:
        ValueError: It is there already.
    """
    path = refuse_existing(format, out)
    names = {record.name for record in chosen}
    if format in ('dota', 'star'):
        _copy_labels(root / str(part.annotations), names, path)
        return path
    if format == 'coco':
        text = _coco_of(root / str(part.annotations), {record.number for record in chosen})
    else:
        text = ''.join(f'{name}\n' for name in sorted(names))
    write_atomically(path, lambda file: file.write(text.encode()))
    return path


def refuse_existing(format: str, out: Path) -> Path:
    """The path that is written for ``out``.

    Raises:
        ValueError: It is there already.
    """
    path = out.with_name(out.name + ENDINGS[format])
    if path.exists():
        raise ValueError(f'{path} exists, and nothing is overwritten; name another, or move it away.')
    return path


def _coco_of(path: Path, numbers: set) -> str:
    content = read_json(path)
    content['images'] = [image for image in content['images'] if image['id'] in numbers]
    content['annotations'] = [entry for entry in content['annotations'] if entry['image_id'] in numbers]
    return json.dumps(content)


def _copy_labels(folder: Path, names: set[str], out: Path) -> None:
    """Copy into a folder beside, which then takes the name: a copy that is broken off leaves no half of it.

    Lines such as ``gsd:0.25`` stay behind: mmrotate's data set class does not read them.
    """
    beside = out.with_name(f'.{out.name}.part')
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    for name in sorted(names):
        lines = (folder / f'{name}.txt').read_text(encoding='utf-8-sig').splitlines(keepends=True)
        text = ''.join(line for line in lines if line.strip() and not is_header(line))
        (beside / f'{name}.txt').write_text(text, encoding='utf-8')
    beside.rename(out)
