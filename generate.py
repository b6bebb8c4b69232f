"""Generate images with a trained network: the same command as `stylegan generate`."""

from stylegan.cli.generate import main

if __name__ == "__main__":
    main()
