"""Check this machine: versions, compilers, caches and every fused op: the same command as `stylegan doctor`."""

from stylegan.cli import run

if __name__ == "__main__":
    run("doctor")
