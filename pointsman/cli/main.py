"""`pointsman`: the commands put together, and what their ends look like to the shell."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import Annotated

import typer

from pointsman.cli import entities, events, files, fleet, history, planes, targets, tokens, trace
from pointsman.cli.contexts import DEFAULT_ADDRESS, Target
from pointsman.cli.errors import CliError, Ended, ExitCode
from pointsman.cli.output import Format, Output
from pointsman.cli.session import Session, hoist, output_format

_USAGE_STATUS = 2  # what the command parser exits with; 2 means "differences" here, so it becomes 64

_COMPLETION_VARIABLE = "_POINTSMAN_COMPLETE"  # set by the shell's completion script


def run() -> None:
    """The console script."""
    sys.exit(main(sys.argv[1:]))


def main(arguments: Sequence[str]) -> int:
    """Runs one command line; the exit code. Errors are printed, never raised."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")  # a terminal without UTF-8 shows '?', it does not end the command
    if arguments and arguments[0] in (*planes.MODULES, *planes.DATABASE_COMMANDS):
        # Past the parser of our own arguments, which would keep a `--` to itself.
        planes.become(arguments[0], arguments[1:])
    try:
        build_app(arguments)(args=hoist(arguments), prog_name="pointsman")
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        return int(ExitCode.USAGE) if code == _USAGE_STATUS else code
    except Ended as ended_with:
        return int(ended_with.exit_code)
    except CliError as error:
        _errors_output(arguments).faults(error.exit_code, error.faults)
        return int(error.exit_code)
    except KeyboardInterrupt:
        return int(ExitCode.INTERRUPTED)
    return int(ExitCode.DONE)


def build_app(arguments: Sequence[str], *, whole: bool = False) -> typer.Typer:
    """The commands, with their options if the arguments name them, the shell asks for completions or `whole` is said.

    Reading the signatures of forty commands whose options the help page does not show would be a third of its time. The
    help texts are plain for the same reason: rich ones take longer to import than to read.
    """
    whole = whole or _COMPLETION_VARIABLE in os.environ
    app = typer.Typer(
        help="Run and operate pointsman: an API gateway whose whole fleet changes over at once.",
        epilog="Global options may stand anywhere. Exit codes are listed in docs/cli.md.",
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_global_options)

    passed_on = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
    app.command("control-plane", context_settings=passed_on, add_help_option=False)(planes.control_plane)
    app.command("data-plane", context_settings=passed_on, add_help_option=False)(planes.data_plane)

    for name, text in (
        ("db", "Show or upgrade the schema of the control plane's database."),
        ("backup", "Write the control plane's database to one file."),
        ("restore", "Fill a database from a backup, in a new epoch."),
    ):
        app.command(name, help=text, context_settings=passed_on, add_help_option=False)(planes.databases)

    def command(name: str, function: Callable[..., None], example: str) -> None:
        named = whole or name in arguments
        app.command(name, epilog=f"Example: pointsman {example}")(
            function if named else _described(function.__doc__ or "")
        )

    command("sync", files.sync, "sync -f blue-green.yaml --wait 10")
    command("apply", files.apply, "apply -f to-green.yaml --wait 10")
    command("diff", files.diff, "diff -f blue-green.yaml --non-zero-exit-code")
    command("validate", files.validate, "validate -f blue-green.yaml")
    command("dump", files.dump, "dump -f saved.yaml")
    for kind in entities.KINDS:
        named = whole or kind.name in arguments
        group = entities.commands(kind) if named else typer.Typer()
        if named and kind is entities.UPSTREAM:
            targets.add_upstream_commands(group)
        elif named and kind is entities.TARGET:
            targets.add_target_commands(group)
        app.add_typer(group, name=kind.name, help=f"List and change {kind.collection}.")
    app.add_typer(
        _switch_commands() if whole or "switch" in arguments else typer.Typer(),
        name="switch",
        help="Move services to another upstream, everywhere at one instant.",
        epilog="Example: pointsman switch example-service --to green; `pointsman switch now --help` has its options.",
    )
    _add_side_commands(command, named=whole or not {"preview", "mirror", "top"}.isdisjoint(arguments))
    shown = whole or "rollout" in arguments
    app.add_typer(_rollout_commands() if shown else typer.Typer(), name="rollout", help="Changes at one instant.")
    command("nodes", fleet.nodes, "nodes --watch")
    command("status", fleet.status, "status -o json")
    command("events", events.events, "events --types switch,node")
    command("history", history.history, "history --size 20")
    app.add_typer(
        _group(("show", history.show, "version show 3"), ("diff", history.diff, "version diff 5 3")),
        name="version",
        help="Show a version, or what is different between two.",
    )
    command("rollback", history.rollback, 'rollback 3 --reason "2.7.1 is slow" --wait 10')
    app.add_typer(
        _group(("list", history.audit_list, "audit list"), ("verify", history.audit_verify, "audit verify")),
        name="audit",
        help="Read and verify the audit trail.",
    )
    command("whoami", tokens.whoami, "whoami")
    app.add_typer(
        _group(
            ("create", tokens.create, "token create --name ci --role editor --ttl 90d"),
            ("list", tokens.list_tokens, "token list"),
            ("revoke", tokens.revoke, "token revoke ci"),
        ),
        name="token",
        help="Make, list and revoke tokens for the Admin API.",
    )
    app.add_typer(
        _join_token_commands() if whole or "join-token" in arguments else typer.Typer(),
        name="join-token",
        help="Make, list and revoke tokens that let nodes join.",
    )
    app.add_typer(
        _node_commands() if whole or "node" in arguments else typer.Typer(),
        name="node",
        help="Shut a node out of the fleet, or let it in again; see who was refused.",
    )
    app.add_typer(
        _ca_commands() if whole or "ca" in arguments else typer.Typer(),
        name="ca",
        help="Show or rotate the CA that nodes are known by.",
    )
    app.add_typer(
        _context_commands() if whole or "context" in arguments else typer.Typer(),
        name="context",
        help="Keep control planes by name, and choose one.",
    )
    command("trace", trace.trace, "trace GET http://shop.example/cart -H x-a:1")
    return app


