import hashlib
import os

import pytest

from mmpeft.files import hash_of, remove_leftovers, write_atomically


def test_a_file_is_written_with_its_folder_and_nothing_else_stays(tmp_path):
    path = tmp_path / 'new' / 'a.bin'
    write_atomically(path, lambda file: file.write(b'abc'))
    assert path.read_bytes() == b'abc' and os.listdir(path.parent) == ['a.bin']


def test_a_file_of_the_name_is_replaced_only_when_the_new_one_is_whole(tmp_path):
    path = tmp_path / 'a.bin'
    path.write_bytes(b'old')

    def write(file):
        file.write(b'new')
        file.flush()
        assert path.read_bytes() == b'old'

    write_atomically(path, write)
    assert path.read_bytes() == b'new'


def test_a_write_that_fails_leaves_the_old_file_alone(tmp_path):
    path = tmp_path / 'a.bin'
    path.write_bytes(b'old')

    def write(file):
        file.write(b'half')
        raise OSError('disk full')

    with pytest.raises(OSError, match='disk full'):
        write_atomically(path, write)
    assert path.read_bytes() == b'old' and os.listdir(tmp_path) == ['a.bin']


def test_content_and_name_are_flushed_to_the_disk(tmp_path, monkeypatch):
    flushed = []
    flush = os.fsync
    monkeypatch.setattr(os, 'fsync', lambda fd: (flushed.append(os.readlink(f'/proc/self/fd/{fd}')), flush(fd)))
    write_atomically(tmp_path / 'a.bin', lambda file: file.write(b'abc'))
    assert flushed == [str(tmp_path / f'.a.bin.{os.getpid()}'), str(tmp_path)]


def test_what_dead_writers_left_is_removed_and_nothing_else(tmp_path):
    for name in ('.a.pth.12', '.b.pth.old', '.a.txt.12', 'a.pth'):
        (tmp_path / name).touch()
    remove_leftovers(tmp_path, '*.pth')
    assert sorted(os.listdir(tmp_path)) == ['.a.txt.12', '.b.pth.old', 'a.pth']


def test_a_file_is_hashed_in_pieces(tmp_path):
    path = tmp_path / 'a.bin'
    path.write_bytes(b'abc' * 1_000_000)
    assert hash_of(path) == hashlib.sha256(b'abc' * 1_000_000).hexdigest()
