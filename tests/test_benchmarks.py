"""The benchmark for a GPU runs on a CPU, too, with small models."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.mark.skipif(importlib.util.find_spec("transformers") is None, reason="transformers is not installed")
@pytest.mark.skipif(not BENCHMARKS.exists(), reason="the benchmarks are not installed")
def test_the_gpu_benchmark_runs_tiny(tmp_path):
    lines = (" ".join(f"word{i * j % 97}" for j in range(5 + i % 40)) for i in range(200))
    (tmp_path / "text.txt").write_text("\n".join(lines), encoding="utf-8")
    options = ["--tiny", "--only", "bert", "--text", str(tmp_path / "text.txt")]
    command = [sys.executable, str(BENCHMARKS / "gpu.py"), *options, "--json", str(tmp_path / "rows.json")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "rows.json").read_text(encoding="utf-8"))
    assert [row["case"].split()[0] for row in rows] == ["bert", "bert"]
    assert all(row["ratio"] > 0 and row["rounds"] == 1 for row in rows)
    assert 0 < rows[0]["share_of_peak"] < 1
    assert rows[0]["kernels"]["busy"] > 0
