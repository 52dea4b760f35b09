"""The embedded stack on a copy of the bundle, whose model files a test or a benchmark changes."""

from __future__ import annotations

from pathlib import Path

from include.demo import stack as demo
from include.retraining.settings import Settings
from tests.containers.stack import copy_like_the_dockerfile


class CopiedStack(demo.Stack):
    """The embedded stack on a copy of the bundle, which is made.

    Parameters
    ----------
    settings : Settings
        The plugins are those of the copy.
    root : Path
        Where the copy is made.
    """

    def __init__(self, settings: Settings, root: Path) -> None:
        self.root = root
        copy_like_the_dockerfile(root)
        super().__init__(settings.model_copy(update={"plugins": root / "plugins"}))

    @property
    def environment(self) -> dict[str, str]:
        """That of the embedded stack, with the copy in place of the repository."""
        found = super().environment
        return {
            name: value.replace(str(demo.REPOSITORY), str(self.root)) if name != "PATH" else value
            for name, value in found.items()
        }
