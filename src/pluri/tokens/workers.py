"""Worker processes that turn parts of a corpus into shards.

They are plain subprocesses, spoken to through pipes, not by multiprocessing: they need no
`if __name__ == "__main__"` in the user's script, and a parent that is killed closes the pipes, which ends them.
"""

import os
import pickle
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, cast

from pluri.errors import PluriError, StoreError
from pluri.tokens.encoding import encode_documents
from pluri.tokens.shard import ShardEntry, ShardWriter, ids_dtype
from pluri.tokens.tokenizer import Tokenizer

Part = tuple[str, list[str]]
"""The name of a shard and the texts of its documents."""


def write_shard(part: Part, tokenizer: Tokenizer, output: Path, language: str) -> ShardEntry:
    """Encodes a part into output/NAME.shard and leaves output/unfinished/NAME.json as the sign that it is whole."""
    name, texts = part
    unfinished = output / "unfinished"
    try:
        with ShardWriter(
            output / f"{name}.shard", _aside(unfinished / f"{name}.shard"), ids_dtype(tokenizer.vocab_size)
        ) as writer:
            for group, documents in encode_documents(tokenizer, texts, language):
                writer.add(group, documents)
            entry = writer.finish()
        write_text(unfinished / f"{name}.json", entry.model_dump_json())
        return entry
    except OSError as error:
        raise write_error(error, output) from None


def write_text(path: Path, text: str) -> None:
    """Through a temporary name and fsync, so that a crash leaves no half file."""
    temporary = _aside(path)
    with temporary.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)


def _aside(path: Path) -> Path:
    """A name beside it that no other process takes, on whatever machine: a part given twice may be running twice."""
    return path.with_name(f"{path.name}.{uuid.uuid4().hex[:12]}.tmp")


def write_error(error: OSError, path: Path) -> StoreError:
    do = "free space, or choose another folder, and run the same command again: finished shards are kept"
    return StoreError(f"cannot write: {error.strerror or error}", where=str(path), do=do)


def run_parts(
    parts: Iterator[Part], workers: int, output: Path, language: str, finished: Callable[[ShardEntry], None]
) -> None:
    """Writes the shard of each part by `workers` processes; `finished` is told of each as it is done.

    The tokenizer is the one in output/tokenizer. The first error stops all and is raised.
    """
    lock, errors = threading.Lock(), list[BaseException]()
    processes = [_start(output, language) for _ in range(workers)]

    def serve(process: subprocess.Popen) -> None:
        try:
            while not errors:
                with lock:
                    part = next(parts, None)
                if part is None:
                    return
                entry = _ask(process, part)
                with lock:
                    finished(entry)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=serve, args=(process,), daemon=True) for process in processes]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        for process in processes:
            process.kill()
            process.wait()
    if errors:
        raise errors[0]


def _start(output: Path, language: str) -> subprocess.Popen:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "TOKENIZERS_PARALLELISM": "false"}
    command = [sys.executable, "-c", "from pluri.tokens.workers import main; main()"]
    # A session of its own: Ctrl-C reaches the parent alone, which then ends the workers.
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, start_new_session=True
    )
    pickle.dump((output, language), cast(BinaryIO, process.stdin))
    return process


def _ask(process: subprocess.Popen, part: Part) -> ShardEntry:
    stdin, stdout = cast(BinaryIO, process.stdin), cast(BinaryIO, process.stdout)
    try:
        pickle.dump(part, stdin)
        stdin.flush()
        answer = pickle.load(stdout)
    except (EOFError, OSError):
        code = process.wait()
        do = "run the same command again with fewer workers: finished shards are kept"
        raise StoreError(f"a worker process ended with code {code} (out of memory?)", do=do) from None
    if isinstance(answer, BaseException):
        raise answer
    return answer


def main() -> None:
    """A worker: reads (output, language) and then parts; answers each with a ShardEntry or an error."""
    stdin, stdout = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints must not get into the answers
    try:
        output, language = pickle.load(stdin)
        tokenizer = Tokenizer.load(output / "tokenizer")
        while True:
            part = pickle.load(stdin)
            try:
                answer: ShardEntry | PluriError = write_shard(part, tokenizer, output, language)
            except PluriError as error:
                answer = error
            pickle.dump(answer, stdout)
            stdout.flush()
    except EOFError:
        return
