"""Data sets that are broken at random: what the check calls clean the stock loader reads, the rest training refuses."""

import json
import random
import tempfile
from pathlib import Path

import bad_data as bad
import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from PIL import Image

from mmpeft.data.kinds import UNKNOWN_CLASS
from mmpeft.mm.checks import UserError

VALUES = (None, '', '4', -5, 0, 1, 2.5, 1e9, float('nan'), float('inf'), True, [], {}, [1, 2, 3], 'disk', 'café')
WORDS = ('', 'nan', '-3', '0', '7.5', '1e4', 'plane', 'gsd:0.2', '\ufeff', '8 16', 'é')


def break_json(data: bad.Data, dice: random.Random) -> str:
    """Change, remove or repeat something somewhere in the json."""
    path = data.root / bad.JSON
    content = json.loads(path.read_text())
    name = dice.choice(('images', 'annotations', 'annotations', 'categories'))
    entry = dice.choice(content[name])
    key, value, way = (
        dice.choice(list(entry)),
        dice.choice(VALUES),
        dice.choice(('set', 'all', 'drop', 'twice', 'part')),
    )
    if way == 'drop':
        del entry[key]
    elif way == 'twice':
        content[name].append(dict(entry, **({key: value} if dice.random() < 0.5 else {})))
    elif way == 'part' and isinstance(entry[key], list):
        entry[key][dice.randrange(len(entry[key]))] = value
    else:
        for other in content[name] if way == 'all' else [entry]:
            other[key] = value
    dice.shuffle(content['annotations'])
    path.write_text(json.dumps(content), encoding=dice.choice(('utf-8', 'utf-8', 'utf-8', 'utf-8-sig', 'utf-16')))
    return f'{way} {name} {key} {value!r}'


def break_text(data: bad.Data, dice: random.Random) -> str:
    """Change a word of an XML file, a label file or the list."""
    paths = list(bad.entries(data)) + ([data.root / 'VOC/list.txt'] if data.format == 'voc' else [])
    path, word = dice.choice(paths), dice.choice(WORDS)
    parts = path.read_text().replace('<', ' <').replace('>', '> ').split(' ')
    at = dice.randrange(len(parts))
    parts[at : at + dice.randrange(2)] = [word]
    text = ' '.join(parts).replace(' <', '<').replace('> ', '>')
    path.write_text(text, encoding=dice.choice(('utf-8', 'utf-8', 'utf-8-sig')))
    return f'{path.name} {text!r}'


def break_maps(data: bad.Data, dice: random.Random) -> str:
    """Draw label maps in other values and kinds of pixels."""
    value, kind = (
        dice.choice((0, 1, 2, 127, 255, 256, 300)),
        dice.choice(('uint8', 'uint16', 'int32', '1', 'LA', 'RGB')),
    )
    for path in [*bad.entries(data)][: dice.choice((1, None))]:
        drawn = cv2.imread(str(path), cv2.IMREAD_UNCHANGED).astype(np.int64) * value + dice.choice((0, 0, 1))
        by_numpy = kind in ('uint16', 'int32')
        image = Image.fromarray(drawn.astype(kind if by_numpy else np.uint8))
        (image if by_numpy or kind == 'uint8' else image.convert(kind)).save(path.with_suffix('.tif'), format='TIFF')
        path.with_suffix('.tif').rename(path)
    return f'{kind} {value}'


def break_image(data: bad.Data, dice: random.Random) -> str:
    """Remove, cut, turn or exchange an image."""
    folder = data.root / ('VOC/JPEGImages' if data.format == 'voc' else 'train')
    path, way = (
        dice.choice(sorted(folder.iterdir())),
        dice.choice(('gone', 'cut', 'empty', 'turned', 'small', 'png', 'gif')),
    )
    if way == 'gone':
        path.unlink()
    elif way == 'cut':
        path.write_bytes(path.read_bytes()[: -dice.randrange(1, 400)])
    elif way == 'empty':
        path.write_bytes(b'')
    elif way == 'turned':
        bad.turned(path)
    else:
        picture = Image.new('RGB', (20, 20) if way == 'small' else (64, 64), 'red')
        picture.save(path, format='JPEG' if way == 'small' else way.upper())
    return f'{path.name} {way}'


BREAKS = dict(coco=(break_json,) * 3, voc=(break_text,) * 3, dota=(break_text,) * 3, ade20k=(break_maps,) * 3)


@settings(max_examples=25, deadline=None, derandomize=True, database=None)
@given(some.sampled_from(sorted(BREAKS)), some.integers(0, 2**32), some.integers(1, 4), some.booleans())
def test_what_is_clean_is_read_and_what_is_not_is_refused_in_one_line(format, seed, images, masks):
    _judge(format, seed, images, masks)


@pytest.mark.slow
@pytest.mark.parametrize('format', BREAKS)
def test_the_same_a_thousand_times(format):
    for seed in range(1000):
        _judge(format, seed, 1 + seed % 4, bool(seed % 3))


def _judge(format: str, seed: int, images: int, masks: bool) -> None:
    dice = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        data = bad.write(format, Path(folder), masks and format == 'coco', images)
        if format == 'ade20k':
            data.dataset.reduce_zero_label = True  # as the check takes it where no config tells
        done = dice.choice((*BREAKS[format], break_image))(data, dice)
        try:
            data.ask_training()
        except UserError as error:
            assert '\n' not in str(error) and str(error).startswith('train_dataloader'), (done, str(error))
            return
        report = data.check()
        if format == 'voc':  # a config may leave names out on purpose, the words behind --classes do not
            report.parts[0].problems.pop(UNKNOWN_CLASS, None)
        assert report.problems == 0, (done, str(report))
        try:
            entries, objects = data.read()
            if format == 'coco':
                data.score()
        except Exception as error:
            raise AssertionError(f'{done}: {error!r}') from error
        assert objects and (entries == images or format in ('coco', 'voc')), done
