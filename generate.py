"""Generate images with a trained network: the same command as `stylegan generate`."""

from stylegan.cli import run

if __name__ == "__main__":
    run("generate")
