import hashlib
import os
import re
import stat
import threading
from concurrent.futures import ThreadPoolExecutor

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
    assert len(flushed) == 2 and re.fullmatch(rf'{tmp_path}/\.a\.bin\.[0-9a-f]{{16}}', flushed[0])
    assert flushed[1] == str(tmp_path)


def test_a_folder_that_cannot_be_flushed_does_no_harm(tmp_path, monkeypatch):
    """As on network file systems."""

    def refuse(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(22, 'Invalid argument')

    monkeypatch.setattr(os, 'fsync', refuse)
    write_atomically(tmp_path / 'a.bin', lambda file: file.write(b'abc'))
    assert (tmp_path / 'a.bin').read_bytes() == b'abc'


def test_a_file_that_cannot_be_flushed_is_not_written(tmp_path, monkeypatch):
    def refuse(descriptor):
        raise OSError(5, 'Input/output error')

    monkeypatch.setattr(os, 'fsync', refuse)
    with pytest.raises(OSError, match='Input/output error'):
        write_atomically(tmp_path / 'a.bin', lambda file: file.write(b'abc'))
    assert os.listdir(tmp_path) == []


def test_threads_that_write_one_file_do_not_meet(tmp_path):
    together = threading.Barrier(2, timeout=30)

    def job(content):
        write_atomically(tmp_path / 'a.bin', lambda file: (file.write(content), together.wait(), file.write(content)))
        return True

    with ThreadPoolExecutor(2) as pool:
        assert all(pool.map(job, [b'1', b'2']))
    assert (tmp_path / 'a.bin').read_bytes() in (b'11', b'22') and os.listdir(tmp_path) == ['a.bin']


def test_a_link_is_kept_and_what_it_points_to_replaced(tmp_path):
    (tmp_path / 'disk').mkdir()
    for name, old in (('old', True), ('new', False)):
        target = tmp_path / 'disk' / name
        if old:
            target.write_bytes(b'old')
        (tmp_path / name).symlink_to(target)
        write_atomically(tmp_path / name, lambda file: file.write(b'abc'))
        assert (tmp_path / name).is_symlink() and target.read_bytes() == b'abc'


def test_nothing_is_written_through_a_link_at_the_temporary_name(tmp_path, monkeypatch):
    (tmp_path / 'victim').write_bytes(b'precious')
    monkeypatch.setattr('secrets.token_hex', lambda size: '0' * 2 * size)
    (tmp_path / f'.a.bin.{"0" * 16}').symlink_to(tmp_path / 'victim')
    with pytest.raises(FileExistsError):
        write_atomically(tmp_path / 'a.bin', lambda file: file.write(b'abc'))
    assert (tmp_path / 'victim').read_bytes() == b'precious'


def test_the_mode_of_a_file_that_is_replaced_stays(tmp_path):
    path = tmp_path / 'a.bin'
    path.touch()
    path.chmod(0o660)
    write_atomically(path, lambda file: file.write(b'abc'))
    write_atomically(tmp_path / 'b.bin', lambda file: file.write(b'abc'))
    (tmp_path / 'c.bin').touch()
    modes = [(tmp_path / name).stat().st_mode & 0o777 for name in ('a.bin', 'b.bin', 'c.bin')]
    assert modes[0] == 0o660 and modes[1] == modes[2]


@pytest.mark.parametrize('name', ['n' * 250, 'ü' * 125])
def test_a_name_as_long_as_the_disk_takes_is_written(tmp_path, name):
    write_atomically(tmp_path / name, lambda file: file.write(b'abc'))
    assert os.listdir(tmp_path) == [name]


def test_what_dead_writers_left_is_removed_and_nothing_else(tmp_path):
    for name in (f'.a.pth.{0:016x}', '.a.pth.12', '.b.pth.old', f'.a.txt.{0:016x}', 'a.pth'):
        (tmp_path / name).touch()
    remove_leftovers(tmp_path, '*.pth')
    assert sorted(os.listdir(tmp_path)) == [f'.a.txt.{0:016x}', '.b.pth.old', 'a.pth']


def test_a_file_is_hashed_in_pieces(tmp_path):
    path = tmp_path / 'a.bin'
    path.write_bytes(b'abc' * 1_000_000)
    assert hash_of(path) == hashlib.sha256(b'abc' * 1_000_000).hexdigest()
