"""The parts of deploy/Dockerfile, which no test can build; `test_start_path` installs what the image would."""

from __future__ import annotations

import re

import pytest

from stream.settings import Settings
from tests.deploy.dockerfile import ROOT, Stage, reaches_the_builder, stages

BUILD_TOOLS = re.compile(
    r"\b(gcc|g\+\+|cc|make|cmake|build-essential|cargo|rustc|go|pip|uv|git|\S+-dev|setuptools|wheel)\b"
)


@pytest.fixture(scope="module")
def build() -> Stage:
    return stages()[0]


@pytest.fixture(scope="module")
def final() -> Stage:
    return stages()[-1]


def test_there_is_a_stage_to_build_in_and_one_to_ship(build: Stage, final: Stage) -> None:
    assert len(stages()) == 2
    assert build.name == "build"
    assert final.name is None


def test_both_stages_use_the_same_pinned_python(build: Stage, final: Stage) -> None:
    assert build.base == final.base  # an environment only works with the interpreter that made it
    assert re.fullmatch(r"python:3\.1[1-9]\.\d+-slim-[a-z]+", final.base)


def test_what_is_copied_exists_and_reaches_the_builder() -> None:
    copied = [path for stage in stages() for path in stage.copied]
    assert {"pyproject.toml", "constraints.txt", "schemas", "models", "stream"} <= set(copied)
    for path in copied:
        assert (ROOT / path).exists(), path
        assert reaches_the_builder(path), path


def test_nothing_else_reaches_the_builder() -> None:
    copied = {path.removeprefix("./") for stage in stages() for path in stage.copied}
    for name in (".venv", ".git", "tests", "bench", "Makefile", "models/__pycache__", "docker-compose.yml", "demo"):
        assert not reaches_the_builder(name), name
    top = {path.name for path in ROOT.iterdir() if reaches_the_builder(path.name)}
    assert top <= {path.partition("/")[0] for path in copied}


def test_the_shipped_stage_needs_no_build_tool(final: Stage) -> None:
    for instruction in final.all("RUN"):
        assert not BUILD_TOOLS.search(instruction.text), instruction.text
    installs = [run.text for run in final.all("RUN") if "apt-get install" in run.text]
    packages = [
        word
        for text in installs
        for word in text.partition("apt-get install")[2].partition("&&")[0].split()
        if not word.startswith("-")
    ]
    assert packages == ["libgomp1"]


def test_the_shipped_environment_cannot_install_anything(build: Stage, final: Stage) -> None:
    (made,) = [run.text for run in build.all("RUN") if "-m venv" in run.text]
    assert "--without-pip" in made.split()
    taken = [copy.words for copy in final.all("COPY") if copy.words[0].startswith("--from=")]
    assert taken == [["--from=build", made.split()[-1], made.split()[-1]]]


def test_only_wheels_of_the_tested_versions_are_installed(build: Stage) -> None:
    (dependencies,) = [run.text for run in build.all("RUN") if "-r dependencies.txt" in run.text]
    assert "--only-binary :all:" in dependencies
    assert "-c constraints.txt" in dependencies


def test_it_does_not_run_as_root(final: Stage) -> None:
    names = [instruction.name for instruction in final.instructions]
    assert int(final.last("USER").text) > 0
    assert names.index("USER") > max(index for index, name in enumerate(names) if name in {"RUN", "COPY"})


def test_it_starts_whyrec_worker_without_a_shell_in_between(final: Stage) -> None:
    assert final.last("ENTRYPOINT").text.startswith("[")  # SIGTERM must reach the worker itself
    assert [*final.last("ENTRYPOINT").words, *final.last("CMD").words] == ["whyrec", "worker"]


def test_its_variables_are_settings(final: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = {key: value for key, value in final.environment.items() if key.startswith("WHYREC_")}
    assert ours.keys() <= {f"WHYREC_{name.upper()}" for name in Settings.model_fields}
    for key, value in ours.items():
        monkeypatch.setenv(key, value)
    assert Settings().metrics_port == int(final.last("EXPOSE").text)
    assert Settings().metrics_host == "0.0.0.0"  # noqa: S104 - Prometheus comes from outside the container


def test_its_health_check_is_in_it(final: Stage) -> None:
    command = re.search(r"CMD (\[.*\])", final.last("HEALTHCHECK").text)
    assert command is not None
    destination = {copy.words[-1] for copy in final.all("COPY")}
    assert command[1].split('"')[3] in destination


def test_the_build_compiles_the_kernels_where_the_user_finds_them(final: Stage) -> None:
    instructions = final.instructions
    (warm,) = [at for at, each in enumerate(instructions) if "stream.agents.warm_up" in each.text]
    (cache,) = [at for at, each in enumerate(instructions) if "NUMBA_CACHE_DIR" in each.text]
    assert cache < warm
    assert "chown -R whyrec /var/lib/whyrec" in instructions[warm].text
    assert final.environment["NUMBA_CACHE_DIR"].startswith("/var/lib/whyrec/")
