"""The recipes and the scripts that come with the package, in a clone and in a wheel alike."""

from difflib import get_close_matches
from pathlib import Path

# OpenMMLab's place for them. In a clone it holds links to ``configs`` and ``tools``.
MIM = Path(__file__).parent / '.mim'
CONFIGS = (MIM / 'configs' / 'recipes').resolve()
TOOLS = (MIM / 'tools').resolve()


def config_file(path: str) -> str | None:
    """The file that is meant by ``path``: that file, or else the recipe of this name, with or without ``configs/``."""
    if Path(path).is_file():
        return path
    recipe = CONFIGS / path.removeprefix('configs/')
    return str(recipe) if recipe.is_file() else None


def similar_recipes(path: str) -> list[str]:
    """Names of recipes that look like ``path``."""
    return get_close_matches(Path(path).name, [file.name for file in CONFIGS.glob('*.py')])
