"""Settings: the order of the sources, and errors that name the key. Knows no process."""

from pathlib import Path

import pytest

from headrace import settings
from headrace.contract.errors import SetupError


def test_flags_stand_above_environment_above_dotenv_above_yaml(tmp_path: Path) -> None:
    config, dotenv = tmp_path / "fleet.yaml", tmp_path / ".env"
    config.write_text("gateway: {port: 1, host: yaml, ping_s: 1}\nlog: {level: error}\n")
    dotenv.write_text("HEADRACE_GATEWAY__PORT=2\nHEADRACE_GATEWAY__HOST=dotenv\nSOMETHING_ELSE=1\n")
    environ = {"HEADRACE_GATEWAY__PORT": "3", "PATH": "/bin", "HEADRACE_URL": "http://x", "HEADRACE_API_KEY": "k"}
    tree = settings.load({"gateway": {"port": 4, "host": None}}, config, environ=environ, dotenv=dotenv)
    assert (tree.gateway.port, tree.gateway.host, tree.gateway.ping_s, tree.log.level) == (4, "dotenv", 1.0, "error")
    assert settings.load(None, config, environ=environ, dotenv=dotenv).gateway.port == 3


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"HEADRACE_GATEWAY__PROT": "1"}, "gateway.prot (environment)"),
        ({"HEADRACE_GATEWYA__PORT": "1"}, "gatewya"),
        ({"HEADRACE_PORT": "1"}, "HEADRACE_PORT"),
        ({"HEADRACE_GATEWAY__PORT": "many"}, "gateway.port (environment)"),
        ({"HEADRACE_GATEWAY__PORT": "70000"}, "65535"),
        ({"HEADRACE_LOG__LEVEL": "loud"}, "log.level"),
    ],
)
def test_a_wrong_setting_is_named(environ: dict[str, str], said: str, tmp_path: Path) -> None:
    with pytest.raises(SetupError) as caught:
        settings.load(environ=environ, dotenv=tmp_path / "none")
    assert said in caught.value.explain()


def test_yaml_that_cannot_be_read_is_a_setup_error(tmp_path: Path) -> None:
    for text in ("gateway: [", "- 1", "gateway: 3"):
        path = tmp_path / "bad.yaml"
        path.write_text(text)
        with pytest.raises(SetupError):
            settings.load(config=path, environ={}, dotenv=tmp_path / "none")
    with pytest.raises(SetupError):
        settings.load(config=tmp_path / "missing.yaml", environ={}, dotenv=tmp_path / "none")


def test_a_child_sees_the_same_tree(tmp_path: Path) -> None:
    tree = settings.load({"worker": {"model": "file:/m.gguf"}, "engine": {"threads": 1}}, environ={}, dotenv=tmp_path)
    assert settings.load(environ=settings.as_variables(tree), dotenv=tmp_path) == tree


def test_a_reaper_ticks_well_within_a_lease(tmp_path: Path) -> None:
    with pytest.raises(SetupError) as caught:
        settings.load({"queue": {"lease_ms": 1500, "renew_ms": 300}}, environ={}, dotenv=tmp_path)
    assert "reap_ms must be less than half of lease_ms" in caught.value.explain()
