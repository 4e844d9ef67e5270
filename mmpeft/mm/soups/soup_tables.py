"""How a soup came about, as a table."""

from collections.abc import Sequence

from mmpeft.mm.soups.souping import Cooked


def recipe_table(cooked: Cooked) -> str:
    """Each candidate in the order in which it was tried, and what the soup took of it, in Markdown."""
    steps, shares = cooked.soup.steps, cooked.soup.shares
    rows = [(s.path, f'{s.score:.4f}', f'{s.soup_score:.4f}', 'yes' if s.accepted else 'no') for s in steps]
    text = table(('candidate', cooked.metric, 'soup with it', 'in the soup'), rows)
    best = max(step.score for step in steps)
    text += f'\n{cooked}; best single: {best:.4f}\n'
    if cooked.soup.inverse_temperature != 1:
        text += f'Its logits were multiplied by {cooked.soup.inverse_temperature:.4f} in the learning alone.\n'
    if shares:
        names = [step.path for step in steps]
        text += '\n' + table(('share of', *names), [(g, *(f'{x:.3f}' for x in shares[g])) for g in shares])
    return text


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown."""
    lines = [head, ['---'] * len(head), *rows]
    return ''.join(f'| {" | ".join(line)} |\n' for line in lines)
