"""Find directions in latent space and move along them: the same command as `stylegan directions`."""

from stylegan.cli import run

if __name__ == "__main__":
    run("directions")
