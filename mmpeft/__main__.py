"""``python -m mmpeft`` is the command ``mmpeft``."""

from mmpeft.commands.dispatch import main

if __name__ == '__main__':
    main()
