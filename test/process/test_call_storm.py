"""Random lifecycle, parameter and service calls on both nodes under load: no dead-lock, no leak, the state asked for.

Seeded; a failure names its seed and the last calls.
"""

from __future__ import annotations

import random
import sys
import time
from collections import Counter, deque

import psutil
import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: pip install '.[ros]'")

import rclpy
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetAvailableTransitions, GetState
from rcl_interfaces.srv import DescribeParameters, GetParameters, ListParameters, SetParameters
from rclpy.parameter import Parameter
from ros_fixtures import make_registry
from sensor_msgs.msg import Image
from std_msgs.msg import String
from std_srvs.srv import SetBool, Trigger

from ssada_ros import qos
from ssada_ros.adaptation_settings import AdaptationNodeSettings
from ssada_ros.camera_settings import CameraSettings
from ssada_ros.parameters import write_parameters_file
from ssada_ros.processes import ProcessDescription
from ssada_ros.segmentation_settings import SegmentationSettings
from ssada_ros.supervisor import Supervisor

pytestmark = [pytest.mark.ros, pytest.mark.timeout(1500)]

SEGMENTATION, ADAPTATION, CAMERA = "segmentation_node", "adaptation_node", "camera_node"
NODES = (SEGMENTATION, ADAPTATION)
ANSWER_S = 60.0
"""A call that takes longer is a dead-lock; configuring takes most, a second or two on a busy machine."""
ASK_AGAIN_S = 5.0
LEAK_MB = 60.0
"""What a node may grow by between the first and the last time it was cleaned up, once everything had been used."""
STEPS = {
    "configure": (Transition.TRANSITION_CONFIGURE, "unconfigured", "inactive"),
    "activate": (Transition.TRANSITION_ACTIVATE, "inactive", "active"),
    "deactivate": (Transition.TRANSITION_DEACTIVATE, "active", "inactive"),
    "cleanup": (Transition.TRANSITION_CLEANUP, "inactive", "unconfigured"),
}
SETTINGS = [
    ("rate", 3.0),
    ("rate", -1.0),
    ("overlay_opacity", 0.25),
    ("overlay_opacity", 7.0),
    ("camera_weights", [2.0]),
    ("camera_weights", [1.0, 2.0]),
    ("confidence_threshold", 0.3),
    ("silence_s", 2.0),
    ("model", "elsewhere"),
    ("nonsense", 1),
]
WRONG = {("rate", -1.0), ("overlay_opacity", 7.0), ("model", "elsewhere"), ("nonsense", 1)}
PROMOTIONS = ['{"version": "v0001"}', '{"version": "v0002"}', '{"version": "v0099"}', "nonsense"]
SERVICES = ("adapt", "rollback", "confirm", "refuse")


class Caller:
    """Calls services and waits for the answers; knows which state each node must be in."""

    def __init__(self, seed, supervisor):
        rclpy.init()
        self.node = rclpy.create_node("caller")
        self.random = random.Random(seed)
        self.supervisor = supervisor
        self.state = dict.fromkeys(NODES, "active")
        self.last = deque(maxlen=12)
        self.made = Counter()
        self.clients = {}
        self.promoted = self.node.create_publisher(String, "ssada/promoted", qos.latched_profile())
        self.masks = []
        self.node.create_subscription(Image, f"{SEGMENTATION}/camera/mask", self.masks.append, qos.latest_profile())

    def close(self):
        self.node.destroy_node()
        rclpy.try_shutdown()

    def until(self, condition, what, seconds=ANSWER_S):
        end = time.monotonic() + seconds
        while not condition():
            logs = {name: self.supervisor.log_tail(name, 15) for name in NODES}
            assert time.monotonic() < end, f"{what}; before it {list(self.last)}\n{logs}"
            rclpy.spin_once(self.node, timeout_sec=0.05)

    def client(self, kind, service):
        """The one client of a service. A new one waits: a server that does not know it yet drops its answer."""
        if service not in self.clients:
            self.clients[service] = self.node.create_client(kind, service)
            self.until(self.clients[service].service_is_ready, f"{service} is not offered")
            known = time.monotonic() + 1.0
            self.until(lambda: time.monotonic() > known, "time stands still")
        return self.clients[service]

    def call(self, kind, service, **request):
        """The answer, or None if there is no such service now."""
        self.last.append((service, request))
        self.made[service.rpartition("/")[2]] += 1
        # A node has these while it is configured.
        if service.partition("/")[2] in (*SERVICES, "pause") and self.state[ADAPTATION] == "unconfigured":
            return None
        client = self.client(kind, service)
        self.until(client.service_is_ready, f"{service} is not offered")
        future = client.call_async(kind.Request(**request))
        self.until(future.done, f"{service} {request} has no answer")
        return future.result()

    def step(self, node, name):
        """Ask for a transition; it succeeds exactly where it leads from the state the node is in."""
        number, before, after = STEPS[name]
        answer = self.call(ChangeState, f"{node}/change_state", transition=Transition(id=number))
        assert answer.success == (self.state[node] == before), (node, name, self.state, list(self.last))
        if answer.success:
            self.state[node] = after

    def shown(self, node):
        """The node's state; asked again after a while, since a node that is starting may drop its answer."""
        service, asked = f"{node}/get_state", []
        client = self.client(GetState, service)

        def answered():
            if not asked or time.monotonic() - asked[-1][0] > ASK_AGAIN_S:
                asked.append((time.monotonic(), client.call_async(GetState.Request())))
            return next((future.result() for _, future in asked if future.done()), None)

        self.last.append((service, {}))
        self.until(answered, f"{service} has no answer")
        return answered().current_state.label

    def lead(self, node, wanted):
        """Take the steps that lead to a state."""
        order = ["unconfigured", "inactive", "active"]
        up, down = ("configure", "activate"), ("cleanup", "deactivate")
        while self.state[node] != wanted:
            here, there = order.index(self.state[node]), order.index(wanted)
            self.step(node, up[here] if there > here else down[here - 1])

    def one(self):
        """One random call."""
        pick = self.random
        node = pick.choice(NODES)
        act = pick.choices(["step", "set", "read", "serve", "promote"], [45, 20, 15, 15, 5])[0]
        if act == "step":
            self.step(node, pick.choice(list(STEPS)))
        elif act == "set":
            self.set(*pick.choice(SETTINGS))
        elif act == "read":
            self.read(node)
        elif act == "serve":
            self.serve()
        else:
            self.promoted.publish(String(data=pick.choice(PROMOTIONS)))

    def set(self, name, value):
        parameter = Parameter(name, value=value).to_parameter_msg()
        (result,) = self.call(SetParameters, f"{SEGMENTATION}/set_parameters", parameters=[parameter]).results
        wrong = (name, value) in WRONG if not isinstance(value, list) else len(value) != 1
        assert result.successful != wrong, (name, value, result.reason)
        assert result.successful or result.reason

    def read(self, node):
        kind, service, request = self.random.choice(
            [
                (GetState, "get_state", {}),
                (GetAvailableTransitions, "get_available_transitions", {}),
                (GetParameters, "get_parameters", {"names": ["cameras"]}),
                (ListParameters, "list_parameters", {}),
                (DescribeParameters, "describe_parameters", {"names": ["cameras", "transport"]}),
            ]
        )
        answer = self.call(kind, f"{node}/{service}", **request)
        if kind is GetState:
            assert answer.current_state.label == self.state[node]

    def serve(self):
        name = self.random.choice((*SERVICES, "pause"))
        if name == "pause":
            self.call(SetBool, f"{ADAPTATION}/pause", data=self.random.random() < 0.5)
            return
        answer = self.call(Trigger, f"{ADAPTATION}/{name}")
        assert answer is None or answer.message  # whatever it is, it says why


