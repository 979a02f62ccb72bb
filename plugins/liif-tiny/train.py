"""Train the model of edsr-liif-tiny.toml and put it into the package: ``python train.py``."""

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
RUN = HERE / "run"
CHECKPOINT = HERE / "liif_tiny" / "edsr-liif-tiny.safetensors"

command = ["run", HERE / "edsr-liif-tiny.toml", "--out", RUN, "--resume"]  # an interrupted run is continued
if subprocess.run([sys.executable, "-m", "liif_core", *command]).returncode:
    sys.exit("the training failed; the pack is unchanged")
shutil.copyfile(RUN / "checkpoints" / "best.safetensors", CHECKPOINT)
results = json.loads((RUN / "report.json").read_text(encoding="utf-8"))["results"]
measured = {
    "sha256": hashlib.sha256(CHECKPOINT.read_bytes()).hexdigest(),
    "size": CHECKPOINT.stat().st_size,
    "scores": {f"{result['dataset']} x{result['scale']}": round(result["psnr"], 2) for result in results},
}
CHECKPOINT.with_suffix(".json").write_text(json.dumps(measured, indent=2) + "\n", encoding="utf-8")
print(f"written: {CHECKPOINT} and {CHECKPOINT.with_suffix('.json').name}")
