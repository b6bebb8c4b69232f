"""Convert a published network file or a snapshot: the same command as `stylegan convert`."""

from stylegan.cli.convert import main

if __name__ == "__main__":
    main()
