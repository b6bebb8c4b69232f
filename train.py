"""Train a network on a folder or archive of images: the same command as `stylegan train`."""

from stylegan.cli import run

if __name__ == "__main__":
    run("train")
