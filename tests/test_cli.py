"""The command line, from training to figures, and what a user is told when something is missing."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import causalvae_fast as cvf
from causalvae_fast.cli import main
from causalvae_fast.training.checkpoint import load_checkpoint

TINY = ["--samples", "64", "--batch-size", "16", "--channels", "2", "--hidden", "16", "--device", "cpu"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def train(run: Path, *options: str) -> int:
    return main(["train", "sprites", "--out", str(run), "--epochs", "1", *TINY, *options])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, to read only."""
    run = tmp_path_factory.mktemp("runs") / "sprites"
    assert train(run) == 0
    return run


def test_evaluate_writes_and_prints_metrics(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(trained)]) == 0
    metrics = json.loads((trained / "metrics.json").read_text())
    assert {"shd", "edges", "position_r2", "reconstruction", "prediction", "intervention"} <= metrics.keys()
    assert metrics["extrapolation"].keys() == {"step_1", "step_2", "step_3"}
    assert {"parent", "child", "coefficient", "probability"} == metrics["edges"][0].keys()
    assert metrics["step"] == metrics["steps"] == 4
    printed = capsys.readouterr()
    assert f"structural Hamming distance  {metrics['shd']}" in printed.out
    assert printed.err == ""


def test_figures_are_drawn(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["figures", str(trained)]) == 0
    drawn = {path.name for path in (trained / "figures").glob("*.png")}
    assert drawn >= {
        "architecture.png",
        "extrapolation.png",
        "graph.png",
        "interventions.png",
        "latent_response.png",
    }
    assert "graph.png" in capsys.readouterr().out


def test_extrapolate_writes_frames_beside_the_truth(trained: Path) -> None:
    assert main(["extrapolate", str(trained), "--steps", "4", "--samples", "2"]) == 0
    assert (trained / "figures" / "extrapolation_4.png").stat().st_size > 1000
    with np.load(trained / "extrapolation.npz", allow_pickle=False) as arrays:
        assert arrays["truth"].shape == arrays["predicted"].shape == (2, 6, 20, 20, 3)
        x = arrays["positions"]
    np.testing.assert_allclose(x[:, 2:], 2 * x[:, 1:-1] - x[:, :-2], atol=1e-4)


def test_load_gives_the_model(trained: Path) -> None:
    model = cvf.load(trained)
    assert not model.training
    saved = load_checkpoint(trained / "checkpoint.safetensors")[0]
    for name, value in model.state_dict().items():
        assert torch.equal(value, saved[f"model.{name}"])


def test_the_weights_of_the_loss_are_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(tmp_path / "run", "--kl-weight", "0.125", "--edge-weight", "2.5") == 0
    out = capsys.readouterr().out
    assert "0.125 kl" in out
    assert "2.5 edges" in out


def test_run_is_another_name_of_out(tmp_path: Path) -> None:
    assert main(["train", "sprites", "--run", str(tmp_path / "run"), "--epochs", "1", *TINY]) == 0
    assert (tmp_path / "run" / "checkpoint.safetensors").exists()


@pytest.mark.parametrize("command", ["evaluate", "figures", "extrapolate"])
def test_a_missing_run_is_named(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, str(tmp_path / "nowhere")]) == 1
    error = capsys.readouterr().err
    assert f"there is no run in {tmp_path / 'nowhere'}: give the folder of" in error
    assert len(error.strip().splitlines()) == 1


