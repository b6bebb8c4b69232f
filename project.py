"""Find the latents of real images: the same command as `stylegan project`."""

from stylegan.cli import run

if __name__ == "__main__":
    run("project")
