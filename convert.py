"""Convert a published network file or a snapshot: the same command as `stylegan convert`."""

from stylegan.cli import run

if __name__ == "__main__":
    run("convert")
