"""Soups: the weights of several runs from one start, mixed into one model."""

from mmpeft.soups.batchnorm import recompute_batchnorm
from mmpeft.soups.ingredients import SoupError
from mmpeft.soups.recipes import Soup, Step, greedy_soup, uniform_soup
from mmpeft.soups.writing import write_soup

__all__ = ['Soup', 'SoupError', 'Step', 'greedy_soup', 'recompute_batchnorm', 'uniform_soup', 'write_soup']