def test_a_run_without_a_checkpoint_is_named(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.yaml").write_bytes((trained / "config.yaml").read_bytes())
    assert main(["evaluate", str(tmp_path)]) == 1
    assert f"there is no checkpoint at {tmp_path / 'checkpoint.safetensors'}: train" in capsys.readouterr().err


def test_a_folder_with_a_run_is_refused(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (trained / "checkpoint.safetensors").read_bytes()
    assert train(trained, "--seed", "9") == 1
    assert "holds a run already" in capsys.readouterr().err
    assert (trained / "checkpoint.safetensors").read_bytes() == before


def test_overwriting_leaves_no_results_of_the_run_before(trained: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    for command in ("evaluate", "figures", "extrapolate"):
        assert main([command, str(run)]) == 0
    assert train(run, "--overwrite") == 0
    assert {path.name for path in run.rglob("*") if path.is_file() and not path.name.startswith("events.")} == {
        "config.yaml",
        "checkpoint.safetensors",
    }


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == f"causalvae_fast {cvf.__version__}\n"


def test_resume_with_other_options_is_refused(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "sprites", "--out", str(trained), "--resume", "--batch-size", "8"]) == 1
    assert "batch_size = 8 (the run has 16)" in capsys.readouterr().err


def test_resume_and_overwrite_exclude_each_other(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "sprites", "--out", str(trained), "--resume", "--overwrite"]) == 1
    assert "give one of them" in capsys.readouterr().err


def test_resume_of_a_complete_run_says_so(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (trained / "checkpoint.safetensors").read_bytes()
    assert main(["train", "sprites", "--out", str(trained), "--resume"]) == 0
    assert "is complete: it has done its 4 steps" in capsys.readouterr().out
    assert (trained / "checkpoint.safetensors").read_bytes() == before


def test_images_that_are_gone_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = tmp_path / "hero.png"
    Image.new("RGBA", (9, 9), (255, 0, 0, 255)).save(own)
    assert train(tmp_path / "run", "--sprite", str(own)) == 0
    own.unlink()
    assert main(["evaluate", str(tmp_path / "run")]) == 1
    assert "change the path in its config.yaml" in capsys.readouterr().err


def test_more_samples_than_there_are(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("causalvae_fast.training.evaluate._HELD_OUT_VIDEOS", 60)
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    assert main(["extrapolate", str(run), "--steps", "9", "--samples", "2000"]) == 0
    assert "is the character in view for so long" in capsys.readouterr().out


def test_resume_without_a_run_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "sprites", "--out", str(tmp_path), "--resume"]) == 1
    assert f"there is no run in {tmp_path}" in capsys.readouterr().err


def test_own_images_that_are_missing_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(tmp_path / "run", "--sprite", str(tmp_path / "nobody.png")) == 1
    assert f"no image file at {tmp_path / 'nobody.png'}" in capsys.readouterr().err


def test_a_missing_extra_is_named(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cvf, "training", cvf.training)  # so that the one of sys.modules is back afterwards
    for name in [name for name in sys.modules if name.startswith(("causalvae_fast.training", "tyro", "yaml"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "yaml", None)
    assert main(["evaluate", str(trained)]) == 1
    assert "pip install 'causalvae_fast[train" in capsys.readouterr().err


def test_doctor_needs_no_extra() -> None:
    """Importing the package and the command line loads none of the modules that come with an extra."""
    code = (
        "import sys, causalvae_fast.cli; "
        "print([n for n in ('tyro', 'rich', 'yaml', 'safetensors', 'accelerate', 'matplotlib', 'networkx', 'PIL')"
        " if n in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=ENVIRONMENT
    )
    # torch itself may import networkx, which is one of its own dependencies.
    assert set(json.loads(result.stdout.replace("'", '"'))) <= {"networkx"}


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "causalvae_fast", *arguments]


def test_ctrl_c_leaves_a_checkpoint_and_says_how_to_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    options = ["train", "sprites", "--out", str(run), *TINY, "--epochs", "2000"]
    process = subprocess.Popen(
        command(*options), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=ENVIRONMENT
    )
    try:
        deadline = time.monotonic() + 120
        while not (run / "checkpoint.safetensors").exists():
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "Traceback" not in out
    assert f"causalvae-fast train sprites --out {run} --resume" in out
    tensors, metadata = load_checkpoint(run / "checkpoint.safetensors")
    assert 0 < metadata["step"] < 8000
    assert main(["evaluate", str(run)]) == 0
    assert f"is not finished, it stands at step {metadata['step']} of 8000" in capsys.readouterr().err
    assert all(value.isfinite().all() for value in tensors.values() if value.is_floating_point())


def test_two_processes_under_torchrun(tmp_path: Path) -> None:
    """They train one model, and the first of them writes it; it resumes with two processes, not with one."""
    run = tmp_path / "run"
    options = ["train", "sprites", "--out", str(run), *TINY, "--epochs", "2"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    result = subprocess.run(
        [*torchrun, "-m", "causalvae_fast", *options],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "16 x 2 on cpu" in result.stdout
    assert result.stdout.count("epoch 2/2") == 1
    _, metadata = load_checkpoint(run / "checkpoint.safetensors")
    assert metadata == {"step": 4, "steps": 4, "processes": 2}  # 64 samples, 16 in each of 2 processes, twice
    assert main(["train", "sprites", "--out", str(run), "--resume"]) == 1
