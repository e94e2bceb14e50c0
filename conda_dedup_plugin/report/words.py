"""Words that one line needs, too: without what draws tables."""


def files(count: int) -> str:
    """Write "1 file" or "1,204 files"."""
    return f"{count:,} file" if count == 1 else f"{count:,} files"
