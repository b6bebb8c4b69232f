"""Make films and image sequences from image to image: the same command as `stylegan film`."""

from stylegan.cli.film import main

if __name__ == "__main__":
    main()
