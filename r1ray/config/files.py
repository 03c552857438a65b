"""Where the YAML files of conf/ are."""

from pathlib import Path

import r1ray


def conf_dir() -> Path:
    """Where conf/ is: inside the package once installed, next to it in the repository."""
    package = Path(r1ray.__file__).parent
    return package / "conf" if (package / "conf").is_dir() else package.parent / "conf"


def groups_in(folder: Path) -> set[str]:
    """The config groups from which a user selects. A folder without YAML files is left out: conf/config.yaml selects from its
    subfolders.
    """
    return {entry.name for entry in folder.iterdir() if entry.is_dir() and any(entry.glob("*.yaml"))}
