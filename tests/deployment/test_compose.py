"""docker-compose.yml and .env.example: valid in every profile, and true to the settings and to each other."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from celery.bin.worker import worker

from gateway.server import GRACE_S
from headrace.settings import Settings, load
from tests.deployment.compose import EXAMPLE, FILE, PROFILES, config, examples
from tests.deployment.dockerfile import ROOT, stages
from workers.inference.drain import ENGINE_S, THREAD_S

DEFAULT = {"redis", "models", "gateway", "worker", "tasks"}
BESIDES = {
    "gpu": {"worker-gpu"},
    "sqs": {"aws", "bucket"},
    "rabbitmq": {"rabbitmq"},
    "ledger": {"feeder"},
    "observability": {"prometheus", "grafana", "jaeger", "flower"},
}
OFFICIAL_USERS = {"redis", "rabbitmq", "prom/prometheus", "grafana/grafana", "jaegertracing/jaeger"}
"""Images that give up root by themselves, by a USER of theirs or, Redis and RabbitMQ, in their entrypoint."""


def settings_of(service: Mapping[str, Any]) -> Settings:
    """What the settings of a container come to: what Compose gives and what its image sets."""
    image = image_variables(service)
    given = {name: value for name, value in (service.get("environment") or {}).items() if value is not None}
    return load(environ={**image, **given}, dotenv=Path("no.env"))


def image_variables(service: Mapping[str, Any]) -> dict[str, str]:
    if "build" not in service:
        return {}
    build = service["build"]
    found = stages(ROOT / build["dockerfile"])
    return found[build.get("target") or list(found)[-1]].variables()


@pytest.mark.parametrize("profile", [None, *PROFILES])
def test_each_profile_is_valid_and_adds_its_services(tmp_path: Path, profile: str | None) -> None:
    resolved = config(tmp_path, *([profile] if profile else []))
    assert set(resolved["services"]) == DEFAULT | (BESIDES[profile] if profile else set())


def test_the_example_as_it_stands_and_with_every_line_taken_is_valid(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="yesterday"):
        config(tmp_path, variables={"WORKER_STOP_GRACE": "yesterday"})
    services = config(tmp_path, *PROFILES, variables=examples())["services"]
    assert len(services) == len(DEFAULT) + sum(map(len, BESIDES.values()))
    settings = settings_of(services["worker"])
    assert (settings.engine.max_context, settings.blobs.url) == (4096, "s3://headrace")
    for service in services.values():
        settings_of(service)


def test_every_container_gets_settings_that_exist(everything: Mapping[str, Any]) -> None:
    for name in ("gateway", "worker", "tasks", "worker-gpu"):
        assert settings_of(everything[name]).redis.url == "redis://redis:6379/0", name
    assert settings_of(everything["gateway"]).gateway.port == everything["gateway"]["ports"][0]["target"]
    assert settings_of(everything["gateway"]).gateway.host == "0.0.0.0"
    assert settings_of(everything["worker-gpu"]).engine.device == "cuda"
    assert everything["models"]["command"] == [Settings().worker.model]


def test_blobs_and_models_lie_on_volumes_that_all_who_need_them_share(everything: Mapping[str, Any]) -> None:
    for name in ("gateway", "worker", "tasks", "worker-gpu"):
        mounted = {volume["target"]: volume["source"] for volume in everything[name]["volumes"]}
        assert mounted[str(settings_of(everything[name]).paths.data_dir)] == "data", name
    for name in ("models", "worker", "worker-gpu"):
        mounted = {volume["target"]: volume["source"] for volume in everything[name]["volumes"]}
        assert mounted[str(settings_of(everything[name]).paths.models_dir)] == "models", name


def test_a_stop_leaves_time_to_drain(everything: Mapping[str, Any]) -> None:
    drain_s = Settings().worker.drain_s
    assert drain_s > ENGINE_S + 2 * THREAD_S
    for name in ("worker", "worker-gpu"):
        assert seconds(everything[name]["stop_grace_period"]) >= drain_s + 5, name
    assert seconds(everything["gateway"]["stop_grace_period"]) >= 2 * GRACE_S
    shown = examples()
    assert seconds(shown["WORKER_STOP_GRACE"]) >= float(shown["HEADRACE_WORKER__DRAIN_S"]) + 5


def test_an_engine_has_fewer_threads_than_its_worker_has_cores(everything: Mapping[str, Any]) -> None:
    threads = settings_of(everything["worker"]).engine.threads
    assert threads is not None
    assert threads < everything["worker"]["deploy"]["resources"]["limits"]["cpus"]


def test_the_task_role_has_options_that_celery_knows_and_is_asked_by_its_name(everything: Mapping[str, Any]) -> None:
    service = everything["tasks"]
    assert service["entrypoint"] == ["celery", "-q", "-A", "workers.celery_app", "worker"]
    given, rest, _ = worker.make_parser(click.Context(worker)).parse_args(list(service["command"]))
    assert not rest
    assert given["queues"] == "documents,batches,maintenance"
    assert given["beat"] is True
    node = given["hostname"].replace("%h", "$$(hostname)")
    assert service["healthcheck"]["test"] == ["CMD-SHELL", f"celery -A workers.celery_app inspect ping -d {node}"]
    assert "replicas" not in service.get("deploy", {}), "two clocks ring twice"


def test_redis_keeps_what_was_accepted(everything: Mapping[str, Any]) -> None:
    command = everything["redis"]["command"]
    options = dict(zip(command[1::2], command[2::2], strict=True))
    assert options["--appendonly"] == "yes"
    assert options["--appendfsync"] == "always"
    assert options["--maxmemory-policy"] == "noeviction"
    assert {volume["target"] for volume in everything["redis"]["volumes"]} == {"/data"}
    assert "ports" not in everything["redis"]


def test_every_service_is_bounded_and_watched(everything: Mapping[str, Any]) -> None:
    for name, service in everything.items():
        image, _, tag = service["image"].partition(":")
        assert tag not in ("", "latest"), name
        assert service["init"] is True, name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["logging"]["options"] == {"max-file": "3", "max-size": "10m"}, name
        assert "build" in service or "user" in service or image in OFFICIAL_USERS, name
        if service["restart"] == "no":  # runs once
            assert any(name in other.get("depends_on", {}) for other in everything.values()) or name == "bucket"
            continue
        assert service["restart"] == "unless-stopped", name
        assert "healthcheck" in service or built_with(service, "HEALTHCHECK"), name


def built_with(service: Mapping[str, Any], instruction: str) -> bool:
    build = service["build"]
    found = stages(ROOT / build["dockerfile"])
    return bool(found[build.get("target") or list(found)[-1]].all(instruction))


def test_what_runs_from_our_images_can_write_to_volumes_and_tmp_alone(everything: Mapping[str, Any]) -> None:
    ours = {name: service for name, service in everything.items() if "build" in service}
    assert set(ours) == {"gateway", "worker", "worker-gpu", "tasks", "models", "bucket", "feeder", "flower"}
    for name, service in ours.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert [entry.partition(":")[0] for entry in service["tmpfs"]] == ["/tmp"], name


def test_every_port_is_open_to_this_machine_alone(everything: Mapping[str, Any]) -> None:
    published = [port for service in everything.values() for port in service.get("ports", ())]
    assert len(published) == 5
    assert {port["host_ip"] for port in published} == {"127.0.0.1"}


def test_the_example_tells_of_every_variable_and_of_no_other() -> None:
    text = FILE.read_text()
    named = set(re.findall(r"\$\{([A-Z][A-Z0-9_]*)", text))
    passed = set(re.findall(r"^ +([A-Z][A-Z0-9_]*):$", text, flags=re.MULTILINE))
    assert passed
    assert set(examples()) - {"COMPOSE_PROFILES"} == named | passed
    anchors = [key for key in yaml.safe_load(text) if key.startswith("x-")]
    assert all(f"&{key.removeprefix('x-')}" in text for key in anchors)


def test_headrace_up_takes_the_example_too(tmp_path: Path) -> None:
    """A `.env` in the folder is also read by every command that is started there."""
    dotenv = tmp_path / ".env"
    dotenv.write_text(EXAMPLE.read_text())
    assert load(environ={}, dotenv=dotenv) == load(environ={}, dotenv=tmp_path / "none")
    dotenv.write_text("".join(f"{name}={value}\n" for name, value in examples().items()))
    defaults = Settings()
    taken = load(environ={}, dotenv=dotenv)
    said = {
        "engine": {"kv_budget_mb", "max_context", "threads"},
        "blobs": {"url", "endpoint_url"},
        "ledger": {"url", "endpoint_url", "create"},
        "telemetry": {"otlp_endpoint"},
    }
    for section in type(taken).model_fields:
        theirs, ours = getattr(taken, section).model_dump(), getattr(defaults, section).model_dump()
        assert {name for name in theirs if theirs[name] != ours[name]} == said.get(section, set()), section


def seconds(text: str) -> float:
    minutes, rest = re.fullmatch(r"(?:(\d+)m)?(?:(\d+)s)?", text).groups()  # type: ignore[union-attr]
    return 60.0 * int(minutes or 0) + int(rest or 0)
