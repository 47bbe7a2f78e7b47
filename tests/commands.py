"""Every command of the command line, with words that make it run."""

import shlex
from collections.abc import Iterator

import click

from scheduler.cli import cli

ENQUEUE = {
    "enqueue train": "gan --dataset d --name m",
    "enqueue finetune": "m --dataset d",
    "enqueue generate": "m --count 1",
    "enqueue evaluate": "m --dataset d",
    "enqueue batch": "lines.jsonl",
}
# the words that make each command open the record; what it then finds does not matter
WORDS = ENQUEUE | {
    "artifact list": "0",
    "artifact download": "0",
    "artifact url": "0",
    "artifact show": "0",
    "artifact which": "book.txt",
    "artifact verify": "0",
    "artifact reproduce": "0 0",
    "dataset add": "book book.txt",
    "dataset update": "book book.txt",
    "dataset list": "",
    "dataset show": "book",
    "dataset diff": "book:1 book:2",
    "dataset withdraw": "book 0123456789abcdef",
    "dataset remove": "book",
    "backup": "copy",
    "cache clear": "",
    "restore": "copy",
    "config list": "",
    "config check": "",
    "db check": "",
    "db prune": "",
    "db removed": "",
    "db upgrade": "",
    "doctor": "",
    "down": "",
    "family list": "",
    "family show": "gan",
    "help": "",
    "provenance verify": "book.txt",
    "key create": "watermark",
    "key list": "",
    "key rotate": "watermark",
    "key revoke": "key_0 --reason lost",
    "key export": "folder",
    "provenance proof": "0",
    "provenance audit": "",
    "audit": "",
    "key rewrap": "--old-key-command cat",
    "job list": "",
    "job show": "0",
    "job watch": "0",
    "job wait": "0",
    "job logs": "0",
    "job export": "0 folder",
    "job cancel": "0",
    "job priority": "0 5",
    "job note": "0 text",
    "job retry": "0",
    "job remove": "0",
    "model list": "",
    "model show": "m",
    "model compare": "m:1 m:2",
    "model promote": "m:1",
    "model rollback": "m",
    "model history": "m",
    "model alias": "m:1 --as champion",
    "model remove": "m:1",
    "model marks": "m",
    "model export": "m folder",
    "model import": "folder --name m",
    "policy noise": "m",
    "policy show": "image",
    "publish": "0 --target t",
    "publications list": "",
    "target add": "t folder /srv/t",
    "target list": "",
    "target kinds": "",
    "target show": "t",
    "target remove": "t",
    "target check": "t",
    "schedule add": "often --cron '* * * * *' -- enqueue generate m --count 1",
    "schedule list": "",
    "schedule show": "often",
    "schedule pause": "often",
    "schedule resume": "often",
    "schedule trigger": "often",
    "schedule remove": "often",
    "status": "",
    "store encrypt": "",
    "template list": "",
    "template show": "caption",
}
RUNNING = {"up", "demo", "worker", "scheduler"}  # those that do not end by themselves


def words_of(command: str) -> list[str]:
    """The words of a command of the table."""
    return [*command.split(), *shlex.split(WORDS[command])]


def leaves(command: click.Command = cli, *words: str) -> Iterator[str]:
    """Every command that is not a group."""
    if not isinstance(command, click.Group):
        yield " ".join(words)
        return
    for name in command.list_commands(click.Context(command)):
        found = command.get_command(click.Context(command), name)
        assert found is not None
        yield from leaves(found, *words, name)


def find(command: str) -> click.Command:
    """The command of these words."""
    found: click.Command = cli
    for word in command.split():
        assert isinstance(found, click.Group)
        inner = found.get_command(click.Context(found), word)
        assert inner is not None
        found = inner
    return found