def _add_side_commands(command: Callable[[str, Callable[..., None], str], None], *, named: bool) -> None:
    """Those that are about the sides of a service; read only when one is named, as with groups."""
    examples = {
        "preview": "preview example-service --to green --header x-preview:1",
        "mirror": "mirror example-service --to green --percent 5",
        "top": "top example-service --nodes",
    }
    if named:
        from pointsman.cli import sides, top

        for name, function in (("preview", sides.preview), ("mirror", sides.mirror), ("top", top.top)):
            command(name, function, examples[name])
        return
    for name, about in (
        ("preview", "Let requests with a mark see an upstream before anyone else does."),
        ("mirror", "Send copies of a share of a service's requests to another upstream."),
        ("top", "Show what each side of services serves now."),
    ):
        command(name, _described(about), examples[name])


def _described(text: str) -> Callable[[], None]:
    def not_read_yet() -> None:
        raise AssertionError("only the help page shows it")

    not_read_yet.__doc__ = text
    return not_read_yet


def _group(*commands: tuple[str, Callable[..., None], str]) -> typer.Typer:
    group = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
    for name, function, example in commands:
        group.command(name, epilog=f"Example: pointsman {example}")(function)
    return group


def _switch_commands() -> typer.Typer:
    from pointsman.cli import switching

    return switching.commands()


def _join_token_commands() -> typer.Typer:
    from pointsman.cli import node_identities

    return _group(
        ("create", node_identities.create, "join-token create --ttl 1h --uses 3 --labels zone=a"),
        ("list", node_identities.list_tokens, "join-token list"),
        ("revoke", node_identities.revoke_token, "join-token revoke 5f0c2e9ab41d"),
    )


def _node_commands() -> typer.Typer:
    from pointsman.cli import node_identities

    return _group(
        ("revoke", node_identities.revoke, "node revoke 4ef3b2c4-9d5c-4ce8-9bb1-7a1c5ad7eb0f"),
        ("approve", node_identities.approve, "node approve 4ef3b2c4-9d5c-4ce8-9bb1-7a1c5ad7eb0f"),
        ("refused", node_identities.refused, "node refused"),
    )


def _ca_commands() -> typer.Typer:
    from pointsman.cli import node_ca

    return _group(
        ("show", node_ca.show, "ca show"),
        ("rotate", node_ca.rotate, "ca rotate"),
        ("advance", node_ca.advance, "ca advance"),
    )


def _context_commands() -> typer.Typer:
    from pointsman.cli import context_commands

    return _group(
        ("list", context_commands.list_contexts, "context list"),
        ("set", context_commands.set_context, "context set prod --addr https://admin.example:8444 --ca ca.pem"),
        ("use", context_commands.use_context, "context use prod"),
        ("delete", context_commands.delete_context, "context delete prod"),
    )


def _rollout_commands() -> typer.Typer:
    from pointsman.cli import rollouts

    return _group(
        ("list", rollouts.rollout_list, "rollout list"),
        ("show", rollouts.rollout_show, "rollout show 1"),
        ("abort", rollouts.rollout_abort, 'rollout abort 1 --reason "not now"'),
    )


def _global_options(
    context: typer.Context,
    addr: Annotated[
        str,
        typer.Option(
            "--addr", envvar="POINTSMAN_ADDR", help=f"Address of the control plane's Admin API; else {DEFAULT_ADDRESS}."
        ),
    ] = "",
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="FORMAT", help="How data is printed: table, json, yaml or name.")
    ] = Format.TABLE.value,
    token: Annotated[
        str, typer.Option("--token", envvar="POINTSMAN_TOKEN", help="Token for the Admin API.", show_envvar=True)
    ] = "",
    ca: Annotated[
        str, typer.Option("--ca", envvar="POINTSMAN_CA", help="PEM file of the CA that the Admin API is checked by.")
    ] = "",
    named: Annotated[
        str,
        typer.Option("--context", envvar="POINTSMAN_CONTEXT", metavar="NAME", help="Which of the contexts is meant."),
    ] = "",
    read_only: Annotated[bool, typer.Option("--read-only", help="Send nothing that writes.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print data and errors only, no messages.")] = False,
) -> None:
    given = Target(addr, token, ca, read_only)
    session = Session(given, Output(output_format(output), quiet=quiet), context=named)
    context.obj = session
    context.call_on_close(session.close)


def _errors_output(arguments: Sequence[str]) -> Output:
    """Errors follow `-o json` also when they come before, or instead of, a session."""
    joined = " ".join(hoist(arguments)[:6])
    wants_json = any(text in joined for text in ("-o json", "-ojson", "--output json", "--output=json"))
    return Output(Format.JSON if wants_json else Format.TABLE, quiet=False)
