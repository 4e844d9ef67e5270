"""Mix the weights of several runs from one start into one model, chosen on held-out images."""

import argparse

from mmpeft.mm.running.cli import Options as KeyValues
from mmpeft.mm.running.cli import one_line_errors
from mmpeft.mm.soups.souping import RECIPES, Options, make_soup

EXAMPLE = 'soup greedy work_dirs/sweep/run_00.py work_dirs/sweep/run_*/ --out greedy.safetensors'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('recipe', choices=RECIPES, help='last: the mean of the last checkpoints of one run')
    parser.add_argument('config', help='config file of the runs, whose heldout says what soups are scored on')
    parser.add_argument('files', nargs='+', help='adapter files, checkpoints, or work dirs; for last one work dir')
    parser.add_argument('--out', required=True, help='file to write, .safetensors or .pth as the ingredients')
    parser.add_argument('--heldout', metavar='ANN_FILE', help='the same as --cfg-options heldout.ann_file=ANN_FILE')
    parser.add_argument('--metric', help='score, higher is better (default: the first of the usual ones)')
    parser.add_argument('--strict', action='store_true', help='greedy: accept only what raises the score')
    parser.add_argument('--insist', action='store_true', help='mix files of other starts, held-out images or classes')
    parser.add_argument(
        '--lora',
        choices=['factors', 'delta'],
        default='factors',
        help='uniform, greedy, last: average the factors of LoRA one by one, or their products at a higher rank',
    )
    parser.add_argument(
        '--by', choices=['block', 'tensor', 'global'], default='block', help='learned: what has a weight'
    )
    parser.add_argument('--epochs', type=int, default=5, help='learned: passes over the held-out images (default: 5)')
    parser.add_argument(
        '--temperature',
        action='store_true',
        help='learned, segmentors: learn what logits are multiplied by, too; it is not in the soup',
    )
    parser.add_argument(
        '--images', type=int, default=256, help='learned, and statistics of BatchNorm: how many images (default: 256)'
    )
    parser.add_argument('--count', type=int, default=5, help='last: how many checkpoints (default: 5)')
    parser.add_argument(
        '--test-split-i-know', action='store_true', help='choose by scores on the test data, which then tell little'
    )
    parser.add_argument(
        '--cfg-options', nargs='+', action=KeyValues, metavar='KEY=VALUE', help='override keys of the config'
    )


@one_line_errors()
def run(args: argparse.Namespace) -> None:
    options = Options(
        metric=args.metric,
        strict=args.strict,
        insist=args.insist,
        on_test=args.test_split_i_know,
        by=args.by,
        epochs=args.epochs,
        images=args.images,
        count=args.count,
        lora=args.lora,
        temperature=args.temperature,
    )
    keys = dict(args.cfg_options or {}) | ({'heldout.ann_file': args.heldout} if args.heldout else {})
    cooked = make_soup(args.recipe, args.config, args.files, args.out, options, cfg_options=keys)
    print(f'{cooked}: {", ".join(map(str, cooked.files))}')
