"""Make a training archive from images, or download a public data set: the same command as `stylegan data`."""

from stylegan.cli import run

if __name__ == "__main__":
    run("data")
