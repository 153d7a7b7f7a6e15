"""How fast `prepare` is beside the bare tokenizer, and how much memory it needs. Targets: ratio 0.8, 1.5 GB for 2 GB.

    python benchmarks/prepare.py [--quick] [--json FILE] [--text FILE ...]

peer: tokenizers.Tokenizer.encode_batch on the same documents, already in memory, on all cores, ids thrown away.
`prepare` reads the file, finds sentences, encodes, writes, and hashes; starting its processes is counted. `ratio` is
its tokens a second over the peer's. The memory row has the text repeated to 2 GB (--quick: 50 MB), and `gigabytes` is
the most that all processes of `prepare` hold together, pages that they share counted once.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from measuring import Row, alternate, arguments, documents, finish, median_ratio
from pluri.tokens.prepare import prepare
from pluri.tokens.store import TokenStore
from pluri.tokens.tokenizer import Tokenizer
from pluri.tokens.training import Kind, train_tokenizer

LIMIT = 1.5e9
CALL = 5_000_000
"""Characters handed to the peer in one call: more only makes it slower, by memory."""


def pluri(file: Path, tokenizer: Tokenizer, folder: Path) -> Callable[[int], float]:
    def side(turn: int) -> float:
        start = time.perf_counter()
        store = prepare(file, tokenizer, folder / f"{tokenizer.hash}-{turn}")
        return store.num_tokens / (time.perf_counter() - start)

    return side


def tokenizers(texts: list[str], tokenizer: Tokenizer) -> Callable[[int], float]:
    calls: list[list[str]] = [[]]
    size = 0
    for text in texts:
        if size > CALL:
            calls.append([])
            size = 0
        calls[-1].append(text)
        size += len(text)
    counts: list[int] = []

    def side(_: int) -> float:
        seconds = 0.0
        for call in calls:
            start = time.perf_counter()
            encodings = tokenizer.raw.encode_batch(call, add_special_tokens=False)
            seconds += time.perf_counter() - start
            if len(counts) < len(calls):
                counts.append(sum(len(encoding) for encoding in encodings))
        return sum(counts) / seconds

    return side


def write(path: Path, texts: list[str], size: int) -> int:
    """One document a line, repeated until `size` bytes are written; how many were."""
    written = 0
    with path.open("w", encoding="utf-8") as stream:
        while written < size:
            for text in texts:
                written += len(text.encode()) + 1
                stream.write(text + "\n")
                if written >= size:
                    break
    return written


def memory(pid: int) -> int:
    """Bytes that a process and its descendants hold: proportional set sizes, from /proc."""
    total = 0
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) * 1024
        for task in Path(f"/proc/{pid}/task").iterdir():
            total += sum(memory(int(child)) for child in (task / "children").read_text().split())
    except (FileNotFoundError, ProcessLookupError, PermissionError):  # it has just ended
        return total
    return total


def peak(file: Path, tokenizer: Path, store: Path) -> int:
    code = "import sys; from pluri.tokens.prepare import prepare; prepare(*sys.argv[1:])"
    process = subprocess.Popen([sys.executable, "-c", code, str(file), str(tokenizer), str(store)])
    highest = 0
    while process.poll() is None:
        highest = max(highest, memory(process.pid))
        time.sleep(0.5)
    if process.returncode:
        sys.exit(f"prepare failed with code {process.returncode}")
    return highest


def main() -> None:
    options = arguments(__doc__ or "").parse_args()
    texts = [" ".join(text.split()) for text in documents(options.text) if text.strip()]
    rows: list[Row] = []
    kinds: list[Kind] = ["wordpiece", "char"] if options.quick else ["wordpiece", "byte_bpe", "unigram", "char"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file = folder / "text.txt"
        write(file, texts, 10_000_000 if options.quick else 60_000_000)
        lines = file.read_text(encoding="utf-8").splitlines()
        for kind in kinds:
            tokenizer = train_tokenizer(file, kind=kind)
            sides = {"ours": pluri(file, tokenizer, folder), "theirs": tokenizers(lines, tokenizer)}
            figures = alternate(sides, 3)
            rows.append(
                {
                    "case": f"{kind}, {len(lines):,} documents, {file.stat().st_size / 1e6:.0f} MB",
                    "peer": "tokenizers.encode_batch",
                    "ratio": median_ratio(figures["ours"], figures["theirs"]),
                    "tokens_per_second": sorted(figures["ours"])[1],
                }
            )
        tokenizer.save(folder / "tokenizer")
        size = write(file, texts, 50_000_000 if options.quick else 2_000_000_000)
        used = peak(file, folder / "tokenizer", folder / "large")
        store = TokenStore.open(folder / "large")
        rows.append(
            {
                "case": f"peak memory, {size / 1e9:.1f} GB of text, {store.num_documents:,} documents",
                "peer": "limit of 1.5 GB",
                "ratio": used / LIMIT,
                "gigabytes": used / 1e9,
            }
        )
    finish(rows, options.json, "prepare beside the bare tokenizer")


if __name__ == "__main__":
    main()
