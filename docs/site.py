"""What mkdocs needs beyond docs/: the README as its first page, linked files of the repository, and the reference.

Links in the pages are those of the repository, so that they work there too; here they are turned to the site.
"""

import inspect
import json
import os
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path, PurePosixPath

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
LINK = re.compile(r'(?<=\]\()([^)#:\s]+)(?=[)#])')
PROJECT = ('CHANGELOG.md', 'CONTRIBUTING.md', 'SECURITY.md')
PACKAGES = {'index': 'mmpeft', 'methods': 'mmpeft.methods', 'hosts': 'mmpeft.hosts'}
REGISTRIES = ('MODELS', 'HOOKS', 'DATASETS', 'METRICS', 'OPTIM_WRAPPER_CONSTRUCTORS', 'TRANSFORMS')


def on_files(files: Files, config) -> Files:
    """Add what is not in docs/: the first page, the tutorial, the reference, and every file that a page links to."""
    files.remove(files.get_file_from_path('tutorial.ipynb'))
    files.append(_made(config, 'index.md', (ROOT / 'README.md').read_text()))
    files.append(_made(config, 'tutorial.md', notebook_as_markdown(ROOT / 'docs' / 'tutorial.ipynb')))
    for name, text in reference().items():
        files.append(_made(config, f'api/{name}.md', text))
    wanted = [ROOT / name for name in PROJECT]
    pages = [ROOT / 'README.md', *ROOT.glob('docs/*.md')]
    while wanted or pages:
        pages += [path for path in wanted if path.suffix == '.md']
        for path in wanted:
            files.append(_made(config, place_of(path), path.read_bytes()))
        wanted = []
        for page in pages:
            wanted += [path for path in linked(page) if files.get_file_from_path(place_of(path)) is None]
        wanted, pages = list(dict.fromkeys(wanted)), []
    return files


def on_page_markdown(markdown: str, page, config, files) -> str:
    """Turn the links of a page of the repository to the site."""
    home = source_of(page.file.src_uri)
    if home is None:
        return markdown
    folder = PurePosixPath(page.file.src_uri).parent

    def turned(match: re.Match) -> str:
        target = (home.parent / match[1]).resolve()
        return os.path.relpath(place_of(target), folder) if target.is_file() else match[1]

    return LINK.sub(turned, markdown)


def linked(page: Path) -> Iterator[Path]:
    """The files of the repository that a page links to."""
    for match in LINK.finditer(page.read_text()):
        target = (page.parent / match[1]).resolve()
        if target.is_file() and target.is_relative_to(ROOT):
            yield target


def place_of(path: Path) -> str:
    """Where the site has a file of the repository."""
    inside = path.relative_to(ROOT).as_posix()
    if inside == 'README.md':
        return 'index.md'
    if inside.startswith('docs/'):
        return inside.removeprefix('docs/').replace('.ipynb', '.md')
    return f'source/{inside}'


def source_of(place: str) -> Path | None:
    """The file of the repository that the site has in ``place``, or None for a page that is made."""
    if place == 'index.md':
        return ROOT / 'README.md'
    if place.startswith('source/'):
        return ROOT / place.removeprefix('source/')
    return None if place.startswith('api/') else ROOT / 'docs' / place


def reference() -> dict[str, str]:
    """The pages of the reference: every public name of the packages, and what configs may name."""
    pages = {}
    for page, package in PACKAGES.items():
        module = import_module(package)
        named = {f'{package}.{name}': getattr(module, name) for name in module.__all__}
        pages[page] = _reference_of(f'`{package}`', inspect.getdoc(module), named)
    registries = import_module('mmpeft.registry')
    named = {}
    registries.DATASETS.get('STARDataset')  # imported when it is asked for
    for registry in (getattr(registries, name) for name in REGISTRIES):
        registry.import_from_location()
        named |= {f'mmpeft.{name}': cls for name, cls in sorted(registry.module_dict.items())}
    pages['mm'] = _reference_of('Names for configs', 'What a config may name as `type`.', named)
    return pages


def _reference_of(title: str, intro: str, named: dict[str, object]) -> str:
    """A page with a section for each name.

    Raises:
        PluginError: A public name has no docstring.
    """
    sections = [f'# {title}', intro]
    for name, thing in named.items():
        thing = getattr(thing, 'func', thing)  # a name for a class with some of its arguments given
        if inspect.ismodule(thing):
            continue
        if not callable(thing):
            sections += [f'## `{name}`', f'A {type(thing).__name__} of {", ".join(f"`{key}`" for key in thing)}.']
            continue
        if not thing.__doc__:
            raise PluginError(f'{name} is public and has no docstring: {thing.__module__}.{thing.__qualname__}.')
        heading = f'    options: {{heading: {name}, toc_label: {name}}}'
        sections.append(f'::: {thing.__module__}.{thing.__qualname__}\n{heading}')
    return '\n\n'.join(sections) + '\n'


def notebook_as_markdown(path: Path) -> str:
    """The cells of a notebook, with their texts and pictures."""
    parts = []
    for cell in json.loads(path.read_text())['cells']:
        source = ''.join(cell['source'])
        if cell['cell_type'] == 'markdown':
            parts.append(source)
            continue
        shell = source.startswith(('!', '%%bash'))
        source = source.removeprefix('%%bash\n').removeprefix('!')
        parts.append(f'```{"bash" if shell else "python"}\n{source}\n```')
        for output in cell.get('outputs', ()):
            data = output.get('data', {})
            picture = next((kind for kind in ('image/png', 'image/jpeg') if kind in data), None)
            if picture:
                parts.append(f'![what the cell shows](data:{picture};base64,{"".join(data[picture].split())})')
            else:
                text = ''.join(output.get('text', data.get('text/plain', ''))).rstrip()
                parts.append(f'```text\n{text}\n```')
    return '\n\n'.join(parts) + '\n'


def _made(config, place: str, content: str | bytes) -> File:
    return File.generated(config, place, content=content)
