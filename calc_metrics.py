"""Measure a network: the same command as `stylegan metrics`."""

from stylegan.cli.metrics import main

if __name__ == "__main__":
    main()
