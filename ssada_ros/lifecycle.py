"""The shell that every node stands in: transitions that say why they failed, and a ``main`` that ends cleanly.

rclpy turns an exception in a transition into ERROR and logs nothing. :class:`ManagedNode` logs it: a
:class:`SsadaError` as one line (the node stays where it was and can be tried again), anything else with its
traceback (the node is cleaned up).

The ROS wheels from PyPI re-execute Python once while the interpreter starts (a ``.pth`` file sets
``LD_LIBRARY_PATH`` and the guard ``_ROS_WHEELS_BOOTSTRAP_COMPLETE``). The process id stays the same, so signals,
``pytest`` in process and ``subprocess`` with ``sys.executable`` work as usual; children inherit the guard and do
not re-execute. Only a child that runs *another* Python environment must be started without both variables.
"""

from __future__ import annotations

import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.logging import get_logger
from rclpy.utilities import remove_ros_args

from ssada_core.errors import ConfigError, SsadaError
from ssada_ros.parameters import check_overrides

EXIT_OK, EXIT_FAILED, EXIT_WRONG_USE = 0, 1, 2

Step = Callable[[LifecycleState], None]


class ManagedNode(LifecycleNode):
    """A lifecycle node whose subclasses write four plain methods.

    ``configure``, ``activate``, ``deactivate`` and ``cleanup`` return nothing and raise where they fail. What
    ``configure`` creates ``cleanup`` gives back, likewise ``activate`` and ``deactivate``; a method that raises gives
    back itself what it had taken. ``deactivate`` and ``cleanup`` also run when the process is told to end; the ROS
    context may be gone by then, so they must not publish.

    Beware of attributes that rclpy's ``Node`` has itself, such as ``_clock``, ``_logger`` and ``_parameters``.

    Attributes:
        autostart: configure and activate as soon as the node is run (:func:`run_node`).
        failure: why the last transition failed, None after one that succeeded.
    """

    autostart: bool = True
    failure: BaseException | None = None

    def configure(self, _state: LifecycleState) -> None:
        """Create what does not change while active: publishers, models, stores."""

    def activate(self, _state: LifecycleState) -> None:
        """Start work: subscriptions, timers, threads."""

    def deactivate(self, _state: LifecycleState) -> None:
        """Stop what :meth:`activate` started."""

    def cleanup(self, _state: LifecycleState) -> None:
        """Give back what :meth:`configure` created."""

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Transition unconfigured → inactive."""
        return self._run("configure", self.configure, state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Transition inactive → active; lifecycle publishers are enabled before :meth:`activate` runs."""
        super().on_activate(state)
        result = self._run("activate", self.activate, state)
        if result != TransitionCallbackReturn.SUCCESS:
            super().on_deactivate(state)
        return result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Transition active → inactive."""
        result = self._run("deactivate", self.deactivate, state)
        super().on_deactivate(state)
        return result

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Transition inactive → unconfigured."""
        return self._run("cleanup", self.cleanup, state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Transition to finalized, from wherever the node is; ``state`` is where it was."""
        return self._run("shut down", self._take_down, state)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """After an unexpected exception: take everything down, so that the node can be configured again."""
        failure = self.failure
        result = self._run("recover", self._take_down, state)
        self.failure = failure
        return result

    def finish(self) -> None:
        """End the process with status 0 after the callback that calls this: the work is done."""
        self.context.try_shutdown()

    def close(self) -> None:
        """Deactivate and clean up without the state machine (which needs a living context); the process ends."""
        number, label = self._state_machine.current_state
        self._run("shut down", self._take_down, LifecycleState(state_id=number, label=label))

    def _take_down(self, state: LifecycleState) -> None:
        try:
            if state.label == "active":
                self.deactivate(state)
        finally:
            if state.label in ("active", "inactive"):
                self.cleanup(state)

    def _run(self, what: str, step: Step, state: LifecycleState) -> TransitionCallbackReturn:
        self.failure = None
        try:
            step(state)
        except SsadaError as error:
            self.failure = error
            self.get_logger().error(f"{what} failed: {error}")
            return TransitionCallbackReturn.FAILURE
        except Exception as error:  # noqa: BLE001 (rclpy would swallow it; this is the last place where it can be logged)
            self.failure = error
            self.get_logger().error(f"{what} failed unexpectedly:\n{traceback.format_exc().rstrip()}")
            return TransitionCallbackReturn.ERROR
        return TransitionCallbackReturn.SUCCESS


class _StartFailed(Exception):  # noqa: N818 (not an error of its own: its cause is)
    """A transition at the start failed; the cause has been logged."""


def run_node(factory: Callable[[], ManagedNode], args: list[str] | None = None) -> int:
    """Make a node, start it if it asks for that, and spin it until it is interrupted.

    One single-threaded executor: rclpy's multi-threaded one costs more than it gains under the GIL, and what is
    slow has its own thread.

    Args:
        factory: makes the node; called after ``rclpy.init``.
        args: the command line without the program, ``sys.argv[1:]`` by default.

    Returns:
        The exit status: 0 after SIGINT or SIGTERM, 1 after an error (one line), 2 if the parameters or arguments are
        wrong (one line). An error that nobody foresaw keeps its traceback.
    """
    name = getattr(factory, "__name__", "node")
    arguments = sys.argv[1:] if args is None else args
    try:
        with _ros(arguments), _node(factory) as node:
            _start(node)
            _spin(node)
    except _StartFailed as failed:  # the node has said why
        return EXIT_WRONG_USE if isinstance(failed.__cause__, ConfigError) else EXIT_FAILED
    except ConfigError as error:
        get_logger(name).fatal(str(error))
        return EXIT_WRONG_USE
    except SsadaError as error:
        get_logger(name).fatal(str(error))
        return EXIT_FAILED
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    return EXIT_OK


@contextmanager
def _ros(arguments: list[str]) -> Iterator[None]:
    try:
        foreign = remove_ros_args(arguments)
        if foreign:
            raise ConfigError(f"unknown argument '{foreign[0]}': parameters are given as --ros-args -p name:=value")
        rclpy.init(args=arguments)
    except rclpy_implementation.RCLError as error:
        # Malformed --ros-args or params file; the message ends with where in rcl it was noticed.
        raise ConfigError(" ".join(str(error).partition(", at /")[0].split())) from error
    try:
        yield
    finally:
        rclpy.try_shutdown()


@contextmanager
def _node(factory: Callable[[], ManagedNode]) -> Iterator[ManagedNode]:
    node = factory()
    try:
        check_overrides(node)
        yield node
    finally:
        with _uninterrupted():
            node.close()
            node.destroy_node()


def _start(node: ManagedNode) -> None:
    if not node.autostart:
        return
    for trigger in (node.trigger_configure, node.trigger_activate):
        if trigger() != TransitionCallbackReturn.SUCCESS and node.failure is not None:
            raise _StartFailed from node.failure
        if not node.context.ok():  # a signal came during the transition
            raise ExternalShutdownException


def _spin(node: ManagedNode) -> None:
    executor = SingleThreadedExecutor(context=node.context)
    executor.add_node(node)
    with _ended_by_signal(node):
        try:
            executor.spin()
        finally:
            executor.shutdown(timeout_sec=0)


@contextmanager
def _ended_by_signal(node: ManagedNode) -> Iterator[None]:
    """Take the error of a callback that was at work when a signal shut the context down for what it is."""
    try:
        yield
    except (rclpy_implementation.RCLError, rclpy_implementation.InvalidHandle):
        if node.context.ok():
            raise
    except RuntimeError as error:
        # A KeyboardInterrupt while rclpy makes the message that it takes: pybind11 loses it and complains of this.
        if node.context.ok() or not str(error).startswith("Unable to convert call argument"):
            raise


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """A second Ctrl-C (or the supervisor's SIGINT on top of the terminal's) must not cut the cleaning up short."""
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
