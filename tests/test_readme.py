"""What the README and the pages of docs say is what the tests use and what the repository holds."""

import re
from pathlib import Path

import pytest
from mmengine.fileio import load
from shrunk import TOP
from test_contract import FOLDS, REFUSED
from tiny import BACKBONES
from zoo import END, METAFILE, PAGE, START, figures, metafile, zoo

from mmpeft.commands.dispatch import COMMANDS
from mmpeft.methods import METHODS

README = Path('README.md').read_text()
MATRIX = Path('docs/methods.md')
PAGES = [Path('README.md'), Path('configs/README.md'), *sorted(Path('docs').glob('*.md'))]
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
    shown = MATRIX.read_text().partition('<!-- matrix -->\n')[2].partition('\n<!-- matrix end -->')[0]
    assert shown.strip() == table()


def test_the_zoo_is_that_of_the_configs():
    shown = PAGE.read_text().partition(START)[2].partition(END)[0]
    assert shown == zoo(), 'python tests/zoo.py writes it anew'
    assert sorted(re.findall(r'configs/([\w.-]+)\.py', shown)) == sorted(TOP)


def test_the_metafile_is_that_of_the_configs():
    assert METAFILE.read_text() == metafile(), 'python tests/zoo.py writes it anew'
    assert load('model-index.yml')['Import'] == [str(METAFILE)]
    assert [model['Config'] for model in load(METAFILE)['Models'] if not Path(model['Config']).is_file()] == []


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


@pytest.mark.parametrize('page', PAGES, ids=str)
def test_every_file_and_tool_that_a_page_names_exists(page):
    names = re.findall(r'(?<![\w/.-])(?:configs|tools|docs|tests|mmpeft)/[\w./-]+\w', page.read_text())
    placeholder = re.compile(r'[A-Z_]+\.py$')
    assert [name for name in names if not Path(name).exists() and not placeholder.search(name)] == []


@pytest.mark.parametrize('page', PAGES, ids=str)
def test_every_link_of_a_page_leads_somewhere(page):
    targets = re.findall(r'\]\(([^)#:]+)(?:#[^)]*)?\)', page.read_text())
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_the_readme_is_a_short_page():
    assert len(README.splitlines()) <= 150


def test_the_pictures_of_the_readme_are_small():
    pictures = re.findall(r'!\[.*\]\((.+)\)', README)
    assert pictures and sum(Path(picture).stat().st_size for picture in pictures) < 300_000


def test_every_command_has_a_line_in_its_page_and_every_named_command_exists():
    rows = re.findall(r'^\| `mmpeft (\w+)`', Path('docs/commands.md').read_text(), re.M)
    assert sorted(rows) == sorted(COMMANDS)
    blocks = [block for page in PAGES for block in re.findall(r'```bash\n(.*?)```', page.read_text(), re.S)]
    named = {name for block in blocks for name in re.findall(r'^mmpeft (\w+)', block, re.M)}
    assert named <= {*COMMANDS}


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
