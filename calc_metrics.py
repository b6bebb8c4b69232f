"""Measure a network: the same command as `stylegan metrics`."""

from stylegan.cli import run

if __name__ == "__main__":
    run("metrics")
