"""The program `penstock` as a user meets it: help, errors, exit codes."""

from __future__ import annotations

import http.server
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from penstock_cli.main import app
from typer.core import TyperGroup
from typer.main import get_command
from typer.testing import CliRunner

from tests.support.disks import disk

from .test_table import backend, state

PROGRAM = get_command(app)
assert isinstance(PROGRAM, TyperGroup)
COMMANDS = PROGRAM.commands


def penstock(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "penstock_cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_option_of_every_command_is_explained(command: str) -> None:
    for parameter in COMMANDS[command].params:
        assert getattr(parameter, "help", None), f"{command}: {parameter.name} has no help"
    result = CliRunner().invoke(app, [command, "--help"])
    assert result.exit_code == 0


def test_starting_the_program_imports_no_role() -> None:
    roles = "{'kopf', 'numpy', 'httpx', 'pyroute2'}"
    script = f"import sys, penstock_cli.main; print([m for m in sys.modules if m.split('.')[0] in {roles}])"
    assert subprocess.check_output([sys.executable, "-c", script], text=True).strip() == "[]"


def test_a_data_plane_forwards_before_it_imports_what_changes_the_node() -> None:
    script = "import sys, penstock_embedded.main; print('pyroute2' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", script], text=True).strip() == "False"


def test_reading_files_parses_no_source_of_ours_and_renders_no_schema(tmp_path: Path) -> None:
    """`penstock run` reads files before it forwards."""
    (tmp_path / "dataplane.yaml").write_text(
        "apiVersion: penstock.dev/v1alpha1\nkind: DataPlane\nmetadata: {name: edge}\nspec: {flowTableSize: 4096}\n"
    )
    script = (
        "import linecache, sys; from pathlib import Path; from penstock_api.files import read_files;"
        "found = read_files(Path(sys.argv[1])); assert found.objects;"
        "print([each for each in linecache.cache if 'penstock_api' in each])"
    )
    assert subprocess.check_output([sys.executable, "-c", script, str(tmp_path)], text=True).strip() == "[]"


def test_every_program_raises_its_limit_of_open_files(tmp_path: Path) -> None:
    script = (
        "import resource as r, sys; r.setrlimit(r.RLIMIT_NOFILE, (64, 512));"
        "from penstock_cli.main import app; app(['validate', '-f', sys.argv[1]], standalone_mode=False);"
        "print(r.getrlimit(r.RLIMIT_NOFILE))"
    )
    (tmp_path / "empty.yaml").touch()
    command = [sys.executable, "-c", script, str(tmp_path / "empty.yaml")]
    assert subprocess.check_output(command, text=True).endswith("(512, 512)\n")


def test_run_names_the_missing_directory() -> None:
    done = penstock("run", "--files", "/proc/nowhere")
    assert done.returncode == 1
    assert "--files: /proc/nowhere does not exist" in done.stderr


def test_run_names_the_bad_field_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "vip.yaml").write_text(
        "apiVersion: penstock.dev/v1alpha1\nkind: LoadBalancerVIP\nmetadata: {name: web}\n"
        "spec: {ports: [{port: 99999}], backends: {endpoints: [{address: 10.0.0.1}]}}\n"
    )
    done = penstock("run", "--files", str(tmp_path))
    assert done.returncode == 1
    assert "port" in done.stderr
    assert "99999" in done.stderr
    assert "Traceback" not in done.stderr


def test_agent_names_the_missing_setting() -> None:
    done = penstock("agent", "--source", "files")
    assert done.returncode == 1
    assert "files: is required" in done.stderr


def test_probe_of_a_data_plane_that_is_not_there_says_so(tmp_path: Path) -> None:
    done = penstock("dataplane", "--probe", "--run-dir", str(tmp_path))
    assert done.returncode == 1
    assert "control.sock" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", [("dataplane", "--probe"), ("vpp", "prepare", "--check"), ("vpp", "start")])
@pytest.mark.parametrize("value", ["3", "many"])
def test_a_bad_size_of_the_flow_table_names_option_value_and_remedy(command: Sequence[str], value: str) -> None:
    done = penstock(*command, "--flow-table-size", value)
    assert done.returncode == 1
    expected = f"{value} is no size; give --flow-table-size auto or a number of flows from 1024 to 4194304"
    assert done.stderr == f"penstock: flow_table_size: {expected}\n"


@pytest.mark.netns
def test_preflight_looks_for_room_for_the_flow_table(tmp_path: Path) -> None:
    with disk(tmp_path / "shm", "32m") as small:
        arguments = ("dataplane", "--preflight", "--shm-dir", str(small.path))
        assert "shared-memory: " not in penstock(*arguments).stdout  # as many flows as there is room for
        done = penstock(*arguments, "--flow-table-size", "1048576")
        assert f"{small.path} has 32 MiB free; flow table and frames need 256 MiB" in done.stdout
        assert "mount -o remount,size=256m" in done.stdout


