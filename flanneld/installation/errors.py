"""What keeps an installation from being done."""


class InstallError(Exception):
    """What failed has changed nothing, or was taken back; ``str`` says why, and what to do."""
