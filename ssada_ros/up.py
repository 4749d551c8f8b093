"""``ssada up``: the nodes of the launch file without ``ros2 launch``, kept running and stopped cleanly."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ssada_core.errors import ConfigError, require
from ssada_core.settings import nearest
from ssada_ros.keeper import Keeper, RestartPolicy
from ssada_ros.processes import ProcessDescription, main_nodes
from ssada_ros.supervisor import Supervisor

LOG_LEVELS = ("debug", "info", "warn", "error", "fatal")
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class UpOptions:
    """What ``ssada up`` was asked for.

    Attributes:
        parameters: ROS parameters file of both nodes.
        namespace: of the nodes.
        cameras: each as ``TOPIC`` or ``NAME=TOPIC``, in place of the file's.
        log_dir: of the nodes' logs; None for the terminal.
        log_level: of the nodes; empty for ROS's default.
        use_sim_time: take the time from ``/clock``.
        restarts: in a row, of a node that ends; 0 stops everything at the first end.
        foxglove: also serve the topics to Foxglove.
    """

    parameters: Path | None = None
    namespace: str = ""
    cameras: tuple[str, ...] = ()
    log_dir: Path | None = None
    log_level: str = ""
    use_sim_time: bool = False
    restarts: int = 5
    foxglove: bool = False

    def processes(self) -> list[ProcessDescription]:
        """Describe what is to run.

        Raises:
            ConfigError: if an option is wrong.
            MissingExtraError: if Foxglove's SDK is asked for and not installed.
        """
        if self.foxglove:
            require("foxglove", extra="foxglove", purpose="--foxglove")
        if self.parameters is not None and not self.parameters.is_file():
            raise ConfigError(f"--parameters {self.parameters}: no such file")
        if self.log_level and self.log_level not in LOG_LEVELS:
            raise ConfigError(f"--log-level '{self.log_level}'{nearest(self.log_level, list(LOG_LEVELS))}")
        return main_nodes(
            parameters_file=self.parameters,
            namespace=self.namespace,
            log_level=self.log_level,
            use_sim_time=self.use_sim_time,
            cameras=self.cameras,
            foxglove=self.foxglove,
        )


def run_up(options: UpOptions, tell: Callable[[str], None]) -> None:
    """Run everything until SIGINT, SIGTERM or SIGHUP, or until a node cannot be kept running.

    Args:
        options: what to run.
        tell: gets a line for everything that a person should know.

    Raises:
        ConfigError: if an option or a node's parameters are wrong.
        SsadaError: if a node cannot be started, or ends more often in a row than allowed.
    """
    nodes = options.processes()
    policy = RestartPolicy(restarts=options.restarts)
    supervisor = Supervisor(nodes, options.log_dir)
    with _signals_end():
        try:
            supervisor.start()
            where = f"logs in {options.log_dir}; " if options.log_dir is not None else ""
            tell(f"running: {', '.join(node.name for node in nodes)}; {where}Ctrl-C stops")
            Keeper(supervisor, nodes, policy, tell).run()
        except KeyboardInterrupt:
            tell("stopping")
        finally:
            for number in _ENDING:  # stopping takes bounded time, and nothing may cut it short
                signal.signal(number, signal.SIG_IGN)
            supervisor.stop()


@contextmanager
def _signals_end() -> Iterator[None]:
    """SIGTERM, as systemd sends it, and the terminal's end are taken like Ctrl-C; what was before comes back."""
    previous = {number: signal.signal(number, signal.default_int_handler) for number in _ENDING}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
