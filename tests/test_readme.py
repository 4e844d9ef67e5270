"""What the README says is what the tests use and what the repository holds."""

import re
from pathlib import Path

import pytest
from test_contract import FOLDS, REFUSED
from tiny import BACKBONES

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


def cell(method: str, column: str) -> str:
    refused = {(host, method) in REFUSED for host in BACKBONES if family(host) == column}
    assert len(refused) == 1, f'{method} works in some {column} and not in others'
    if refused.pop():
        return '-'
    if method not in PUBLISHED:
        return 'works'
    return 'published' if column in PUBLISHED[method] else 'extension'


def table() -> str:
    columns = list(dict.fromkeys(map(family, BACKBONES)))
    rows = [['method', *columns, 'merges'], ['---'] * (len(columns) + 2)]
    for method in METHODS:
        merges = 'fully' if method in FOLDS else 'stays'
        rows.append([method, *(cell(method, column) for column in columns), merges])
    return '\n'.join(f'| {" | ".join(row)} |' for row in rows)


def test_the_matrix_is_the_one_that_the_contract_tests():
    shown = README.partition('<!-- matrix -->\n')[2].partition('\n<!-- matrix end -->')[0]
    assert shown.strip() == table()


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
