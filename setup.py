"""Packaging of mmpeft; the pins live in requirements/."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent


def version() -> str:
    """Read the version from the package without importing it, because that needs torch."""
    text = (HERE / 'mmpeft' / 'version.py').read_text()
    return re.search(r"^__version__ = '(.+)'$", text, re.MULTILINE).group(1)


def pins(name: str) -> list[str]:
    """The requirements in one of the pin files, without comments."""
    lines = (HERE / 'requirements' / f'{name}.txt').read_text().splitlines()
    return [line for line in lines if line and not line.startswith('#')]


setup(
    name='mmpeft',
    version=version(),
    description='Parameter-efficient fine-tuning of frozen Swin and ViT backbones for dense prediction',
    long_description=(HERE / 'README.md').read_text() if (HERE / 'README.md').exists() else '',
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    python_requires='>=3.10',
    packages=find_packages(include=['mmpeft', 'mmpeft.*']),
    # Recipes, scripts and the base of the demo: links in a clone, copies in a wheel.
    package_data={'mmpeft': ['.mim/**/*']},
    entry_points={'console_scripts': ['mmpeft = mmpeft.commands.dispatch:main']},
    # Tried without the OpenMMLab libraries. 2.4 cannot read checkpoints as data, and NumPy 1.25 has other names; what
    # torch.export takes of CVPT needs a newer torch.
    install_requires=['torch>=2.6', 'numpy>=1.26', 'safetensors'],
    extras_require={
        'mm': pins('mm') + pins('mmcv'),
        'demo': pins('demo'),
        'hub': pins('hub'),
        'tensorboard': pins('tensorboard'),
        'timm': pins('timm'),
        'wandb': pins('wandb'),
        'docs': pins('docs'),
        'test': pins('demo') + pins('hub') + pins('tensorboard') + pins('timm') + pins('test'),
    },
)
