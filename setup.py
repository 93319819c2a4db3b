"""What pyproject.toml cannot say: `conf/` stays at the top of a checkout, and is `qup/conf` where qup is installed."""

from setuptools import find_namespace_packages, setup

setup(
    packages=[
        *find_namespace_packages(include=["qup", "qup.*", "hydra_plugins"]),
        "qup.conf",
        *(f"qup.conf.{group}" for group in find_namespace_packages("conf")),
    ],
    package_dir={"qup.conf": "conf"},
    package_data={"": ["*.yaml", "*.md", "gitignore", "*.html", "*.css", "*.js", "*.j2"]},
)
