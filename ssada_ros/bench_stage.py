"""The node that is measured and what it needs: models in a registry, parameters, processes, in one folder."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import torch

from ssada_core.bench.children import Child
from ssada_core.bench.model_at_size import ANYTHING, CALIBRATION_FRAMES, write_at_size
from ssada_core.data.lists import open_samples
from ssada_core.data.samples import spread
from ssada_core.errors import EngineError, SsadaError
from ssada_core.inference.engine import EngineSettings
from ssada_core.inference.export import deploy
from ssada_core.inference.load import read_manifest, read_model
from ssada_core.inference.targets import targets_for
from ssada_core.store.registry import ModelRegistry
from ssada_ros.bench_figures import Drive, drive_of
from ssada_ros.processes import FASTDDS_VARIABLES, ProcessDescription, environment
from ssada_ros.supervisor import Supervisor

NODE = "segmentation_node"
Reliability = Literal["best_effort", "reliable"]


@dataclass(frozen=True)
class BenchStage:
    """One model under test.

    Attributes:
        folder: for everything that is written.
        model: reference to a model, or ``random:ARCHITECTURE-BACKBONE``.
        network_size: height and width of the network.
        engine: how the node runs it.
        namespace: of the node and its driver, so that they do not meet a vehicle's.
    """

    folder: Path
    model: str
    network_size: tuple[int, int]
    engine: EngineSettings
    namespace: str = field(default_factory=lambda: f"/ssada_bench_{os.getpid()}")

    @property
    def registry(self) -> Path:
        """Where the node takes its models from."""
        return self.folder / "registry"

    def add_versions(self, count: int) -> list[str]:
        """Enter the model so many times, deployed as the engine needs it; from the second on with shifted biases.

        Raises:
            SsadaError: if the model cannot be used.
        """
        source = self.folder / "model"
        write_at_size(self.model, source, self.network_size)
        network, manifest = read_model(source)
        registry = ModelRegistry(self.registry)
        versions = []
        for number in range(count):
            weights = {name: _shifted(name, tensor, number) for name, tensor in network.state_dict().items()}
            versions.append(registry.add(weights, manifest, deploy=self._deploy))
        registry.promote(versions[0])
        return versions

    def _deploy(self, folder: Path) -> None:
        samples = spread(open_samples("sim:day", read_manifest(folder).labels()), CALIBRATION_FRAMES)
        height, width = self.network_size
        frames = [np.asarray(cv2.resize(samples.image(i), (width, height)), np.uint8) for i in range(len(samples))]
        deploy(folder, targets=targets_for(self.engine), frames=frames, quantisation=ANYTHING)


def _shifted(name: str, tensor: torch.Tensor, number: int) -> torch.Tensor:
    """Another model of the same cost: its biases differ in the fourth digit."""
    return tensor * (1 + 1e-4 * number) if name.endswith(".bias") else tensor


class NodeUnderTest:
    """A running node and its driver."""

    def __init__(self, driver: Child, supervisor: Supervisor) -> None:
        self._driver = driver
        self._supervisor = supervisor
        self._counts = (0, 0)

    @property
    def pid(self) -> int:
        """Process id of the node."""
        return self._supervisor.pid(NODE)

    def connect(self) -> None:
        """Wait until node and driver have found each other.

        Raises:
            EngineError: if they do not, with the node's last words.
        """
        try:
            self._driver.ask("connect")
        except EngineError as error:
            raise SsadaError(f"{error}: {self._supervisor.log_tail(NODE, lines=1)}") from error

    def drive(self, size: tuple[int, int], rate: float, frames: int) -> Drive:
        """Publish frames at a rate and see what comes back.

        Raises:
            SsadaError: if the node ended.
        """
        return self._ask("drive", {"size": size, "rate": rate, "frames": frames})

    def swap(self, job: Mapping[str, Any]) -> Drive:
        """Publish frames and swap versions; see the driver's job of that name.

        Raises:
            SsadaError: if the node ended, or the swaps took too long.
        """
        return self._ask("swap", job)

    def _ask(self, job: str, value: Mapping[str, Any]) -> Drive:
        drive, self._counts = drive_of(self._driver.ask(job, value), self._counts)
        status = self._supervisor.poll()[NODE]
        if status is not None:
            raise SsadaError(f"the node ended with status {status}: {self._supervisor.log_tail(NODE, lines=1)}")
        return drive


@contextmanager
def running(
    stage: BenchStage, *, profile: bool = True, camera: Reliability = "best_effort", log: str = "logs"
) -> Iterator[NodeUnderTest]:
    """Run the node and its driver.

    Args:
        stage: the model, entered already.
        profile: with the shipped Fast DDS profile, or as Fast DDS comes.
        camera: reliability that the camera offers.
        log: folder of the logs in the stage's.

    Raises:
        SsadaError: if they cannot be started or do not find each other.
    """
    from ssada_ros.parameters import write_parameters_file

    parameters = stage.folder / "parameters.yaml"
    settings = {"model": str(stage.registry), "engine": stage.engine.model_dump(), "cameras": ["camera/image"]}
    write_parameters_file(parameters, {NODE: settings})
    node = ProcessDescription(
        NODE,
        f"ssada_ros.{NODE}",
        parameters_file=parameters,
        namespace=stage.namespace,
        remappings={"/diagnostics": f"{stage.namespace}/diagnostics"},
    )
    variables = environment() if profile else _without_profile()
    spec = {"namespace": stage.namespace, "reliability": camera}
    with ExitStack() as stack:
        supervisor = stack.enter_context(Supervisor([node], stage.folder / log, variables=variables))
        driver = stack.enter_context(
            Child("driver", spec, threads=1, module="ssada_ros.bench_driver", variables=variables)
        )
        driver.wait_until_ready()
        under_test = NodeUnderTest(driver, supervisor)
        under_test.connect()
        yield under_test


def _without_profile() -> dict[str, str]:
    return {name: value for name, value in environment().items() if name not in FASTDDS_VARIABLES}
