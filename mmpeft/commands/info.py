"""Print the versions of the stack, the GPU, what is missing and the line that installs it, to paste into a report."""

import argparse
import platform
import re
import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from pathlib import Path

import torch

import mmpeft

EXAMPLE = 'info'
# The modules of the stack, and the packages that bring them: the maintained ones first.
STACK = {
    'mmengine': ('onedl-mmengine', 'mmengine'),
    'mmcv': ('onedl-mmcv', 'mmcv'),
    'mmdet': ('onedl-mmdetection', 'mmdet'),
    'mmseg': ('onedl-mmsegmentation', 'mmsegmentation'),
    'mmpretrain': ('onedl-mmpretrain', 'mmpretrain'),
    'mmrotate': ('onedl-mmrotate', 'mmrotate'),
    'torchvision': ('torchvision',),
}
COMPILE = (
    "pip install 'setuptools<81' wheel ninja psutil 'numpy<2.3' && "
    'CFLAGS=-g0 CXXFLAGS=-g0 pip install --no-build-isolation'
)
FOR_DEVELOPERS = ('test', 'docs')  # extras that nobody misses who trains


def add_arguments(parser: argparse.ArgumentParser) -> None:
    pass


def run(args: argparse.Namespace) -> None:
    print('\n'.join(lines()))


def lines() -> Iterator[str]:
    """What is here, one thing a line, and last what is missing."""
    yield _line('mmpeft', f'{mmpeft.__version__} in {Path(mmpeft.__file__).parent}')
    yield _line('python', f'{sys.version.split()[0]} on {platform.platform()}')
    yield _line('torch', torch.__version__)
    yield _line('GPU', _gpu())
    for module, packages in STACK.items():
        yield _line(module, _installed(packages) if find_spec(module) else 'not installed')
    fits, said = _operators()
    yield _line('operators', said)
    missing = list(_missing())
    if not fits:
        missing.append((f'{COMPILE} --no-deps --force-reinstall --no-cache-dir onedl-mmcv', "mmcv's operators"))
    for command, what in missing:
        yield f'missing: {what}. {command}'
    if not missing:
        yield 'Nothing is missing.'


def _line(name: str, text: str) -> str:
    return f'{name:12}{text}'


def _installed(packages: tuple[str, ...]) -> str:
    """The version of the first of several packages that is installed, with its name."""
    for package in packages:
        try:
            return f'{version(package)} ({package})'
        except PackageNotFoundError:
            continue
    return 'of unknown version'


def _gpu() -> str:
    if not torch.cuda.is_available():
        return f'none that torch can use (CUDA of torch: {torch.version.cuda or "none"})'
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return f'{", ".join(names)} (CUDA of torch: {torch.version.cuda or torch.version.hip})'


def _operators() -> tuple[bool, str]:
    """Whether the compiled operators of mmcv load beside this torch and this GPU, and how to say it."""
    if find_spec('mmcv') is None:
        return True, 'none, because mmcv is not installed'
    try:
        built_for = import_module('mmcv._ext').get_compiling_cuda_version()
    except Exception as error:  # of another torch: symbols are missing; mmcv-lite: there are none
        return False, f'of mmcv do not fit this torch: {" ".join(str(error).split())}'
    on_gpu = built_for != 'not available'
    if torch.cuda.is_available() and not on_gpu:
        return False, 'of mmcv are for the CPU alone, and there is a GPU'
    return True, f'of mmcv fit this torch ({f"CUDA {built_for}" if on_gpu else "CPU"})'


def _missing() -> Iterator[tuple[str, str]]:
    """For each extra of mmpeft that is not whole, the line that installs it and what it lacks."""
    try:
        needed = requires('mmpeft') or []
    except PackageNotFoundError:
        needed = []
    lacking: dict[str, list[str]] = {}
    for line in needed:
        extra = re.search(r'extra == "(\w+)"', line)
        name = re.split(r'[\s=<>;\[]', line)[0]
        if extra and extra[1] not in FOR_DEVELOPERS and not _is_there(name):
            lacking.setdefault(extra[1], []).append(name)
    for extra, names in lacking.items():
        compiled = 'onedl-mmcv' in names
        yield f"{COMPILE if compiled else 'pip install'} 'mmpeft[{extra}]'", f'{", ".join(names)} (extra {extra})'


def _is_there(package: str) -> bool:
    """Whether a package is installed, or for those of OpenMMLab the module under either of its names."""
    for module, packages in STACK.items():
        if package in packages:
            return find_spec(module) is not None
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True
