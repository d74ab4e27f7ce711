"""The command line: one line for an error, the right exit code, data and progress apart."""

import json
import os
import socket
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import BytesIO, StringIO, TextIOWrapper
from pathlib import Path

import pytest

import headrace
from headrace.cli import main
from headrace.cli.main import VERBS
from headrace.models import CATALOGUE, DEFAULT_MODEL


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str


def run(*arguments: str, stdin: bytes = b"", **variables: str) -> Ran:
    """The command in this process, which is much faster; its environment, input and output are its own."""
    out, err = StringIO(), StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "stdin", TextIOWrapper(BytesIO(stdin), "utf-8"))
        for name in [name for name in os.environ if name.startswith("HEADRACE_")]:
            patch.delenv(name)
        for name, value in variables.items():
            patch.setenv(name, value)
        try:
            code: object = main.run(list(arguments))
        except SystemExit as ended:  # shell completion leaves like this
            code = ended.code or 0
    assert isinstance(code, int)
    return Ran(code, out.getvalue(), err.getvalue())


def run_process(*arguments: str) -> Ran:
    """The command as a shell would run it."""
    command = [sys.executable, "-m", "headrace.cli.main", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return Ran(done.returncode, done.stdout, done.stderr)


def assert_one_line(ran: Ran, *words: str) -> None:
    assert ran.code == 1
    assert ran.out == ""
    assert ran.err.startswith("headrace: ")
    assert ran.err.count("\n") == 1
    for word in words:
        assert word in ran.err


def test_version() -> None:
    assert run_process("--version") == Ran(0, f"headrace {headrace.__version__}\n", "")


def test_an_error_is_one_line_and_an_exit_code() -> None:
    assert_one_line(run_process("events", "job_1"), "job_1")


@pytest.mark.parametrize(
    "arguments",
    [("dance",), ("submit",), ("submit", "hi", "--class", "urgent"), ("up", "--bogus"), ("events", "--bogus")],
)
def test_wrong_usage(arguments: tuple[str, ...]) -> None:
    ran = run(*arguments)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err


def test_help_lists_the_verbs() -> None:
    shown = run("--help").out
    for verb in VERBS:
        assert f"  {verb} " in shown


def test_a_misspelt_verb_is_recognized() -> None:
    ran = run("evnets")
    assert (ran.code, ran.out) == (2, "")
    assert "'events'" in ran.err


@pytest.mark.parametrize(
    ("words", "expected"),
    [("headrace ev", ["events"]), ("headrace models p", ["pull", "path"]), ("headrace jobs --state f", ["failed"])],
)
def test_bash_completes(words: str, expected: list[str]) -> None:
    ran = run(COMP_WORDS=words, COMP_CWORD=str(words.count(" ")), _HEADRACE_COMPLETE="complete_bash")
    assert ran.out.split() == expected


def test_models_are_completed_without_a_gateway() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
    ran = run(
        HEADRACE_URL=url,
        COMP_WORDS=f"headrace submit hi --model {DEFAULT_MODEL[:3]}",
        COMP_CWORD="4",
        _HEADRACE_COMPLETE="complete_bash",
    )
    assert DEFAULT_MODEL in ran.out.split()


def test_the_completion_script_is_bash() -> None:
    script = run(_HEADRACE_COMPLETE="source_bash").out
    done = subprocess.run(["bash", "-n"], input=script.encode(), capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert "complete -o default -F" in script


def test_a_verb_costs_no_other_verbs_imports() -> None:
    source = "import sys; from headrace.cli.main import run; run(['events', '--help']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=60, check=True)
    loaded = set(done.stdout.splitlines()[-1].split())
    assert not loaded & {"redis", "torch", "yaml", "rich.progress", "headrace.cli.up"}


@pytest.mark.parametrize("verb", ["pull", "path", "verify"])
def test_an_unknown_model(verb: str, tmp_path: Path) -> None:
    assert_one_line(run("models", verb, "gpt-7", HEADRACE_PATHS__MODELS_DIR=str(tmp_path)), "gpt-7", DEFAULT_MODEL)


def test_a_model_that_is_not_here(tmp_path: Path) -> None:
    ran = run("models", "path", HEADRACE_PATHS__MODELS_DIR=str(tmp_path))
    assert_one_line(ran, f"headrace models pull {DEFAULT_MODEL}")


def test_models_as_json(tmp_path: Path) -> None:
    ran = run("models", "list", "--json", HEADRACE_PATHS__MODELS_DIR=str(tmp_path))
    rows = json.loads(ran.out)
    assert [(row["id"], row["pulled"]) for row in rows] == [(name, False) for name in CATALOGUE]
    assert ran.err == ""


def test_a_path_on_standard_output(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(b"GGUF")
    assert run("models", "path", f"file:{path}") == Ran(0, f"{path}\n", "")


def test_a_misspelt_setting(tmp_path: Path) -> None:
    assert_one_line(run("models", "list", HEADRACE_PATHS__MODEL_DIR=str(tmp_path)), "model_dir", "models_dir")


def test_a_traceback_only_when_asked() -> None:
    assert "Traceback" in run("-v", "models", "path", "gpt-7").err
    assert "Traceback" not in run("models", "path", "gpt-7").err


def test_no_gateway() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    began = time.monotonic()
    ran = run("cancel", "job_01hzzzzzzzzzzzzzzzzzzzzzzz", HEADRACE_URL=f"http://127.0.0.1:{port}")
    assert_one_line(ran, "headrace up", str(port), "refused")
    assert time.monotonic() - began < 5  # one second of trying, and a slow machine


def test_what_is_no_job_id() -> None:
    assert_one_line(run("events", "job_1"), "job_1")


def test_standard_input_that_is_not_utf8() -> None:
    assert_one_line(run("submit", "-", "--url", "http://127.0.0.1:1", stdin=b"caf\xe9"), "UTF-8", "byte 3")


def test_servers_need_a_redis() -> None:
    for verb in ("gateway", "worker"):
        assert_one_line(run(verb), "--redis-url", "headrace up")


def test_a_port_in_use(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        ran = run("up", "--model", "fake:", "--port", port, "--data-dir", str(tmp_path / "data"))
    assert_one_line(ran, port, "--port auto")


def test_a_port_that_is_none() -> None:
    assert_one_line(run("up", "--port", "http"), "http", "auto")


def test_a_data_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file where a folder should be")
    ran = run("up", "--model", "fake:", "--port", "auto", "--data-dir", str(tmp_path / "data"))
    assert_one_line(ran, "--data-dir")


def test_a_redis_that_is_not_there(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        url = f"redis://127.0.0.1:{closed.getsockname()[1]}/0"
    ran = run("up", "--model", "fake:", "--port", "auto", "--data-dir", str(tmp_path / "data"), "--redis-url", url)
    assert_one_line(ran, "Redis cannot be reached")


def test_a_pipe_that_was_closed_is_no_error(tmp_path: Path) -> None:
    command = f"{sys.executable} -m headrace.cli.main models list | true"
    done = subprocess.run(["bash", "-c", command], capture_output=True, timeout=60, check=False)
    assert done.stderr == b""
