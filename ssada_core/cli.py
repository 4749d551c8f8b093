"""The core's commands: everything that needs no ROS."""

from __future__ import annotations

from ssada_core.commands import (
    annotate,
    bench,
    common,
    data,
    data_check,
    evaluate,
    label_studio,
    models,
    pool,
    replay,
    train,
)

app = common.make_app("Road segmentation that learns the road it drives on. Every command has --help with an example.")
app.command("annotate")(annotate.command)
app.command("train")(train.command)
app.command("evaluate")(evaluate.command)
app.command("replay")(replay.command)
app.command("export")(models.export)
app.add_typer(models.app, name="models")
app.add_typer(data_check.app, name="data")
app.add_typer(data.bag, name="bag")
app.add_typer(data.source, name="source")
pool.app.add_typer(label_studio.app, name="labelstudio")
app.add_typer(pool.app, name="pool")
app.add_typer(bench.app, name="bench")


def main() -> int:
    """Run the core's commands; returns the exit status."""
    return common.run(app)


if __name__ == "__main__":
    raise SystemExit(main())
