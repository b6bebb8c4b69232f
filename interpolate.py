"""Make films and image sequences from image to image: the same command as `stylegan film`."""

from stylegan.cli import run

if __name__ == "__main__":
    run("film")
