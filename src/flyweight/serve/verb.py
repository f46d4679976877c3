"""The verbs `serve` and `key`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

GIGABYTE = 1e9


def serve(
    models: Path | Sequence[Path],
    *,
    host: str = "127.0.0.1",
    port: int = 8080,
    bits: int | None = None,
    context: int | None = None,
    streams: int = 4,
    queue: int = 64,
    deadline: float = 600.0,
    memory: float | None = None,
    idle: float = 900.0,
    kv_bits: int = 16,
    threads: int | None = None,
    image_host: Sequence[str] = (),
    image_folder: Path | None = None,
    budget: str | None = None,
) -> None:
    """Serve models over HTTP as OpenAI does, with a page for people; Ctrl-C ends it.

    On this machine alone, unless another host is given: then every request needs a key, which
    `flyweight key` makes. Models are loaded when they are asked for. Nothing goes out.

    Args:
        models: Packed model folders, GGUF files, or folders with eyes; each goes by the name of its
            folder or file.
        host: Where to listen: 127.0.0.1 is this machine alone, 0.0.0.0 its network, with keys.
        port: Where to listen; 0 takes a free one.
        bits: Of the folders' files: 16, 8, 5 or 4; what each card names if not given.
        context: Tokens of a prompt with its answer; what each model was made for, 4,096 at most, if
            not given.
        streams: Answers that a model writes at a time; one with eyes writes one.
        queue: Requests that wait for a model; more are told to come again.
        deadline: Seconds that an answer may take.
        memory: GB that all models together may take; what is free if not given.
        idle: Seconds after which a model that nobody asks is put away.
        kv_bits: Of keys and values: 16, or 8 for half the memory of a context.
        threads: Of the processor, for each model; chosen by its size if not given.
        image_host: A host that requests may have pictures taken from, by http or https; never one
            of a private network. Repeat for more; otherwise pictures come within requests.
        image_folder: A folder on this machine whose pictures requests may name by their paths.
        budget: The energy that answers may take, such as 1kWh/day: from 80 % on it is said, beyond
            it requests are refused until the next hour, day, week or month.

    Raises:
        FlyweightError: A model that is not whole or does not fit, a port that is taken, a host
            beyond this machine without keys.
    """
    from flyweight.energy.budget import Budget
    from flyweight.serve.loaded import Settings
    from flyweight.serve.run import Address, run

    settings = Settings(
        context=context,
        streams=streams,
        places=queue,
        threads=threads,
        bits=bits,
        kv_bits=kv_bits,
        memory=None if memory is None else round(memory * GIGABYTE),
        idle=idle,
        image_hosts=tuple(image_host),
        image_folder=image_folder,
    )
    several = [models] if isinstance(models, Path) else list(models)
    held_to = None if budget is None else Budget.read(budget)
    run(several, Address(host, port), settings, deadline, held_to)


def key(
    name: str,
    *,
    requests_per_minute: int | None = None,
    tokens_per_day: int | None = None,
    remove: bool = False,
) -> None:
    """Make a key for a service beyond this machine, and print it once; only its hash is kept.

    Args:
        name: Whose it is; an older key of this name is replaced.
        requests_per_minute: How often it may ask; any number if not given.
        tokens_per_day: How many tokens it may read and write; any number if not given.
        remove: Take the key of this name back.

    Raises:
        FlyweightError: A name or limit that cannot be, or a file that cannot be written.
    """
    from flyweight.serve.keys import key_file, make_key, remove_key

    if remove:
        remove_key(name)
        print(f"The key {name} is no longer good.")
        return
    print(make_key(name, requests_per_minute, tokens_per_day))
    import sys

    print(f"Kept as a hash in {key_file()}: it is not shown again.", file=sys.stderr)
