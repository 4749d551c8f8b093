"""Run the real system under a seeded storm of faults, then check what must hold: ``make chaos MINUTES=30 SEED=7``.

Real nodes, worker and annotation page, as ``ssada up`` runs them, on a small disk of their own. Exit status 1 if one
invariant fails; the last line is a summary. What each fault promises stands in docs/reliability.md.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import IO

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH", "")]))
os.environ.setdefault("OMP_NUM_THREADS", "1")

START_S = 120.0
"""Longest time until the first mask of all."""
CALM_S = 90.0
"""Longest time after the storm until everything works again, without anybody's help."""


def main() -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=2.0, help="length of the storm")
    parser.add_argument("--seed", type=int, help="of the storm, the drive and the annotator; random by default")
    parser.add_argument("--out", type=Path, default=Path("out/chaos"), help="folder of the run")
    parser.add_argument("--share", type=float, default=0.99, help="frames that must have a mask, 0 to 1")
    parser.add_argument("--longest-wait", type=float, default=5.0, help="seconds from a kill to the next mask")
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(10**6)
    say(f"seed {seed}, {options.minutes:g} minutes, in {options.out}")
    lock = claim_ros_domain(options.out)
    try:
        return run(options, seed)
    finally:
        lock.close()


def run(options: argparse.Namespace, seed: int) -> int:
    """One storm; returns the exit status."""
    import checks
    from annotator import Annotator
    from stage import open_stage, processes
    from storm import Storm, plan
    from watch import Watch

    from ssada_ros.keeper import Keeper, RestartPolicy
    from ssada_ros.supervisor import Supervisor

    say("setting up: model, source pack, disk")
    stage = open_stage(options.out, seed)
    if not stage.mounted:
        say("no disk of its own can be mounted here: the disk is not filled")
    broken: list[str] = []
    watch = Watch()
    annotator = Annotator(stage, watch, seed)
    descriptions = processes(stage)
    supervisor = Supervisor(descriptions, stage.logs)
    try:
        with supervisor:
            keeper = Keeper(supervisor, descriptions, RestartPolicy(), say)

            def until(condition, limit_s: float) -> bool:
                end = time.monotonic() + limit_s
                while not condition() and time.monotonic() < end:
                    keeper.step(time.monotonic())
                    time.sleep(0.02)
                return bool(condition())

            if not until(lambda: watch.seen.masks, START_S):
                broken.append(f"no mask within {START_S:.0f} s of the start")
            begun = time.monotonic()
            storm = Storm(stage, supervisor, watch, plan(seed, options.minutes * 60), begun)
            told = begun
            while not broken and not storm.over():
                now = time.monotonic()
                keeper.step(now)
                storm.step(now)
                if now - told > 30:
                    told = now
                    say(f"{(now - begun) / 60:.1f} min: {progress(watch, annotator, storm)}")
                time.sleep(0.02)
            calm = time.monotonic()
            done = len(annotator.ledger.accepted)
            back = {
                "masks": lambda: watch.last_mask() > calm + 1,
                "the adaptation's status": lambda: watch.seen.status_at > calm + 1,
                "an acknowledged label": lambda: len(annotator.ledger.accepted) > done,
            }
            until(lambda: all(condition() for condition in back.values()), CALM_S)
            broken += [f"{what} did not come back within {CALM_S:.0f} s" for what, well in back.items() if not well()]
            end = time.monotonic()
            annotator.close()
    except BaseException:  # Ctrl-C: no disk stays mounted
        stage.close()
        raise
    finally:
        watch.close()
    try:
        figures, found = judge(stage, watch, annotator, storm, checks, end, options)
    finally:
        stage.close()
    broken += found
    summary = {"seed": seed, "minutes": options.minutes, "ok": not broken, "broken": broken, **figures}
    (options.out / "chaos.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    for line in broken:
        say(f"BROKEN: {line}")
    say(words(summary))
    return 1 if broken else 0


def judge(stage, watch, annotator, storm, checks, end: float, options) -> tuple[dict, list[str]]:
    """Figures, and the invariants that do not hold."""
    seen = checks.masks(watch.seen, storm.log, storm.begun, end)
    broken = [*annotator.errors, *checks.left_behind(stage)]
    if seen["share"] < options.share:
        broken.append(f"masks for {seen['share']:.1%} of the frames, {options.share:.0%} are asked")
    if seen["longest_wait_s"] > options.longest_wait:
        broken.append(f"{seen['longest_wait_s']:.1f} s from a kill or stop to the next mask")
    kept, lost = checks.stores(stage, annotator.ledger)
    models, worse = checks.models(stage)
    figures = {"faults": storm.log.done, "storm": storm.log.told, "masks": seen, "stores": kept, "models": models}
    return figures, broken + lost + worse


def progress(watch, annotator, storm) -> str:
    """A line in between."""
    blows = sum(storm.log.done.values())
    labels = sum(map(len, annotator.ledger.accepted.values()))
    state = f"{watch.seen.status.get('phase')}, {watch.seen.status.get('version')}"
    return f"{blows} faults, {len(watch.seen.masks)} masks, {labels} labels, {state}"


def words(summary: dict) -> str:
    """The summary in one line."""
    seen, kept, models = summary["masks"], summary["stores"], summary["models"]
    struck = sum(count for what, count in summary["faults"].items() if "nobody" not in what)
    pairs = [(name, models[name]["first"], models[name]["current"]) for name in ("night", "day")]
    changes = ", ".join(f"{name} {first:.1f} → {current:.1f}" for name, first, current in pairs)
    return (
        f"chaos: {'ok' if summary['ok'] else 'FAILED'}, seed {summary['seed']}, {summary['minutes']:g} min, "
        f"{struck} faults: masks for {seen['share']:.1%} of {seen['frames']} frames, longest wait "
        f"{seen['longest_wait_s']:.1f} s after {seen['outages']} outages; {kept['acknowledged']} labels acknowledged, "
        f"{kept['rounds']} rounds, {kept['promotions']} promotions, {models['current']} current (mIoU {changes})"
    )


def say(line: str) -> None:
    """A line to whoever looks on."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def claim_ros_domain(out: Path) -> IO[str]:
    """Take a ROS domain that no test or other run on this machine uses; it is free again when the file is closed."""
    from ssada_ros.processes import environment

    for number in range(1, 102):
        lock = (Path(tempfile.gettempdir()) / f"ros_domain_{number}.lock").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            continue
        os.environ.update(
            ROS_DOMAIN_ID=str(number),
            ROS_AUTOMATIC_DISCOVERY_RANGE="LOCALHOST",
            ROS_LOCALHOST_ONLY="1" if os.environ.get("ROS_DISTRO") == "humble" else "0",
            ROS_LOG_DIR=str(out.resolve() / "ros_log"),
        )
        os.environ.update(environment())
        return lock
    raise SystemExit("all ROS domains are in use by tests: try again later")


if __name__ == "__main__":
    raise SystemExit(main())
