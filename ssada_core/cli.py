"""The core's commands: everything that needs no ROS."""

from __future__ import annotations

from ssada_core.commands import common
from ssada_core.commands.lazy import add_lazily

COMMANDS = {
    "annotate": ("annotate:command", "Serve the annotation page of a frame pool until Ctrl-C."),
    "train": (
        "train:command",
        "Train a model offline; interrupted, the same command goes on exactly where its last checkpoint is.",
    ),
    "evaluate": (
        "evaluate:command",
        "Measure a model on labelled frames: mIoU, IoU per class, pixel accuracy, confusion matrix.",
    ),
    "replay": (
        "replay:command",
        "Run a model over a recorded drive, deterministically, and write one page: report.html, report.json beside it.",
    ),
    "export": (
        "models:export",
        "Export a model for the inference backends: fp32 is checked against torch, int8 against fp32.",
    ),
    "models": ("models:app", "Look after model versions: list, inspect, check, promote, roll back."),
    "data": ("data_check:app", "Look into data sets before they are trained on."),
    "bag": ("data:bag", "Make and inspect recordings (rosbag2), without ROS."),
    "source": ("data:source", "Source packs: what the model knew before, carried along."),
    "pool": ("pool:app", "Look into a frame pool, and take out of it what must not stay."),
    "bench": ("bench:app", "Measure what the parts cost on this machine."),
}
"""Where each command is, in ``ssada_core.commands``, and the first paragraph of its help."""

app = common.make_app("Road segmentation that learns the road it drives on. Every command has --help with an example.")
for _name, (_target, _words) in COMMANDS.items():
    add_lazily(app, _name, f"ssada_core.commands.{_target}", _words)


def main() -> int:
    """Run the core's commands; returns the exit status."""
    return common.run(app)


if __name__ == "__main__":
    raise SystemExit(main())
