"""``whyrec schemas``: the event schemas at the registry."""

from __future__ import annotations

import typer

from stream.settings import Settings

app = typer.Typer()

RegistryUrl = typer.Option(None, "--registry", help="Registry, by default WHYREC_SCHEMA_REGISTRY_URL.", metavar="URL")


@app.command()
def register(registry: str | None = RegistryUrl) -> None:
    """Register the newest version of each event schema, and require compatibility from then on.

    The registry then refuses a schema that older readers could not read or that could not read older events
    (FULL_TRANSITIVE), also if its own default is weaker.

    Example: whyrec schemas register --registry http://127.0.0.1:8081
    """
    from rich.console import Console
    from rich.table import Table

    from schemas.registry import subject
    from schemas.versions import VERSIONS, schema, schema_fingerprint
    from stream.connections import require_registry
    from stream.kafka.topics import TOPICS

    settings = Settings()
    client = require_registry(settings, registry)
    table = Table("subject", "schema", "id", "fingerprint", title=f"Registered at {client.url}")
    for role, topic in TOPICS.items():
        # The values of dead letters are the original bytes of another topic; those of the control topic are JSON.
        if role == "dead_letters" or topic.event is None:
            continue
        name = settings.topic(role)
        number = client.id_of(name, schema(topic.event))
        client.require_compatibility(name)
        table.add_row(
            subject(name), f"{topic.event}.v{VERSIONS[topic.event][-1]}", str(number), schema_fingerprint(topic.event)
        )
    Console().print(table)


@app.command()
def check(registry: str | None = RegistryUrl) -> None:
    """Check that our schemas can be registered without breaking a reader; exit 1 if not.

    Example: whyrec schemas check --registry http://127.0.0.1:8081
    """
    from rich.console import Console
    from rich.table import Table

    from schemas.registry import subject
    from schemas.versions import VERSIONS, schema
    from stream.connections import require_registry
    from stream.kafka.topics import TOPICS

    settings = Settings()
    client = require_registry(settings, registry)
    table = Table("subject", "schema", "rule", "compatible", title=f"Compatibility at {client.url}")
    refused = 0
    rules: set[str] = set()
    for role, topic in TOPICS.items():
        if role == "dead_letters" or topic.event is None:
            continue
        rule = client.compatibility(settings.topic(role))
        rules.add(rule)
        compatible = client.is_compatible(settings.topic(role), schema(topic.event))
        refused += not compatible
        table.add_row(
            subject(settings.topic(role)),
            f"{topic.event}.v{VERSIONS[topic.event][-1]}",
            rule,
            "yes" if compatible else "[red]no[/]",
        )
    Console().print(table)
    if "NONE" in rules:
        Console(stderr=True).print(
            "Under the rule NONE any schema passes. `whyrec schemas register` sets a stricter rule for our subjects."
        )
    if refused:
        raise typer.Exit(1)
