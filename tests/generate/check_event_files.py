"""Lets Python's TensorBoard read the event files that `vitmae --log-dir` writes, and compares them with the run's own log.

    python check_event_files.py RESULT.json          (packages: requirements-tensorboard.txt)

Trains a tiny model, trains its last updates once more from the checkpoint before, and fine-tunes it. Of every curve, steps, values
and their order must be those of `log.txt`, and the last value of a step that of the tables of `vitmae report`; wall times must go up
within the time that the command took. RESULT.json gets the number of points of each curve. Stops where anything differs.
"""

import csv
import json
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import tensorboard
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

ROOT = Path(__file__).parent.parent.parent
FIXTURES = ROOT / "tests/fixtures"
COMMAND = ["cargo", "run", "--quiet", "--release", "--package", "vitmae-cli", "--", "--quiet"]
# The keys of a line of `log.txt` that are curves, and what the curves are called.
CURVES = {
    "step": {"loss": "train_loss", "lr": "lr", "gradient_norm": "gradient_norm"},
    "epoch": {"probe_accuracy": "probe_accuracy"},
    "evaluation": {key: key for key in ("val_loss", "val_accuracy", "val_loss_ema", "val_accuracy_ema")},
}


def f32(number):
    return struct.unpack("<f", struct.pack("<f", number))[0]


def vitmae(*arguments):
    """Runs the command and gives the times between which it ran."""
    start = time.time()
    subprocess.run([*COMMAND, *map(str, arguments)], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    return start, time.time()


def thousandths(line):
    # The log counts the epochs of `epoch` lines from 0, and they stand at the end of their epoch.
    return int(1000 * (line["epoch"] + (line["kind"] == "epoch")))


def logged(run):
    """The points (thousandths of epochs, value) of each curve in the order of the log."""
    curves = defaultdict(list)
    for text in (run / "log.txt").read_text().splitlines():
        line = json.loads(text)
        for key, tag in CURVES.get(line["kind"], {}).items():
            if key in line:
                curves[tag].append((thousandths(line), f32(line[key])))
    return curves


def check_tables(run, curves):
    """What `vitmae report` says of a step is the last that a curve says of it."""
    vitmae("report", run)
    last = {tag: dict(points) for tag, points in curves.items()}
    with open(run / "steps.csv") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        for key, tag in CURVES["step"].items():
            value = last[tag][int(1000 * float(row["epoch"]))]
            assert value == f32(float(row[key])), (tag, row, value)
    assert len(rows) == len(last["train_loss"]), (len(rows), len(last["train_loss"]))


def check(run, logs, times):
    """The curves in `logs`, one file for each of `times`."""
    files = sorted(logs.iterdir())
    assert len(files) == len(times), files
    for path, (start, end) in zip(files, times):
        walls = [event.wall_time for event in LegacyEventFileLoader(str(path)).Load()]
        assert walls == sorted(walls) and start <= walls[0] and walls[-1] <= end, (path, start, walls, end)
        assert int(path.name.split(".")[3]) == int(walls[0]), path
    accumulator = EventAccumulator(str(logs), size_guidance={"scalars": 0})
    accumulator.Reload()
    expected = logged(run)
    tags = accumulator.Tags()
    assert sorted(tags.pop("scalars")) == sorted(expected), (accumulator.Tags(), expected.keys())
    assert not any(tags.values()), tags
    found = {}
    for tag, points in expected.items():
        events = accumulator.Scalars(tag)
        assert [(event.step, event.value) for event in events] == points, (tag, events, points)
        walls = [event.wall_time for event in events]
        assert walls == sorted(walls) and times[0][0] <= walls[0] and walls[-1] <= times[-1][1], (tag, walls)
        found[tag] = len(points)
    check_tables(run, expected)
    return found


def main(result):
    vitmae("recipes", "list")  # builds it, so that no time below is that of the compiler
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        for part in ("train", "val"):
            shutil.copytree(FIXTURES / "sets/folder", place / "set" / part)
        shared = ["--data-path", place / "set", "--batch-size", 4, "--epochs", 3, "--warmup-epochs", 1, "--lr", 1e-3,
                  "--model-ema", "--model-ema-decay", 0.9, "--save-every", 1]
        run = place / "run"
        pretrain = ["pretrain", *shared, "--config", FIXTURES / "parity/pretraining-small/config.json", "--online-probe",
                    "--output-dir", run, "--log-dir", place / "logs"]
        times = [vitmae(*pretrain)]
        newest = max(path.parent for path in run.glob("*/MANIFEST.json"))
        shutil.rmtree(newest)
        time.sleep(1)  # The names of event files have seconds.
        times.append(vitmae(*pretrain))
        found = {"pretrain": check(run, place / "logs", times)}
        classifier = place / "classifier"
        times = [vitmae("finetune", *shared, "--finetune", run, "--output-dir", classifier, "--log-dir", place / "tuned")]
        found["finetune"] = check(classifier, place / "tuned", times)
    for command, curves in found.items():
        print(command, curves)
    result.write_text(json.dumps({"tensorboard": tensorboard.__version__, "points": found}, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
