"""Which file a name in a table means: by its path, or by its name alone if only one has it."""

from collections.abc import Iterable
from pathlib import PurePosixPath

from worker.source_files.names import clean_name


class FileIndex:
    """The names of a dataset's files. Tables may leave out folders, suffix and case."""

    def __init__(self, names: Iterable[str]) -> None:
        self.names = set(names)
        self._short: dict[str, str | None] = {}  # None where several files have that short name
        for name in self.names:
            path = PurePosixPath(name)
            for short in {str(path.with_suffix("")), path.name, path.stem}:
                key = short.casefold()
                self._short[key] = name if self._short.get(key, name) == name else None

    def resolve(self, folder: tuple[str, ...], value: str) -> str | None:
        """The file that `value` means in a table in `folder`; None if there is none, or several."""
        own = clean_name(value)
        if not own:
            return None
        inside = str(PurePosixPath(*folder, own))
        for name in (inside, own):
            if name in self.names:
                return name
        for short in (inside, own, PurePosixPath(own).name):
            if found := self._short.get(short.casefold()):
                return found
        return None
