"""The error that tells a user what to change."""


class UserError(ValueError):
    """Something the user gave cannot be used. The message alone says what, and what to do."""