@pytest.fixture
def agent_url() -> Iterator[str]:
    """A real HTTP server that answers as an agent does."""
    body = state(backend("10.0.0.1")).model_dump_json().encode()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/state" else 404)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_top_prints_a_line_of_json_per_round(agent_url: str) -> None:
    done = penstock("top", "--url", agent_url, "-o", "json", "--rounds", "2", "--interval", "0.2")
    rounds = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rounds) == 2
    assert rounds[0]["agents"][0]["vips"][0]["backends"][0]["address"] == "10.0.0.1"
    assert rounds[0]["problems"] == []


def test_top_shows_the_table(agent_url: str) -> None:
    done = penstock("top", "--url", agent_url, "--rounds", "1")
    assert done.returncode == 0
    assert "10.0.0.1:8080" in done.stdout


def test_top_prints_plain_lines_without_a_terminal(agent_url: str) -> None:
    done = penstock("top", "--url", agent_url, "--rounds", "1")
    assert max(map(len, done.stdout.splitlines())) > 80  # nothing is wrapped
    assert done.stdout.isascii()
    assert "\x1b" not in done.stdout


@pytest.mark.parametrize("output", ["table", "json"])
@pytest.mark.parametrize("rounds", ["0", "1"])
def test_top_fails_where_no_agent_answers(output: str, rounds: str) -> None:
    done = penstock("top", "--url", "http://127.0.0.1:9", "-o", output, "--rounds", rounds)
    assert done.returncode == 1
    assert "no agent answered: http://127.0.0.1:9: " in done.stderr


def test_top_says_which_agent_gave_no_answer(agent_url: str) -> None:
    done = penstock("top", "--url", agent_url, "--url", "http://127.0.0.1:9", "-o", "json", "--rounds", "1")
    answer = json.loads(done.stdout)
    assert len(answer["agents"]) == 1
    assert "http://127.0.0.1:9" in answer["problems"][0]


def test_validate_says_what_would_be_allocated() -> None:
    done = penstock("validate", "-f", "examples/kubernetes")
    assert done.returncode == 0
    assert "accepted  LoadBalancerVIP default/web  203.0.113.10 by edge" in done.stdout
    assert "4 objects would be accepted" in done.stdout
    assert "--cluster" in done.stdout  # what was not looked at, and how it can be


def test_validate_names_file_field_and_fix(tmp_path: Path) -> None:
    path = tmp_path / "pool.yaml"
    path.write_text(
        "apiVersion: penstock.dev/v1alpha1\nkind: AddressPool\nmetadata: {name: p}\nspec: {addresses: [nonsense]}\n"
    )
    done = penstock("validate", "-f", str(path))
    assert done.returncode == 1
    assert "pool.yaml" in done.stderr
    assert "spec.addresses" in done.stderr


def test_validate_fails_for_what_the_operator_would_refuse(tmp_path: Path) -> None:
    path = tmp_path / "vip.yaml"
    path.write_text(
        "apiVersion: penstock.dev/v1alpha1\nkind: LoadBalancerVIP\nmetadata: {name: web}\n"
        "spec: {ports: [{port: 80}], backends: {service: {name: web}}}\n"
    )
    done = penstock("validate", "-f", str(path))
    assert done.returncode == 1
    assert "DataPlaneNotFound" in done.stdout
    assert "1 of 1 objects would be refused" in done.stderr


def test_validate_takes_files_without_an_option() -> None:
    done = penstock("validate", "examples/kubernetes")
    assert done.returncode == 0
    assert "4 objects would be accepted" in done.stdout


def test_validate_accepts_what_run_serves_and_names_every_bad_object(tmp_path: Path) -> None:
    shutil.copytree("examples/standalone", tmp_path / "files")
    good = penstock("validate", str(tmp_path / "files"))
    assert good.returncode == 0, good.stdout + good.stderr
    assert "penstock run" in " ".join(good.stdout.split())
    (tmp_path / "files/bad.yaml").write_text("a: [")
    (tmp_path / "files/copy.yaml").write_text((tmp_path / "files/dataplane.yaml").read_text())
    bad = penstock("validate", str(tmp_path / "files"))
    assert bad.returncode == 1
    assert "bad.yaml:2: not YAML" in bad.stderr
    assert "dataplane.yaml:" in bad.stderr  # the same objects again
    assert bad.stdout.count("accepted ") == good.stdout.count("accepted ")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "name files or directories"),
        (["/proc/nowhere"], "/proc/nowhere: No such file"),
        (["empty.yaml"], "no object of"),
    ],
)
def test_validate_says_what_it_cannot_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty.yaml").touch()
    done = penstock("validate", *arguments)
    assert done.returncode == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_init_names_the_label_that_is_no_assignment() -> None:
    done = penstock("init", "--selector", "nonsense")
    assert done.returncode == 2
    assert "KEY=VALUE" in done.stderr
