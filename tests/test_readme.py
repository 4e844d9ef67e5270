"""What the README says is what the tests use and what the repository holds."""

import re
from pathlib import Path

import pytest
from shrunk import TOP
from test_contract import FOLDS, REFUSED
from tiny import BACKBONES
from zoo import END, START, figures, zoo

from mmpeft.methods import METHODS

README = Path('README.md').read_text()
# Where each method was published, by the papers and the code that METHODS' docstrings name.
PUBLISHED = {
    'Mona': {'Swin'},
    'SSF': {'Swin', 'ViT', 'ConvNeXt'},
    'CVPT': {'ViT'},
    'VPT': {'ViT'},
    **dict.fromkeys(('LoRA', 'Adapter', 'AdaptFormer', 'LoRand', 'BitFit', 'NormTuning', 'Partial'), {'Swin'}),
}


def family(host: str) -> str:
    return host.split()[-1]


def cell(method: str, row: str) -> str:
    refused = {(host, method) in REFUSED for host in BACKBONES if family(host) == row}
    assert len(refused) == 1, f'{method} works in some {row} and not in others'
    if refused.pop():
        return '-'
    if method not in PUBLISHED:
        return 'works'
    return 'published' if row in PUBLISHED[method] else 'extension'


def table() -> str:
    rows = [['backbone', *METHODS], ['---'] * (len(METHODS) + 1)]
    rows += [[host, *(cell(method, host) for method in METHODS)] for host in dict.fromkeys(map(family, BACKBONES))]
    rows.append(['merges', *('fully' if method in FOLDS else 'stays' for method in METHODS)])
    return '\n'.join(f'| {" | ".join(row)} |' for row in rows)


def test_the_matrix_is_the_one_that_the_contract_tests():
    shown = README.partition('<!-- matrix -->\n')[2].partition('\n<!-- matrix end -->')[0]
    assert shown.strip() == table()


def test_the_zoo_is_that_of_the_configs():
    shown = README.partition(START)[2].partition(END)[0]
    assert shown == zoo(), 'python tests/zoo.py writes it anew'
    assert sorted(re.findall(r'configs/([\w.-]+)\.py', shown)) == sorted(TOP)


@pytest.mark.parametrize(
    'said, found',
    [
        (
            "# Published: 52.4 box AP (the authors' plot), 45.1 mask AP (a margin,\n# second-hand).",
            ['52.4 P', '45.1 S'],
        ),
        ('# Published: 48.3 mIoU, 50.1 multi-scale (VPT, second-hand); all have 50 there.', ['48.3 S', '50.1 S']),
        ('# Published: 50.8 mIoU (reprinted by a third party). Third party: 51.0 mIoU.', ['50.8 T']),
        ('# Published: 50.1 box AP (read off a plot); mask AP not verified. Not run here.', ['50.1 R']),
        ("# Published: 51.2 mIoU (the authors' log: the best; the last has 51.0).", ['51.2 L']),
        ('# Published: not verified (the paper has 78.4 mAP, second-hand).', []),
        ('# Published: 13.43 M parameters (derived); the mIoU could not be found.', []),
        ('# No published result. Third party: 51.0 mIoU (their plot).', []),
    ],
)
def test_figures_of_a_header_come_with_how_certain_they_are(said, found):
    assert list(figures(said).values()) == found


def test_every_file_and_tool_that_the_readme_names_exists():
    names = re.findall(r'(?:configs|tools|docs|tests|mmpeft)/[\w./-]+\w', README)
    assert names and all(Path(name).exists() for name in names)


@pytest.mark.parametrize('target', re.findall(r'^make (\S+)', README, re.M))
def test_every_make_target_that_the_readme_names_exists(target):
    assert re.search(rf'^{target}:', Path('Makefile').read_text(), re.M)


if __name__ == '__main__':
    print(table())


def test_every_test_that_the_docs_name_exists():
    file, found = None, 0
    for named, test in re.findall(r'`(\w+\.py|\.\.\.)::(test_\w+)`', Path('docs/adapter_files.md').read_text()):
        file = file if named == '...' else named
        assert f'def {test}(' in Path('tests', file).read_text(), f'{file}::{test}'
        found += 1
    assert found
