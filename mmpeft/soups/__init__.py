"""Soups: the weights of several runs from one start, mixed into one model."""

from mmpeft.soups.batchnorm import recompute_batchnorm
from mmpeft.soups.ingredients import SoupError
from mmpeft.soups.learned import LearnedSoup, learned_soup
from mmpeft.soups.recipes import Soup, Step, greedy_soup, uniform_soup
from mmpeft.soups.writing import write_soup

__all__ = [
    'LearnedSoup',
    'Soup',
    'SoupError',
    'Step',
    'greedy_soup',
    'learned_soup',
    'recompute_batchnorm',
    'uniform_soup',
    'write_soup',
]
