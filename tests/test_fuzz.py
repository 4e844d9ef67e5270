"""Thousands of mutated files: each is refused by an error of ours, or is what was saved; nothing else happens."""

import io
import json
from functools import cache
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save
from test_checkpoint import adapted, moved
from tiny import MONA, weights

import mmpeft
from mmpeft.adapter_file import KEY, checksum
from mmpeft.checkpoint import read_adapters
from mmpeft.mm.checks import UserError
from mmpeft.mm.weights.checkpoints import read_checkpoint

METHOD = dict(MONA, blocks=r'stages\.0')
QUICK, MANY = 1000, 5000
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
EDITS = st.lists(
    st.tuples(st.sampled_from(['flip', 'cut', 'insert', 'copy']), st.integers(0, 2**20), st.binary(max_size=12)),
    min_size=1,
    max_size=4,
)


def fuzzed(examples):
    """Many examples from a fixed seed; the files are in one folder, so that it can be looked at after each."""
    checks = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large]
    return settings(max_examples=examples, deadline=None, derandomize=True, database=None, suppress_health_check=checks)


@cache
def victim():
    return adapted(METHOD)


@cache
def tensors_of_victim():
    return list(victim().state_dict(keep_vars=True).values())


@pytest.fixture(scope='module')
def saved(tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp('saved') / 'task.safetensors'
    mmpeft.save_adapters(moved(adapted(METHOD)), path)
    return path.read_bytes()


def mutated(content: bytes, edits) -> bytes:
    """``content`` after some edits; half of them in the first kilobytes, where the header is."""
    data = bytearray(content)
    for kind, number, extra in edits:
        place = number % max(len(data) if number % 2 else min(len(data), 4096), 1)
        if kind == 'flip' and data:
            data[place] ^= 1 << number % 8
        elif kind == 'cut':
            del data[place:]
        elif kind == 'insert':
            data[place:place] = extra
        elif kind == 'copy':
            data[place : place + len(extra)] = extra
    return bytes(data)


def versions() -> int:
    """A number that every write to a tensor of the victim raises."""
    return sum(tensor._version for tensor in tensors_of_victim())


def survives(folder: Path, data: bytes, original: bytes) -> None:
    """Loading ``data`` is refused by an AdapterFileError, writes no file and leaves the model alone."""
    path = folder / 'mutated.safetensors'
    path.write_bytes(data)
    before = versions()
    try:
        read_adapters(path)  # what load_adapters does first; most files end here
        mmpeft.load_adapters(victim(), path)
    except mmpeft.AdapterFileError as error:
        assert len(str(error)) < 2000
        assert versions() == before
    else:
        assert load(data).keys() == load(original).keys()
        assert all(torch.equal(tensor, load(original)[name]) for name, tensor in load(data).items())
    assert [file.name for file in folder.iterdir()] == [path.name]


@pytest.mark.parametrize('examples', [QUICK, pytest.param(MANY, marks=pytest.mark.slow)])
def test_mutated_bytes_are_refused(examples, saved, tmp_path):
    @fuzzed(examples)
    @given(EDITS)
    def run(edits):
        survives(tmp_path, mutated(saved, edits), saved)

    run()


@pytest.mark.parametrize('examples', [QUICK, pytest.param(MANY, marks=pytest.mark.slow)])
def test_mutated_metadata_is_refused_even_with_a_checksum_that_is_right(examples, saved, tmp_path):
    """As from somebody who means harm and knows the format."""
    tensors = load(saved)
    header = json.loads(saved[8 : 8 + int.from_bytes(saved[:8], 'little')])['__metadata__']
    info = json.loads(header[KEY])
    fields = st.sampled_from([*info, 'unknown'])

    @fuzzed(examples)
    @given(st.dictionaries(fields, JSON, min_size=1, max_size=3), st.booleans())
    def run(changes, removes):
        values = {**info, **changes}
        if removes:
            values = {name: value for name, value in values.items() if name not in changes}
        text = json.dumps(values)
        survives(tmp_path, save(tensors, {**header, KEY: text, f'{KEY}_checksum': checksum(text, tensors)}), saved)

    run()


@pytest.mark.parametrize('examples', [QUICK, pytest.param(MANY // 4, marks=pytest.mark.slow)])
def test_a_mutated_pth_file_is_refused_or_read_as_data(examples, tmp_path):
    buffer = io.BytesIO()
    torch.save(dict(state_dict=weights(torch.nn.Linear(3, 2)), meta=dict(epoch=1, name='x')), buffer)
    path = tmp_path / 'mutated.pth'

    @fuzzed(examples)
    @given(EDITS)
    def run(edits):
        path.write_bytes(mutated(buffer.getvalue(), edits))
        try:
            read_checkpoint(path)
        except UserError:
            pass
        assert list(tmp_path.iterdir()) == [path]

    run()
