"""Mix the styles of images: the same command as `stylegan mix`."""

from stylegan.cli.mix import main

if __name__ == "__main__":
    main()
