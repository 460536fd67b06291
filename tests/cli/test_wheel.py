"""The built wheel holds the configuration and the launcher, and works from any folder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_ROOT = Path(__file__).parents[2]


def test_the_wheel_works_from_the_root_folder(tmp_path: Path, environment: dict[str, str]) -> None:
    pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check"]
    source = tmp_path / "source"
    names = ("pyproject.toml", "conf", "disback_cli", "hydra_plugins")
    source.mkdir()
    for name in ("README.md", "LICENSE"):  # the build wants them to exist, the test does not read them
        (source / name).touch()
    # a copy: building in place would leave build/ in the repository
    subprocess.run(["cp", "-a", *(str(_ROOT / name) for name in names), str(source)], check=True)
    wheels = tmp_path / "wheels"
    subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", wheels, source], check=True)
    target = tmp_path / "installed"
    subprocess.run([*pip, "install", "--no-deps", "--target", target, *wheels.glob("*.whl")], check=True)

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        # -P: not the current folder; the wheel comes before the repository's editable install
        command = [sys.executable, "-P", "-m", "disback_cli", *words]
        return subprocess.run(
            command, cwd="/", env=environment | {"PYTHONPATH": str(target)}, capture_output=True, text=True
        )

    help_text = run("record", "--help")
    assert help_text.returncode == 0, help_text.stderr
    assert "option groups" in help_text.stdout
    config = run("backtrack", "--cfg", "hydra", "hydra/launcher=process")
    assert f"{target}/hydra_plugins" in run_location(target, environment)
    assert "hydra_plugins.disback_launcher.ProcessLauncher" in config.stdout, config.stderr
    installed = {path.relative_to(target / "disback_cli") for path in (target / "disback_cli").rglob("*.yaml")}
    assert installed == {path.relative_to(_ROOT) for path in (_ROOT / "conf").rglob("*.yaml")}


def run_location(target: Path, environment: dict[str, str]) -> str:
    """Where the launcher is imported from."""
    program = "import hydra_plugins.disback_launcher as launcher; print(launcher.__file__)"
    env = environment | {"PYTHONPATH": str(target)}
    return subprocess.check_output([sys.executable, "-P", "-c", program], cwd="/", env=env, text=True)
