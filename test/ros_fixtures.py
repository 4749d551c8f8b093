"""What tests of nodes share: tiny models in registries, and a bench with a node under test and a watcher."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager

import numpy as np
import rclpy
import torch
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor

from ssada_core.data.simulated_drive import SimulatedDrive
from ssada_core.labels import CAMVID
from ssada_core.networks.build import build_network
from ssada_core.networks.settings import NetworkSettings
from ssada_core.store.manifest import ModelManifest
from ssada_core.store.registry import ModelRegistry

NETWORK = NetworkSettings(backbone="resnet18", input_height=64, input_width=96)
SIZE = (96, 160)
WATCHED_THREADS = {"inference", "prepare-model", "adaptation"}


def lively_weights(seed, settings=NETWORK):
    """Weights of a network that favours several classes and differs from seed to seed."""
    torch.manual_seed(seed)
    network = build_network(settings, CAMVID.num_classes, pretrained=False).train()
    generator = torch.Generator().manual_seed(seed)
    for _ in range(3):  # running statistics that fit the weights
        network.train_forward(torch.randn(2, 3, 64, 96, generator=generator))
    return network.state_dict()


def make_registry(root, *, seeds=(0,), deploy=None, label_space=CAMVID, network=NETWORK):
    """A registry with a version per seed; the first is the current one."""
    registry = ModelRegistry(root)
    for seed in seeds:
        manifest = ModelManifest(version="", created="", network=network, label_space=label_space.to_dict())
        registry.add(lively_weights(seed, network), manifest, deploy=deploy)
    registry.promote("v0001")
    return registry


def night(index):
    """A simulated frame and its label."""
    return SimulatedDrive(seed=1, size=SIZE, rate=2.0).frame(index, "night")


def footprint(node):
    """What a node holds of the middleware and of the process."""
    return {
        "publishers": sorted(publisher.topic_name for publisher in node.publishers),
        "subscriptions": sorted(subscription.topic_name for subscription in node.subscriptions),
        "services": sorted(service.srv_name for service in node.services),
        "timers": len(list(node.timers)),
        "guards": len(list(node.guards)),
        "threads": sorted(thread.name for thread in threading.enumerate() if thread.name in WATCHED_THREADS),
    }


def ros_arguments(parameters):
    """``-p`` for each parameter."""
    given = [part for name, value in parameters.items() for part in ("-p", f"{name}:={value}")]
    return ["--ros-args", *given]


class Bench:
    """A node under test and a watcher, spun by the test itself."""

    def __init__(self, factory, *, namespace="", **parameters):
        dotted = {name.replace("__", "."): value for name, value in parameters.items()}
        remapping = ["-r", f"__ns:={namespace}"] if namespace else []
        rclpy.init(args=[*ros_arguments(dotted), *remapping])
        try:
            self.node = factory()
        except BaseException:
            rclpy.try_shutdown()
            raise
        self.watcher = rclpy.create_node("watcher", use_global_arguments=False)
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(self.node)
        self.executor.add_node(self.watcher)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.executor.shutdown(timeout_sec=0)
        self.node.close()
        self.node.destroy_node()
        self.watcher.destroy_node()
        rclpy.try_shutdown()

    @property
    def where(self):
        return self.node._state_machine.current_state[1]

    def watch(self, kind, topic, profile):
        kept = []
        self.watcher.create_subscription(kind, topic, kept.append, profile)
        return kept

    def until(self, condition, seconds=60.0, every=None):
        """Spin until the condition holds; ``every`` is called in between."""
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, "the condition did not come true"
            if every is not None:
                every()
            self.executor.spin_once(timeout_sec=0.05)

    def spin(self, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.executor.spin_once(timeout_sec=0.05)

    def call(self, kind, service, request=None):
        client = self.watcher.create_client(kind, service)
        self.until(client.service_is_ready)
        future = client.call_async(request or kind.Request())
        self.until(future.done)
        self.watcher.destroy_client(client)
        return future.result()


class Elsewhere:
    """Cameras in a participant of their own, as real ones are: one participant has one type for a topic."""

    def __init__(self, name="elsewhere"):
        self.context = Context()
        rclpy.init(context=self.context)
        self.node = rclpy.create_node(name, context=self.context, use_global_arguments=False)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.node.destroy_node()
        rclpy.try_shutdown(context=self.context)

    @contextmanager
    def publishing(self, kind, topic, profile):
        """A publisher, gone again at the end."""
        publisher = self.node.create_publisher(kind, topic, profile)
        try:
            yield publisher
        finally:
            self.node.destroy_publisher(publisher)


def steady(publish, seconds=0.1):
    """Call at intervals, for ``Bench.until``."""
    last = [0.0]

    def paced():
        if time.monotonic() - last[0] > seconds:
            last[0] = time.monotonic()
            publish()

    return paced


def values_of(status):
    """A diagnostic status's values as a dictionary."""
    return {pair.key: pair.value for pair in status.values}


def newest(arrays, name):
    """The newest diagnostic status whose name ends so, or None."""
    for message in reversed(arrays):
        for status in message.status:
            if status.name.endswith(name):
                return status
    return None


def assert_same(message, expected):
    """An Image carries exactly these pixels."""
    found = np.frombuffer(message.data, np.uint8).reshape(message.height, message.width, -1).squeeze()
    np.testing.assert_array_equal(found, expected)