def used(supervisor, node):
    """Threads, open files and megabytes of a node."""
    process = psutil.Process(supervisor.pid(node))
    return process.num_threads(), process.num_fds(), process.memory_info().rss / 1e6


@pytest.fixture
def storm(ros_domain, tmp_path):
    make_registry(tmp_path / "registry", seeds=(0, 1))
    engine = {"backend": "torch", "threads": 1}
    write_parameters_file(
        tmp_path / "parameters.yaml",
        {
            SEGMENTATION: SegmentationSettings(model=str(tmp_path / "registry"), engine=engine),
            ADAPTATION: AdaptationNodeSettings(
                registry_dir=str(tmp_path / "registry"),
                pool_dir=str(tmp_path / "pool"),
                rounds_dir=str(tmp_path / "rounds"),
                engine=engine,
            ),
            CAMERA: CameraSettings(width=160, height=96, rate=5.0, publish_labels=False),
        },
    )
    parameters = tmp_path / "parameters.yaml"
    names = (SEGMENTATION, ADAPTATION, CAMERA)
    descriptions = [ProcessDescription(name, f"ssada_ros.{name}", parameters) for name in names]
    callers = []
    with Supervisor(descriptions, tmp_path / "log") as supervisor:

        def make(seed):
            callers.append(Caller(seed, supervisor))
            return callers[-1]

        yield make
        for caller in callers:
            caller.close()


@pytest.mark.parametrize(
    ("seed", "calls"),
    [(1, 100), pytest.param(2, 1000, marks=pytest.mark.slow), pytest.param(3, 1000, marks=pytest.mark.slow)],
)
def test_a_storm_of_calls_leaves_both_nodes_as_asked(storm, seed, calls):
    caller = storm(seed)
    supervisor = caller.supervisor
    for node in NODES:
        caller.until(lambda name=node: caller.shown(name) == "active", f"{node} does not start")
    caller.until(lambda: caller.masks, "no mask")
    for _ in range(calls // 5):
        caller.one()
    at_rest = {}
    for node in NODES:
        caller.lead(node, "unconfigured")
        at_rest[node] = used(supervisor, node)
    for _ in range(calls - calls // 5):
        caller.one()
    for node in NODES:
        caller.lead(node, "unconfigured")
        assert caller.shown(node) == "unconfigured"
        (threads, files, megabytes), (now_threads, now_files, now_megabytes) = at_rest[node], used(supervisor, node)
        sys.stderr.write(f"seed {seed}, {node}: threads, files, MB {at_rest[node]} and {used(supervisor, node)}\n")
        assert now_threads <= threads + 2
        assert now_files <= files + 5
        assert now_megabytes <= megabytes + LEAK_MB
        caller.lead(node, "active")
        assert caller.shown(node) == "active"
    caller.set("rate", 3.0)
    seen = len(caller.masks)
    caller.until(lambda: len(caller.masks) > seen + 3, "no masks after the storm")
    assert [supervisor.poll()[node] for node in NODES] == [None, None]
    assert not any("Traceback" in supervisor.log_tail(node, 10_000) for node in NODES)
    sys.stderr.write(f"{dict(caller.made)}\n")
