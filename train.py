"""Train a network on a folder or archive of images: the same command as `stylegan train`."""

from stylegan.cli.train import main

if __name__ == "__main__":
    main()
