"""How a soup came about, as a table."""

from mmpeft.mm.reports.tables import markdown_table
from mmpeft.mm.soups.cooked import Cooked


def recipe_table(cooked: Cooked) -> str:
    """Each candidate in the order in which it was tried, and what the soup took of it, in Markdown."""
    steps, shares = cooked.soup.steps, cooked.soup.shares
    rows = [(s.path, f'{s.score:.4f}', f'{s.soup_score:.4f}', 'yes' if s.accepted else 'no') for s in steps]
    text = markdown_table(('candidate', cooked.metric, 'soup with it', 'in the soup'), rows)
    best = max(step.score for step in steps)
    text += f'\n\n{cooked}; best single: {best:.4f}\n'
    if cooked.soup.inverse_temperature != 1:
        text += f'Its logits were multiplied by {cooked.soup.inverse_temperature:.4f} in the learning alone.\n'
    if shares:
        names = [step.path for step in steps]
        rows = [(group, *(f'{share:.3f}' for share in shares[group])) for group in shares]
        text += f'\n{markdown_table(("share of", *names), rows)}\n'
    return text
