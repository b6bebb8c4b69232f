"""Mix the styles of images: the same command as `stylegan mix`."""

from stylegan.cli import run

if __name__ == "__main__":
    run("mix")
