"""What was found in a part of a data set: counts, problems, and notes that nothing comes to harm by."""

from collections import Counter, defaultdict
from dataclasses import dataclass, field

from mmpeft.data.kinds import NOTES

SHOWN = 5  # examples of each kind


@dataclass
class PartReport:
    """What a part holds, and the problems in it by kind."""

    name: str
    images: int = 0
    objects: Counter = field(default_factory=Counter)
    left_out: Counter = field(default_factory=Counter)
    problems: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    names: tuple[str, ...] = ()

    @property
    def trained(self) -> int:
        """The objects that training does not leave out."""
        return self.objects.total() - self.left_out.total()

    @property
    def count(self) -> int:
        """How many problems there are, notes apart."""
        return sum(len(where) for kind, where in self.problems.items() if kind not in NOTES)

    def lines(self) -> list[str]:
        """A line for each kind of problem, and then one for each kind of note."""
        found = []
        for kind, where in sorted(self.problems.items(), key=lambda item: item[0] in NOTES):
            more = f', and {len(where) - SHOWN} more' if len(where) > SHOWN else ''
            mark = 'note' if kind in NOTES else 'PROBLEM'
            found.append(f'{mark}: {len(where)} {kind}: {", ".join(where[:SHOWN])}{more}')
        return found

    def __str__(self) -> str:
        """The counts in a line, then what was found."""
        seen = sum(1 for count in self.objects.values() if count)
        head = f'{self.name}: {self.images} images, {self.objects.total()} objects of {seen} classes'
        if self.left_out:
            reasons = ', '.join(f'{count} {reason}' for reason, count in self.left_out.most_common())
            head += f', {self.trained} of them trained on (without {reasons})'
        return '\n'.join([head, *(f'  {line}' for line in self.lines())])
