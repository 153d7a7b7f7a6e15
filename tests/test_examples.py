"""The examples: what they give to a scheduler is what the command line understands."""

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from pluri.cli import app

EXAMPLES = Path(__file__).parent.parent / "examples"


def verbs(text: str) -> list[str]:
    """Of each command of Pluri in it the verb; what the command line does not understand fails."""
    found = []
    text = re.sub(r"\$\(\(.*?\)\)", "1", text)  # what the shell reckons
    for command in re.findall(r"\bpluri ((?:prepare|merge|pretrain) [^\n\"]*)", text.replace("\\\n", " ")):
        app.parse_args(shlex.split(command), exit_on_error=False, print_error=False)
        found.append(command.split()[0])
    return found


def test_slurm(tmp_path: Path):
    stub = tmp_path / "sbatch"
    stub.write_text('#!/bin/bash\nprintf "%s\\n" "$@" >> given\n[ -t 0 ] || cat >> given\necho 7\n')
    stub.chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    command = ["bash", str(EXAMPLES / "slurm.sh")]
    subprocess.run(command, check=True, cwd=tmp_path, env=os.environ | {"PATH": path}, stdin=subprocess.DEVNULL)
    given = (tmp_path / "given").read_text()
    assert verbs(given) == ["prepare", "merge", "pretrain"]
    assert "--array=1-64" in given
    assert "--part $SLURM_ARRAY_TASK_ID/64" in given
    assert given.count("--dependency=afterok:7") == 2


def test_kubernetes():
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    prepare, service, pretrain = yaml.safe_load_all((EXAMPLES / "kubernetes.yaml").read_text(encoding="utf-8"))
    for job, verb in ((prepare, "prepare"), (pretrain, "pretrain")):
        pod = job["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        assert verbs(container["args"][0]) == [verb]
        assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    assert prepare["spec"]["completions"] == int(prepare["spec"]["template"]["spec"]["containers"][0]["args"][0][-2:])
    name = pretrain["metadata"]["name"]
    assert service["metadata"]["name"] == pretrain["spec"]["template"]["spec"]["subdomain"] == name
    assert f"{name}-0.{name}:" in pretrain["spec"]["template"]["spec"]["containers"][0]["args"][0]
