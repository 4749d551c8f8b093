"""A node as a program, for test_lifecycle.py: its first argument says what it does."""

from __future__ import annotations

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from pydantic import Field

from ssada_core.errors import ConfigError, DataError
from ssada_core.settings import Settings
from ssada_ros.lifecycle import ManagedNode, run_node
from ssada_ros.parameters import declare_settings

MODE = sys.argv[1]


def say(words):
    sys.stdout.write(words + "\n")
    sys.stdout.flush()


class ProgramSettings(Settings):
    speed: int = Field(1, description="A parameter.")


class Program(ManagedNode):
    def __init__(self):
        super().__init__("program")
        declare_settings(self, ProgramSettings)
        self.autostart = MODE != "waiting"
        say("made")

    def configure(self, _state):
        say("configured")
        if MODE == "configure":
            say("in configure")
            time.sleep(2)
        if MODE == "data_error":
            raise DataError("no such pack")
        if MODE == "config_error":
            raise ConfigError("cameras: give one")

    def activate(self, _state):
        self._publisher = self.create_publisher(*self._topic())
        self._timer = self.create_timer(0.1, self._work)

    def cleanup(self, _state):
        time.sleep(0.3)
        say("cleaned up")

    @staticmethod
    def _topic():
        from std_msgs.msg import String

        return String, "work", 1

    def _work(self):
        if MODE == "spin":
            say("in spin")
        if MODE == "callback":
            say("in callback")
            self._publish_for(2.0)
        if MODE == "callback_error":
            raise DataError("the disk is full")
        if MODE == "done":
            self.finish()
        if MODE == "bug":
            say(str(1 / 0))

    def _publish_for(self, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._publisher.publish(self._topic()[0](data="still at it"))


if __name__ == "__main__":
    # What is left of argv after the mode, as a user would give it.
    sys.exit(run_node(Program, sys.argv[2:]))
