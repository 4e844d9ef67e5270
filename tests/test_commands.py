"""The command ``mmpeft``: its table, its help, what it shares with the tools, and what it says of a machine."""

import shlex
import subprocess
import sys
from importlib import import_module
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
from tiny_data import tool

import mmpeft
from mmpeft.commands import info
from mmpeft.commands.dispatch import COMMANDS, main, parser_of
from mmpeft.mm.checks import UserError, read_config
from mmpeft.shipped import CONFIGS, TOOLS


@pytest.mark.parametrize('name', COMMANDS)
def test_the_example_of_a_command_parses(name):
    command, *rest = shlex.split(import_module(f'mmpeft.commands.{name}').EXAMPLE)
    assert command == name and parser_of(name).parse_args(rest)


@pytest.mark.parametrize('name', [name for name in COMMANDS if Path('tools', f'{name}.py').exists()])
def test_a_tool_has_the_parser_of_its_command(name, capsys):
    with pytest.raises(SystemExit, match='0'):
        tool(name).main(['--help'])
    by_tool = capsys.readouterr().out
    with pytest.raises(SystemExit, match='0'):
        main([name, '--help'])
    assert by_tool == capsys.readouterr().out and f'usage: mmpeft {name}' in by_tool and 'example:' in by_tool


def test_every_file_of_a_command_is_in_the_table():
    files = {path.stem for path in Path('mmpeft/commands').glob('*.py')}
    assert files == {*COMMANDS, '__init__', 'dispatch'}


def test_the_overview_has_a_line_for_each_command(capsys):
    main([])
    words = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [line[0] for line in words if line and line[0] in COMMANDS] == [*COMMANDS]
    assert all(len(line) > 3 for line in words if line and line[0] in COMMANDS)


def test_the_version_is_that_of_the_package(capsys):
    main(['--version'])
    assert capsys.readouterr().out.strip() == mmpeft.__version__


@pytest.mark.parametrize(
    'typed, meant', [('trian', ' Did you mean train?'), ('merg', ' Did you mean merge?'), ('zzz', '')]
)
def test_a_typo_is_answered_with_the_nearest_command(typed, meant, capsys):
    with pytest.raises(SystemExit, match='2'):
        main([typed])
    assert capsys.readouterr().err.startswith(f"error: mmpeft has no command '{typed}'.{meant} Commands: train, test,")


def test_without_the_stack_info_says_what_to_install_and_other_commands_name_info():
    code = 'import sys; sys.modules["mmengine"] = None; from mmpeft.commands.dispatch import main; main(sys.argv[1:])'
    shown = subprocess.run([sys.executable, '-c', code, 'info'], capture_output=True, text=True, check=True).stdout
    assert 'mmengine    not installed' in shown
    done = subprocess.run([sys.executable, '-c', code, 'train', 'x.py'], capture_output=True, text=True)
    assert done.stderr.strip().endswith('mmpeft info says how to install what is missing.') and done.returncode == 1
    assert done.stderr.startswith('error: mmpeft train needs mmengine, which is not installed.')


def test_info_tells_versions_and_that_the_operators_fit():
    shown = dict(line.split(maxsplit=1) for line in info.lines() if not line.startswith(('missing', 'Nothing')))
    assert {*info.STACK} < shown.keys() and shown['operators'].startswith('of mmcv fit this torch')
    assert shown['mmpeft'].startswith(mmpeft.__version__)


def test_operators_of_another_torch_come_with_the_line_that_builds_them_anew(monkeypatch):
    def misfit(name):
        raise ImportError('undefined symbol: _ZN3c10')

    monkeypatch.setattr(info, 'import_module', misfit)
    said = '\n'.join(info.lines())
    assert 'of mmcv do not fit this torch: undefined symbol' in said
    assert '--no-build-isolation --no-deps --force-reinstall --no-cache-dir onedl-mmcv' in said


def test_a_missing_extra_is_told_with_the_line_that_installs_it(monkeypatch):
    def version(name):
        raise PackageNotFoundError(name)

    needed = ['torch>=2.6', 'scikit-image==0.25.2; extra == "demo"', 'pytest==9.0.3; extra == "test"']
    monkeypatch.setattr(info, 'requires', lambda name: needed)
    monkeypatch.setattr(info, 'version', version)
    missing = [line for line in info.lines() if line.startswith('missing')]
    assert missing == ["missing: scikit-image (extra demo). pip install 'mmpeft[demo]'"]


def test_a_recipe_is_found_by_its_name_from_any_folder(tmp_path, monkeypatch):
    here = read_config('configs/mona_swin_coco.py')
    monkeypatch.chdir(tmp_path)
    for name in ('mona_swin_coco.py', 'configs/mona_swin_coco.py'):
        assert read_config(name).to_dict() == here.to_dict()
    assert Path(read_config('demo/mona_swin-micro_digits.py').model.backbone.backbone.init_cfg.checkpoint).is_file()
    (tmp_path / 'mona_swin_coco.py').write_text('model = dict(own=True)')
    assert read_config('mona_swin_coco.py').model == dict(own=True)


def test_a_misspelt_recipe_is_answered_with_those_that_look_like_it():
    with pytest.raises(UserError, match=r'mona_swin_coc\.py\. Did you mean the recipe mona_swin_coco\.py'):
        read_config('mona_swin_coc.py')


def test_a_config_inherits_from_our_recipes_as_from_those_of_openmmlab(tmp_path):
    (tmp_path / 'own.py').write_text("_base_ = 'mmpeft::recipes/lora_swin_coco.py'\nwork_dir = 'own'\n")
    cfg, recipe = read_config(str(tmp_path / 'own.py')), read_config('configs/lora_swin_coco.py')
    assert cfg.to_dict() == recipe.to_dict() | dict(work_dir='own')


def test_a_clone_ships_the_folders_of_its_root():
    assert (CONFIGS, TOOLS) == (Path('configs').resolve(), Path('tools').resolve())
