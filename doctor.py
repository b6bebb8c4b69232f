"""Check this machine: versions, compilers, caches and every fused op: the same command as `stylegan doctor`."""

from stylegan.cli.doctor import main

if __name__ == "__main__":
    main()
